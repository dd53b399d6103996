"""Training of the feed-forward networks: the losses, the files, and runs that are stopped and resumed."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from imgops.data.datasets.crops import RandomCrops
from imgops.models.encoders.efficientnet_lite import EfficientNetLite
from imgops.models.encoders.vgg import VGG
from imgops.models.style.adain_decoder import AdaINDecoder
from imgops.models.style.weights import load_adain_decoder, load_transform_net
from imgops.nn import Features
from imgops.style import _network_recipe
from imgops.style.adain import normalized, stylize_adain
from imgops.style.training import state_path, train_adain, train_fast
from imgops.style.training_config import FastStyleConfig, of_training
from imgops.style.training_recipes import _awake
from imgops.style.training_settings import AdaINTraining, FastTraining
from imgops.training._steps import _due
from imgops.training.checkpoint import find_checkpoint, read_meta

STYLE = torch.rand(3, 40, 48)
FAST = FastTraining(widths=(4, 6, 8), blocks=1, size=16, batch=2, steps=4, save_every=2, lr_end=0.1)
ADAIN = AdaINTraining(size=16, batch=2, steps=4, save_every=2)


def small_vgg():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return VGG((1, 2, 1, 1), widths=(4, 5, 6, 7))


def small_lite():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = EfficientNetLite(0)
        norms = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
        # without these statistics, features of random weights shrink from layer to layer
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            network(torch.rand(4, 3, 64, 64))
        return network.eval()


def fast(out, settings=FAST, **options):
    return train_fast(STYLE, "samples:", out, small_vgg(), settings, **options)


def adain(out, settings=ADAIN, **options):
    return train_adain("samples:", "samples:", out, small_vgg(), settings, **options)


METHODS = [(fast, FAST, load_transform_net), (adain, ADAIN, load_adain_decoder)]
IDS = ["fast", "adain"]


@pytest.mark.parametrize(("train", "settings", "load"), METHODS, ids=IDS)
def test_a_resumed_run_is_the_same_bit_by_bit(train, settings, load, tmp_path):
    straight, parts = tmp_path / "straight.safetensors", tmp_path / "new" / "parts.safetensors"
    before = torch.get_rng_state()
    network = train(straight, settings)
    assert torch.equal(torch.get_rng_state(), before)
    train(parts, settings, on_step=lambda step, *rest: step == 2)
    halfway = load(parts).state_dict()
    train(parts, settings, resume=True)
    whole, resumed = load(straight).state_dict(), load(parts).state_dict()
    for key, value in network.state_dict().items():
        assert torch.equal(value, whole[key]), key
        assert torch.equal(value, resumed[key]), key
    assert any(not torch.equal(value, whole[key]) for key, value in halfway.items())
    # as does a state that lacks its network, after a kill between the two
    parts.unlink()
    train(parts, settings, resume=True)
    assert parts.read_bytes() == straight.read_bytes()


def test_a_kill_between_the_files_leaves_a_run_that_resumes(tmp_path, monkeypatch):
    out, straight, written = tmp_path / "a.safetensors", tmp_path / "straight.safetensors", []
    fast(straight)
    write = _network_recipe.write_file

    def killed(path, content):
        written.append(path)
        if len(written) == 2:
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(_network_recipe, "write_file", killed)
    with pytest.raises(KeyboardInterrupt):
        fast(out)
    assert written == [out] * 2
    # the checkpoint is whole before the network is written anew
    newest = find_checkpoint(state_path(out))
    assert read_meta(newest)["steps"] == 4
    assert out.read_bytes() != (newest / "network.safetensors").read_bytes()
    monkeypatch.undo()
    fast(out, resume=True)
    assert out.read_bytes() == straight.read_bytes()


@pytest.mark.parametrize(("train", "settings", "load"), METHODS, ids=IDS)
def test_steps_are_told_with_a_picture_at_saves(train, settings, load, tmp_path):
    told = []
    train(tmp_path / "a.safetensors", settings, on_step=lambda *step: told.append(step))
    assert [(step, steps) for step, steps, _, _ in told] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for _, _, losses, _ in told:
        assert losses["total"] == pytest.approx(losses["content"] + losses["style"], rel=1e-5)
    assert [picture is not None for *_, picture in told] == [False, True, False, True]
    assert told[1][3].shape == (3, 16, 32 if train is fast else 48)
    assert not told[1][3].requires_grad


@pytest.mark.parametrize(("train", "settings", "load"), METHODS, ids=IDS)
def test_training_lowers_the_loss(train, settings, load, tmp_path):
    totals = []
    longer = dataclasses.replace(settings, steps=40, save_every=100, lr=1e-2, content_weight=0.1)
    train(tmp_path / "a.safetensors", longer, on_step=lambda step, steps, losses, _: totals.append(losses["total"]))
    assert sum(totals[-5:]) < 0.8 * sum(totals[:5])


def test_the_losses_of_fast_are_johnsons(tmp_path):
    """Against plain formulas, on the first batch and the first network."""
    told, encoder = [], small_vgg()
    settings = dataclasses.replace(
        FAST, relative=False, content_weight=2.0, style_weight=3.0, tv_weight=0.5, steps=1, lr=0.0
    )
    network = fast(tmp_path / "a.safetensors", settings, on_step=lambda *step: told.append(step[2]))
    x = next(RandomCrops("samples:", 16).batches(2))
    y = network(x)
    layers = ["relu1_1", "relu2_2", "relu3_1", "relu4_1"]
    of = {name: Features(encoder, layers)(z) for name, z in (("x", x), ("y", y), ("style", STYLE[None]))}

    def gram(z):
        return torch.einsum("nchw,ndhw->ncd", z, z) / z[0].numel()

    style = sum((gram(of["y"][k]) - gram(of["style"][k])).square().mean() for k in layers)
    content = (of["y"]["relu2_2"] - of["x"]["relu2_2"]).square().mean()
    smoothness = y.diff(dim=2).square().mean() + y.diff(dim=3).square().mean()
    expected = {"content": 2 * content, "style": 3 * style, "smoothness": smoothness / 2}
    for name, value in expected.items():
        assert told[0][name] == pytest.approx(value.item(), rel=1e-4), name
    relative = dataclasses.replace(settings, relative=True)
    fast(tmp_path / "b.safetensors", relative, on_step=lambda *step: told.append(step[2]))
    shares = [
        (gram(of["y"][k]) - gram(of["style"][k])).square().mean() / gram(of["style"][k]).square().mean() for k in layers
    ]
    assert told[1]["style"] == pytest.approx(3 * sum(shares).item(), rel=1e-4)
    assert told[1]["content"] == pytest.approx(2 * (content / of["x"]["relu2_2"].square().mean()).item(), rel=1e-4)


def test_the_losses_of_adain_are_huangs(tmp_path):
    told, encoder = [], small_vgg()
    settings = dataclasses.replace(ADAIN, relative=False, steps=1, lr=0.0)
    decoder = adain(tmp_path / "a.safetensors", settings, on_step=lambda *step: told.append(step[2]))
    x, s = (
        next(RandomCrops("samples:", 16, textures=textures, seed=seed).batches(2))
        for textures, seed in ((0.2, 0), (0.7, 1))
    )
    layers = [f"relu{block}_1" for block in range(1, 5)]
    features = Features(encoder, layers)

    def statistics(z):
        return z.mean((2, 3), keepdim=True), (z.var((2, 3), keepdim=True) + 1e-5).sqrt()

    content, wanted = features(x)["relu4_1"], features(s)
    (own_mean, own_std), (mean, std) = statistics(content), statistics(wanted["relu4_1"])
    target = std * (content - own_mean) / own_std + mean
    ours = features(decoder(target))
    style = sum(
        F.mse_loss(a, b) for k in layers for a, b in zip(statistics(ours[k]), statistics(wanted[k]), strict=True)
    )
    assert told[0]["content"] == pytest.approx(F.mse_loss(ours["relu4_1"], target).item(), rel=1e-4)
    assert told[0]["style"] == pytest.approx(10 * style.item(), rel=1e-4)


def test_the_losses_may_be_on_another_encoder(tmp_path):
    """Those of optimize, against plain formulas, on the first batch and the first decoder."""
    told, encoder, other = [], small_vgg(), small_lite()
    settings = dataclasses.replace(ADAIN, size=32, content_weight=2.0, style_weight=3.0, steps=1, lr=0.0)
    decoder = adain(
        tmp_path / "a.safetensors", settings, loss_encoder=other, on_step=lambda *step: told.append(step[2])
    )
    x, s = (
        next(RandomCrops("samples:", 32, textures=textures, seed=seed).batches(2))
        for textures, seed in ((0.2, 0), (0.7, 1))
    )
    content, style = (Features(encoder, ["relu4_1"])(z)["relu4_1"] for z in (x, s))
    weights = {"conv_stem": 1, "blocks_0": 1, "blocks_2": 1, "blocks_4": 1, "blocks_6": 0.5, "blocks_9": 0.5}
    features = Features(other, list(weights))
    ours, wanted = features(decoder(normalized(content, style))), features(s)

    def gram(z):
        return torch.einsum("nchw,ndhw->ncd", z, z)

    def standard(z):
        return (z - z.mean((2, 3), keepdim=True)) / (z.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()

    shares = [
        weight * (gram(a) - gram(b)).square().sum() / gram(b).square().sum()
        for name, weight in weights.items()
        for a, b in zip(ours[name][:, None], wanted[name][:, None], strict=True)
    ]
    pixels = [(z.mean((2, 3)), (z.var((2, 3)) + 1e-5).sqrt()) for z in (decoder(normalized(content, style)), s)]
    colors = sum(5 * F.mse_loss(a, b) / b.square().mean() for a, b in zip(*pixels, strict=True))
    assert told[0]["style"] == pytest.approx(3 * (sum(shares) / 2 + colors).item(), rel=1e-3)
    difference = F.mse_loss(standard(ours["blocks_2"]), standard(features(x)["blocks_2"]))
    assert told[0]["content"] == pytest.approx(2 * difference.item(), rel=1e-3)


def test_a_decoder_mirrors_any_encoder(tmp_path):
    out, encoder, told = tmp_path / "a.safetensors", small_lite(), []
    settings = dataclasses.replace(ADAIN, size=32, steps=1, content_weight=2.0, style_weight=3.0)
    network = train_adain("samples:", "samples:", out, encoder, settings, on_step=lambda *step: told.append(step[2]))
    assert (network.layer, network.stride, network.widths) == ("blocks_4", 8, (32, 64, 128, 40))
    loaded = load_adain_decoder(out)
    assert (loaded.layer, loaded.stride, loaded.widths) == (network.layer, network.stride, network.widths)
    content, style = torch.rand(3, 72, 101), torch.rand(3, 64, 80)
    result = stylize_adain(content, [style], encoder, loaded)
    assert result.shape == content.shape
    torch.testing.assert_close(stylize_adain(content, [style], encoder, network), result)
    torch.testing.assert_close(stylize_adain(content, [style], encoder, loaded, tile=32), result, rtol=0, atol=2e-4)
    torch.save(network.state_dict(), tmp_path / "a.pth")
    assert load_adain_decoder(tmp_path / "a.pth").layer == "blocks_4"
    # the losses are the paper's, at the last layer of each stride
    features = Features(encoder, ["blocks_0", "blocks_2", "blocks_4"])
    x, s = (
        next(RandomCrops("samples:", 32, zoom=2, textures=textures, seed=seed).batches(2))
        for textures, seed in ((0.2, 0), (0.7, 1))
    )
    wanted = features(s)
    target = normalized(features(x)["blocks_4"], wanted["blocks_4"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ours = features(_awake(AdaINDecoder([2, 2, 2], widths=(32, 64, 128, 40)))(target))
    assert told[0]["content"] == pytest.approx(
        2 * (F.mse_loss(ours["blocks_4"], target) / target.square().mean()).item(), rel=1e-3
    )
    compared = [
        F.mse_loss(statistic(ours[name]), statistic(y)) / statistic(y).square().mean()
        for name, y in wanted.items()
        for statistic in (lambda z: z.mean((2, 3)), lambda z: (z.var((2, 3)) + 1e-5).sqrt())
    ]
    assert told[0]["style"] == pytest.approx(3 * sum(compared).item(), rel=1e-3)
    with pytest.raises(ValueError, match="block 4 needs a layer of stride 8; Sequential has 0 of 2"):
        train_adain("samples:", "samples:", tmp_path / "b.safetensors", nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1)), ADAIN)


def test_an_encoder_without_default_layers_is_refused(tmp_path):
    network = torch.nn.Sequential(torch.nn.Flatten())
    with pytest.raises(ValueError, match="loss_encoder must have layers to compare at; got Sequential"):
        adain(tmp_path / "a.safetensors", loss_encoder=network)
    with pytest.raises(ValueError, match=r"content_layer and style_layers must be given .* got Sequential"):
        train_fast(STYLE, "samples:", tmp_path / "a.safetensors", network, FAST)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    given = dataclasses.replace(FAST, content_layer="0", style_layers={"0": 2.0})
    train_fast(STYLE, "samples:", tmp_path / "a.safetensors", network, given)
    # by the stride of its layer
    train_fast(STYLE, "samples:", tmp_path / "b.safetensors", network, FAST)
    adain(tmp_path / "c.safetensors", loss_encoder=network)


def test_bfloat16_trains_too(tmp_path):
    settings = dataclasses.replace(ADAIN, size=32, precision="bfloat16", steps=40, content_weight=0.1, lr=1e-2)
    totals = []
    network = adain(
        tmp_path / "a.safetensors", settings, on_step=lambda step, steps, losses, _: totals.append(losses["total"])
    )
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert sum(totals[-10:]) < 0.9 * sum(totals[:10])
    adain(tmp_path / "c.safetensors", dataclasses.replace(settings, steps=2), loss_encoder=small_lite())
    out = tmp_path / "b.safetensors"
    with pytest.raises(ValueError, match="FastTraining: precision must be float32 or bfloat16; got 'half'"):
        dataclasses.replace(FAST, precision="half")
    fast(out, dataclasses.replace(FAST, precision="bfloat16"))
    with pytest.raises(ValueError, match="precision cannot change when a run is continued; it is bfloat16, got float3"):
        fast(out, FAST, resume=True)


def test_some_crops_are_their_own_style(tmp_path):
    told, encoder = [], small_vgg()
    settings = dataclasses.replace(ADAIN, batch=4, steps=1, lr=0.0, identity_weight=3.0)
    decoder = adain(tmp_path / "a.safetensors", settings, on_step=lambda *step: told.append(step[2]))
    x = next(RandomCrops("samples:", 16, textures=0.2).batches(4))[:1]
    y = decoder(Features(encoder, ["relu4_1"])(x)["relu4_1"])
    expected = 3 * ((y - x).square().mean() / x.square().mean()).item()
    # 1e-5 beside the variance leaves the features almost as they are
    assert told[0]["identity"] == pytest.approx(expected, rel=1e-2)
    assert told[0]["total"] == pytest.approx(sum(told[0].values()) - told[0]["total"], rel=1e-5)


def test_rates_and_defaults():
    settings = AdaINTraining()
    assert settings.rate(0) == 1e-4
    assert settings.rate(20000) == pytest.approx(1e-4 / 2)
    cosine = FastTraining(steps=100, lr=2.0, lr_end=0.1)
    assert [cosine.rate(i) for i in (0, 50, 100, 150)] == pytest.approx([2, 1.1, 0.2, 0.2])
    johnson = FastTraining().of_encoder(VGG(16))
    assert johnson.style_layers == ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    assert (johnson.content_layer, johnson.content_weight, johnson.style_weight) == ("relu2_2", 1e5, 1e10)
    assert not johnson.relative
    other = FastTraining(style_weight=7.0).of_encoder(small_vgg())
    assert other.style_layers == ("relu1_1", "relu2_2", "relu3_1", "relu4_1")
    assert other.relative
    assert other.style_weight == 7
    lite = FastTraining().of_encoder(small_lite())
    assert lite.content_layer == "blocks_2"
    assert list(lite.style_layers) == ["conv_stem", "blocks_0", "blocks_2", "blocks_4", "blocks_6", "blocks_9"]


def test_a_time_limit_ends_the_run_saved(tmp_path):
    steps = []
    out = tmp_path / "a.safetensors"
    more = dataclasses.replace(FAST, minutes=1e-6)
    fast(out, more, on_step=lambda step, *rest: steps.append(step))
    assert steps == []
    assert load_transform_net(out).widths == (4, 6, 8)
    fast(out, FAST, resume=True, on_step=lambda step, *rest: steps.append(step))
    assert steps == [1, 2, 3, 4]


def test_a_loss_that_is_not_finite_leaves_the_last_save(tmp_path):
    out = tmp_path / "a.safetensors"
    with pytest.raises(FloatingPointError, match=r"loss_total became (nan|inf) after 4 images; try a smaller lr"):
        fast(out, dataclasses.replace(FAST, lr=1e30, save_every=1))
    assert read_meta(find_checkpoint(state_path(out)))["steps"] == 1


def test_the_network_at_first_is_the_seeds_whatever_the_encoder_draws(tmp_path):
    """By name and by hand, and with an encoder that draws other random numbers when it is made."""
    settings = dataclasses.replace(FAST, steps=1, lr=0.0)
    by_hand = fast(tmp_path / "a.safetensors", settings)
    other = train_fast(STYLE, "samples:", tmp_path / "b.safetensors", small_lite(), settings)
    for (name, one), two in zip(by_hand.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two), name


def test_saves_come_when_they_are_told(tmp_path):
    """Numbers of images that thousandths do not hold exactly."""
    saved = []
    settings = dataclasses.replace(FAST, batch=1, steps=2008, save_every=2007)
    config = of_training(settings, FastStyleConfig, data="samples:", out="x", style="y")
    assert [_due(config.checkpoint_kimg, images - 1, images) for images in (2006, 2007, 2008)] == [False, True, False]
    fast(tmp_path / "a.safetensors", dataclasses.replace(FAST, save_every=3), on_step=lambda *s: saved.append(s[3]))
    assert [picture is not None for picture in saved] == [False, False, True, True]


def test_what_cannot_be_trained_is_named(tmp_path):
    out = tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match=r"out must end in \.safetensors; got .*a\.pth"):
        fast(tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.safetensors\.state: there is no training to resume"):
        fast(out, resume=True)
    with pytest.raises(ValueError, match=r"style must be RGB \[3, H, W\]; got \(1, 40, 48\)"):
        train_fast(STYLE[:1], "samples:", out, small_vgg(), FAST)
    with pytest.raises(ValueError, match="no layer 'relu9_1'"):
        fast(out, dataclasses.replace(FAST, content_layer="relu9_1"))
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        train_adain("samples:", tmp_path / "nowhere", out, small_vgg(), ADAIN)
    assert not list(tmp_path.iterdir())
    # rates that fall to the end follow from the length
    even = dataclasses.replace(FAST, lr_end=1.0)
    fast(out, even)
    with pytest.raises(ValueError, match="a training is there; resume it, or give another name"):
        fast(out)
    for change, message in (
        ({"batch": 3}, "batch cannot change when a run is continued; it is 2, got 3"),
        ({"widths": (4, 6, 9)}, r"widths cannot change when a run is continued; it is \(4, 6, 8\), got \(4, 6, 9\)"),
    ):
        with pytest.raises(ValueError, match=message):
            fast(out, dataclasses.replace(even, **change), resume=True)
    longer = dataclasses.replace(even, steps=6)
    for settings in even, longer:
        with pytest.raises(ValueError, match="the encoder or the style is another one"):
            train_fast(1 - STYLE, "samples:", out, small_vgg(), settings, resume=True)
    with pytest.raises(ValueError, match="size cannot change when a run is continued; it is 16, got 24"):
        fast(out, dataclasses.replace(even, size=24), resume=True)
    falling = tmp_path / "falling.safetensors"
    fast(falling)
    with pytest.raises(ValueError, match="kimg cannot change when a run with an lr_end is continued"):
        fast(falling, dataclasses.replace(FAST, steps=6), resume=True)
    with pytest.raises(ValueError, match="is of a run of the recipe style-fast, not of style-adain"):
        adain(out, resume=True)
    weights = find_checkpoint(state_path(out)) / "network.safetensors"
    whole = weights.read_bytes()
    for damage in (b"", b"hello", whole[:-9]):
        weights.write_bytes(damage)
        with pytest.raises(ValueError, match=r"network\.safetensors: missing or damaged"):
            fast(out, longer, resume=True)
    old = tmp_path / "b.safetensors"
    state_path(old).write_bytes(b"one file")
    with pytest.raises(ValueError, match=r"b\.safetensors\.state: is of an earlier version of imgops"):
        fast(old, resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 8}, "FastTraining: size must be 16 or more; got 8"),
        ({"steps": 0}, "steps must be 1 or more; got 0"),
        ({"lr": math.nan}, "lr must be 0 or more and finite; got nan"),
        ({"content_weight": 0.0, "style_weight": 0.0}, "cannot both be 0"),
        ({"lr_end": 2.0}, r"lr_end must be in \[0, 1\]; got 2.0"),
        ({"zoom": 0.5}, "zoom must be 1 or more; got 0.5"),
        ({"style_weight": -1.0}, "style_weight must be 0 or more; got -1.0"),
        ({"style_size": 4}, "style_size must be 16 or more; got 4"),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        FastTraining(**change)


def test_identity_weight_out_of_range():
    with pytest.raises(ValueError, match="AdaINTraining: identity_weight must be 0 or more; got -1"):
        AdaINTraining(identity_weight=-1)
