"""The networks of feed-forward style transfer, and the files that people have of them, synthetic with the same keys."""

from __future__ import annotations

import doctest
import re

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

from imgops.models import weight_files
from imgops.models.encoders.vgg import VGG
from imgops.models.encoders.weights import load_encoder
from imgops.models.style import adain_decoder, transform_net, weights
from imgops.models.style.adain_decoder import AdaINDecoder
from imgops.models.style.transform_net import TransformNet
from imgops.models.style.weights import fast_styles, load_adain_decoder, load_transform_net
from imgops.nn import InstanceNorm2d

#: places of the convolutions in AdaIN's decoder.pth, and their channels
DECODER = {
    1: (512, 256), 5: (256, 256), 8: (256, 256), 11: (256, 256), 14: (256, 128), 18: (128, 128), 21: (128, 64),
    25: (64, 64), 28: (64, 3),
}  # fmt: skip


def fast_keys(blocks=5):
    """Those of fast_neural_style's networks."""
    convolutions = ["conv1", "conv2", "conv3", *(f"res{i}.conv{j}" for i in range(1, blocks + 1) for j in (1, 2))]
    convolutions += ["deconv1", "deconv2", "deconv3"]
    norms = [f"in{i}" for i in range(1, 6)] + [f"res{i}.in{j}" for i in range(1, blocks + 1) for j in (1, 2)]
    names = [f"{name}.conv2d" for name in convolutions] + norms
    return {f"{name}.{part}" for name in names for part in ("weight", "bias")}


def small_net():
    network = TransformNet((4, 6, 8), 2).eval()
    for name, parameter in network.named_parameters():
        if ".in" in name or name.startswith("in"):
            nn.init.uniform_(parameter, 0.5, 1.5)
    return network


def saved(state, path):
    torch.save(state, path)
    return path


def test_instance_norm_is_that_of_torch():
    ours, theirs = InstanceNorm2d(4).double(), nn.InstanceNorm2d(4, affine=True).double()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = 3 + torch.randn(2, 4, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))


def test_transform_net_has_the_known_keys_and_size():
    network = TransformNet()
    assert set(network.state_dict()) == fast_keys()
    assert len(network.state_dict()) == 62
    assert sum(p.numel() for p in network.parameters()) == 1_679_235


def test_transform_net_is_its_formula():
    network = small_net().double()
    state = network.state_dict()
    x = torch.rand(2, 3, 14, 19, dtype=torch.float64)

    def conv(y, name, stride=1):
        weight = state[f"{name}.conv2d.weight"]
        y = F.pad(y, [weight.shape[2] // 2] * 4, mode="reflect")
        return F.conv2d(y, weight, state[f"{name}.conv2d.bias"], stride)

    def norm(y, name):
        return F.instance_norm(y, weight=state[f"{name}.weight"], bias=state[f"{name}.bias"], eps=1e-5)

    def twice(y):
        return y.repeat_interleave(2, 2).repeat_interleave(2, 3)

    y = 255 * x
    for i, stride in ((1, 1), (2, 2), (3, 2)):
        y = norm(conv(y, f"conv{i}", stride), f"in{i}").relu()
    for i in (1, 2):
        y = y + norm(conv(norm(conv(y, f"res{i}.conv1"), f"res{i}.in1").relu(), f"res{i}.conv2"), f"res{i}.in2")
    y = norm(conv(twice(y), "deconv1"), "in4").relu()
    y = norm(conv(twice(y), "deconv2"), "in5").relu()
    torch.testing.assert_close(network(x), conv(y, "deconv3")[..., :14, :19] / 255)


@pytest.mark.parametrize("size", [(5, 5), (6, 17), (31, 32), (33, 34)])
def test_any_size_is_kept(size):
    assert small_net()(torch.rand(1, 3, *size)).shape == (1, 3, *size)


def test_decoder_is_the_mirror_of_vgg19():
    decoder = AdaINDecoder()
    convolutions = [(n, m) for n, m in decoder.named_children() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for _, m in convolutions] == list(DECODER.values())
    assert sum(p.numel() for p in decoder.parameters()) == 3_505_219
    names = [n for n, _ in VGG(19).named_children() if n.startswith(("conv", "relu"))]
    mirrored = [n.replace("relu", "conv") for n in names[: names.index("relu4_1")] if n.startswith("conv")]
    assert [n for n, _ in convolutions] == mirrored[::-1]
    assert [n for n, _ in decoder.named_children()][-4:] == ["up1", "conv1_2", "relu1_2", "conv1_1"]


def test_decoder_of_the_default_shape():
    decoder = AdaINDecoder((2, 2, 2, 2, 2), widths=(24, 48, 96, 192))
    channels = [(m.in_channels, m.out_channels) for m in decoder if isinstance(m, nn.Conv2d)]
    assert channels == [(192, 96), (96, 96), (96, 48), (48, 48), (48, 24), (24, 24), (24, 3)]
    x = torch.rand(1, 192, 3, 4)
    assert torch.equal(decoder(x, (17, 31)), decoder(x)[..., :17, :31])


def test_a_decoder_of_another_block():
    decoder = AdaINDecoder((2, 2, 2), widths=(24, 48, 96))
    assert (decoder.layer, decoder.stride) == ("relu3_1", 4)
    assert next(iter(dict(decoder.named_children()))) == "conv3_1"
    assert decoder(torch.rand(1, 96, 3, 4)).shape == (1, 3, 12, 16)


@pytest.mark.parametrize("depth", [(1, 1, 1), (2, 2, 2), (2, 2, 4), (1, 3, 2)])
def test_the_halo_is_what_pixels_depend_on(depth):
    decoder = AdaINDecoder(depth, widths=(2, 2, 3, 3)).double()
    for parameter in decoder.parameters():
        parameter.data.abs_()
    x = torch.rand(1, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    (dx,) = torch.autograd.grad(decoder(x)[..., 64:72, 64:72].sum(), x)
    # a tile of Winograd's reads more than its outputs depend on, and rounds
    seen = dx.abs().sum((0, 1, 3))
    rows = (seen > 1e-9 * seen.max()).nonzero().flatten()
    assert (rows.min().item(), rows.max().item()) == (8 - decoder.halo, 8 + decoder.halo)


def test_files_of_fast_neural_style(tmp_path):
    network, x = small_net(), torch.rand(1, 3, 20, 30)
    state = network.state_dict()
    assert set(state) == fast_keys(2)
    norms = [key.removesuffix(".weight") for key in state if re.search(r"in\d\.weight", key)]
    legacy = {f"{n}.{part}": torch.zeros(8) for n in norms for part in ("running_mean", "running_var")}
    safe = tmp_path / "ours.safetensors"
    safetensors.torch.save_file({k: v.half() for k, v in state.items()}, safe)
    for name, path, tolerance in (
        ("plain", saved(state, tmp_path / "mosaic.pth"), 1e-6),
        ("legacy", saved(state | legacy, tmp_path / "legacy.model"), 1e-6),
        ("half", safe, 1e-2),
    ):
        loaded = load_transform_net(path)
        assert (loaded.widths, loaded.blocks, loaded.training) == ((4, 6, 8), 2, False)
        assert not any(p.requires_grad for p in loaded.parameters())
        torch.testing.assert_close(loaded(x), network(x), rtol=tolerance, atol=tolerance, msg=name)


def test_files_of_decoders(tmp_path):
    x = torch.rand(1, 512, 2, 3)
    decoder = AdaINDecoder()
    values = list(decoder.state_dict().values())
    theirs = dict(zip([f"{i}.{part}" for i in DECODER for part in ("weight", "bias")], values, strict=True))
    for path in (saved(theirs, tmp_path / "decoder.pth"), saved(decoder.state_dict(), tmp_path / "ours.pth")):
        torch.testing.assert_close(load_adain_decoder(path)(x), decoder(x))
    for depth, widths in (((1, 2, 1), (2, 3, 4, 5)), ((2, 1, 3), (2, 3, 4, 5)), ((2, 2), (2, 3, 5))):
        small = AdaINDecoder(depth, widths=widths)
        loaded = load_adain_decoder(saved(small.state_dict(), tmp_path / "small.pth"))
        assert (loaded.blocks, loaded.widths) == (depth, widths)
        torch.testing.assert_close(loaded(x[:, :5]), small(x[:, :5]))


@pytest.mark.parametrize(
    ("load", "build", "change", "message"),
    [
        (load_transform_net, small_net, lambda s: s.pop("conv2.conv2d.weight"), "missing, the first is conv2.conv2d.w"),
        (load_transform_net, small_net, lambda s: s.pop("res1.in2.bias"), "1 keys are missing, the first is res1.in2"),
        (
            load_transform_net,
            small_net,
            lambda s: s.update({"deconv1.conv2d.weight": torch.zeros(6, 8, 5, 5)}),
            r"deconv1.conv2d.weight has shape \(6, 8, 5, 5\) where \(6, 8, 3, 3\) is needed",
        ),
        (load_transform_net, lambda: VGG([1], widths=[2]), lambda s: None, r"no known layout .*\(fast_neural_style\)"),
        (load_adain_decoder, small_net, lambda s: None, "no known layout .*(AdaIN's decoder, imgops AdaIN decoder)"),
        (
            load_adain_decoder,
            lambda: AdaINDecoder((1, 1, 1), widths=(2, 3, 4, 5)),
            lambda s: s.pop("conv4_1.weight"),
            "1 keys are missing, the first is conv4_1.weight",
        ),
        (
            load_adain_decoder,
            lambda: VGG((1, 1, 1, 1), widths=(2, 3, 4, 5)),
            lambda s: None,
            "2 keys have no place in the network, the first is input.weight",
        ),
    ],
)
def test_what_does_not_fit_is_named(load, build, change, message, tmp_path):
    state = build().state_dict()
    change(state)
    path = saved(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message) as raised:
        load(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_names_of_what_ships(tmp_path, monkeypatch):
    monkeypatch.setattr(weight_files, "_MODELS", tmp_path)
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "family"
    package.mkdir()
    for load, file in ((load_encoder, "default_encoder"), (load_adain_decoder, "default_adain")):
        with pytest.raises(ValueError, match=rf"default: this installation lacks {file}\.safetensors"):
            load("default")
    with pytest.raises(ValueError, match=r"mosaic: neither a file nor a style that ships with imgops \(there is none"):
        load_transform_net("mosaic")
    networks = {
        "default_encoder": VGG((1, 1), widths=(2, 3)),
        "default_adain": AdaINDecoder((1, 1, 1), widths=(2, 3, 4, 5)),
        "fast_stars": small_net(),
    }
    for name, network in networks.items():
        safetensors.torch.save_file(network.state_dict(), package / f"{name}.safetensors")
    assert fast_styles() == ["stars"]
    assert load_encoder("default").widths == (2, 3)
    assert load_adain_decoder("default").widths == (2, 3, 4, 5)
    assert load_transform_net("stars").blocks == 2
    with pytest.raises(ValueError, match=r"ships with imgops \(stars\)"):
        load_transform_net("mosaic")
    with pytest.raises(FileNotFoundError, match=r"mosaic\.pth"):
        load_transform_net("mosaic.pth")
    # a file of the name comes first
    saved(TransformNet((2, 2, 2), 1).state_dict(), tmp_path / "stars")
    assert load_transform_net("stars").blocks == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TransformNet((4, 6)), "TransformNet: widths must be three; got (4, 6)"),
        (lambda: TransformNet(blocks=0), "TransformNet: blocks must be >= 1; got 0"),
        (lambda: small_net()(torch.zeros(1, 3, 4, 9)), "at least 5 x 5 pixels; got (1, 3, 4, 9)"),
        (lambda: small_net()(torch.zeros(3, 9, 9)), "x must be RGB [N, 3, H, W]"),
        (lambda: AdaINDecoder(17), "AdaINDecoder: depth must be 16, 19 or the convolutions of each block; got 17"),
        (lambda: AdaINDecoder((1, 1)), "the convolutions of the blocks before the last, are needed; got depth"),
        (lambda: AdaINDecoder((1, 1, 1), widths=(1,)), "two widths at least"),
        (lambda: AdaINDecoder()(torch.zeros(1, 192, 4, 4)), "x must be [N, 512, H, W] of at least 2 x 2; got (1, 192"),
        (lambda: AdaINDecoder()(torch.zeros(1, 512, 4, 4), (33, 32)), "size must be at most (32, 32); got (33, 32)"),
    ],
)
def test_bad_options(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


@pytest.mark.parametrize("module", [adain_decoder, transform_net, weights, weight_files])
def test_examples_run(module):
    failed, tried = doctest.testmod(module, extraglobs={"torch": torch})
    assert tried
    assert failed == 0
