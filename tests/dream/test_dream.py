"""Dreams: octaves, seeds, noise, the constraint, zooms, and what is wrong with what they are given."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import json
import pkgutil

import pytest
import torch
from torch import nn

import imgops.dream
from imgops.data import read_picture, resize_picture
from imgops.data.pictures import resample
from imgops.dream import (
    ClassObjective,
    DreamSettings,
    GuidedObjective,
    Objective,
    default_objectives,
    describe_layers,
    dream,
    zoom_frames,
    zoom_picture,
)
from imgops.dream.gradient import Gradient
from imgops.dream.looks import Resolved
from imgops.dream.octaves import octave_sizes
from imgops.models.encoders.efficientnet_lite import EfficientNetLite
from imgops.models.encoders.googlenet import GoogLeNet
from imgops.models.encoders.inception_v3 import InceptionV3
from imgops.models.encoders.vgg import VGG
from imgops.models.encoders.weights import load_encoder

OBJECTIVES = [Objective("relu2_1")]
QUICK = DreamSettings(octaves=2, steps=3, jitter=4)


def small_vgg():
    torch.manual_seed(0)
    return VGG((2, 1, 1), widths=(4, 6, 8)).eval()


def picture(height=40, width=56):
    torch.manual_seed(2)
    return torch.rand(3, height, width) * 0.5 + 0.25


def value(x, network=None):
    return Gradient(network or small_vgg(), OBJECTIVES)(x[None])[0]


@pytest.mark.parametrize("module", [f"imgops.dream.{m.name}" for m in pkgutil.iter_modules(imgops.dream.__path__)])
def test_examples_run(module):
    names = {"torch": torch, "nn": nn, "Objective": Objective}
    failed, _ = doctest.testmod(importlib.import_module(module), extraglobs=names)
    assert failed == 0


def test_public_names_are_there():
    for name in imgops.dream.__all__:
        assert getattr(imgops.dream, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nightmare'"):
        imgops.dream.nightmare  # noqa: B018


@pytest.mark.parametrize("normalization", ["mean", "std", "laplacian", "none"])
@pytest.mark.parametrize("parametrization", ["pixels", "fourier"])
def test_a_dream_excites_its_layer(normalization, parametrization):
    settings = dataclasses.replace(QUICK, normalization=normalization, parametrization=parametrization, steps=5)
    if normalization == "none" and parametrization == "pixels":
        settings = dataclasses.replace(settings, step_size=0.01)
    start, seen = picture(), []
    y = dream(start, small_vgg(), OBJECTIVES, settings, on_step=lambda done, x: seen.append((done, x)))
    assert value(y) > 1.02 * value(start)
    assert y.shape == start.shape
    assert y.min() >= 0
    assert y.max() <= 1
    assert [done for done, _ in seen] == pytest.approx([i / 10 for i in range(1, 11)])
    assert [tuple(x.shape[1:]) for _, x in seen] == [(29, 40)] * 5 + [(40, 56)] * 5
    torch.testing.assert_close(seen[-1][1], y)


def test_the_detail_is_carried_between_octaves():
    """The same by hand: two octaves of one step each, without jitter."""
    settings = DreamSettings(octaves=2, octave_scale=2, steps=1, jitter=0, normalization="mean", step_size=0.02)
    start, gradient = picture().double(), Gradient(small_vgg().double(), OBJECTIVES)

    def step(x):
        g = gradient(x[None])[1][0]
        return (x + 0.02 * g / g.abs().mean()).clamp(0, 1)

    small = resample(start, 20, 28).clamp(0, 1)
    detail = step(small) - small
    expected = step((start + resample(detail, 40, 56)).clamp(0, 1))
    torch.testing.assert_close(dream(start, small_vgg().double(), OBJECTIVES, settings), expected)
    alone = dream(start, small_vgg().double(), OBJECTIVES, dataclasses.replace(settings, octaves=1))
    torch.testing.assert_close(alone, step(start))


def test_jitter_rolls_the_picture_and_the_gradient_back():
    """A pointwise layer has the same gradient wherever the picture lies."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh())
    still, moved = (
        dream(
            picture(), network, [Objective("1")], DreamSettings(octaves=1, steps=3, jitter=jitter, normalization="std")
        )
        for jitter in (0, 32)
    )
    torch.testing.assert_close(still, moved)


def test_seeds():
    first, again, other = (
        dream(picture(), small_vgg(), OBJECTIVES, dataclasses.replace(QUICK, seed=s)) for s in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    noise = [dream(None, small_vgg(), OBJECTIVES, dataclasses.replace(QUICK, seed=s), size=(24, 32)) for s in (1, 1, 2)]
    assert noise[0].shape == (3, 24, 32)
    assert torch.equal(noise[0], noise[1])
    assert (noise[0] - noise[2]).abs().mean() > 0.02


def test_noise_is_square_unless_told():
    assert dream(None, small_vgg(), OBJECTIVES, QUICK, size=24).shape == (3, 24, 24)


def test_a_tiled_dream_is_the_untiled_one():
    settings = dataclasses.replace(QUICK, normalization="mean")
    whole, tiled = (
        dream(picture(64, 72).double(), small_vgg().double(), OBJECTIVES, dataclasses.replace(settings, tile=tile))
        for tile in (None, 16)
    )
    torch.testing.assert_close(whole, tiled, rtol=1e-9, atol=1e-9)


def test_alpha_of_what_is_to_disappear():
    """A negative objective rises towards zero."""
    start = picture()
    less = [Objective("relu2_1", weight=-1.0)]
    result = dream(start, small_vgg(), less, dataclasses.replace(QUICK, alpha=1.5, step_size=0.02))
    assert value(result) < 0.95 * value(start)


def test_alpha_stays_nearer_to_the_input():
    start, free = picture(), DreamSettings(octaves=1, steps=40, jitter=0)
    far = dream(start, small_vgg(), OBJECTIVES, free)
    near = dream(start, small_vgg(), OBJECTIVES, dataclasses.replace(free, alpha=1.3))
    assert value(far) > 1.5 * value(start)
    assert value(near) / value(start) == pytest.approx(1.3, rel=0.05)
    assert (near - start).norm() < 0.6 * (far - start).norm()


def test_a_guide_is_taken_over():
    """Towards a guide of which one channel is all, that channel grows."""
    network = small_vgg()
    guide = torch.zeros(3, 24, 24)
    guide[0] = 1
    gradient = Gradient(network, [GuidedObjective("relu2_1", guide)])
    start = picture()
    y = dream(start, network, [GuidedObjective("relu2_1", guide)], QUICK)
    assert gradient(y[None])[0] > 1.02 * gradient(start[None])[0]


class Own(nn.Module):
    """A user's module: no sequence, in training mode, with views, a norm and a classifier that takes one size alone."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3, padding=1), "norm": nn.BatchNorm2d(4)})
        self.head = nn.Linear(4 * 24 * 24, 5)
        self.calls = 0

    def forward(self, x):
        y = self.body["norm"](self.body["conv"](x)).relu()
        self.calls += 1
        return self.head(y.view(len(y), -1))


def test_an_own_module_is_left_as_it_was():
    network = Own()
    network.body["conv"].requires_grad_(False)
    network.head.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    y = dream(picture(24, 24), network, [Objective("body.norm", 2)], QUICK)
    assert y.shape == (3, 24, 24)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert [p.requires_grad for p in network.parameters()] == [False, False, True, True, True, True]
    assert all(p.grad is None for p in network.parameters())
    assert (network.training, network.body["norm"].training, network.head.training) == (True, True, False)
    # the layers up to the norm take any size, but the whole one size: octaves that are others are left out
    sizes = []
    dream(picture(24, 24), network, [Objective("head", 1)], QUICK, on_step=lambda done, x: sizes.append(x.shape[1]))
    assert sizes == [24] * 3


def test_the_network_is_evaluated_no_further_than_the_deepest_layer():
    network = small_vgg()
    network.add_module("broken", nn.Linear(7, 7))
    assert dream(picture(), network, OBJECTIVES, QUICK).shape == (3, 40, 56)


def test_octaves_too_small_are_left_out_and_a_picture_too_small_is_said():
    sizes, settings = [], DreamSettings(octaves=4, octave_scale=2, steps=1)
    dream(
        picture(16, 40), small_vgg(), [Objective("pool3")], settings, on_step=lambda done, x: sizes.append(x.shape[1])
    )
    assert sizes == [8, 16]
    assert octave_sizes(16, 40, Resolved(octaves=4, octave_scale=2))[0] == (2, 5)
    with pytest.raises(ValueError, match="layer pool3 needs a picture of 8 x 8 pixels at least; got 7 x 40"):
        dream(picture(7, 40), small_vgg(), [Objective("pool3")], settings)
    with pytest.raises(ValueError, match="pool3 needs a guide of 8 x 8 pixels at least; got 7 x 9"):
        dream(picture(), small_vgg(), [GuidedObjective("pool3", picture(7, 9))], settings)
    # not a matter of size
    with pytest.raises(RuntimeError, match="channels"):
        dream(picture(), nn.Sequential(nn.Conv2d(4, 4, 1)), [Objective("0")])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"picture": torch.rand(1, 40, 56)}, r"picture must be RGB \[3, H, W\]; got shape \[1, 40, 56\]"),
        ({"picture": torch.full((3, 40, 56), float("nan"))}, "picture has values that are not finite"),
        ({"picture": None}, "noise needs a size"),
        ({"size": 0}, "size must be >= 1; got 0"),
        ({"size": (20, 30)}, "its longer side, one int"),
        ({"objectives": []}, "objectives must have one at least"),
        ({"objectives": [Objective("relu2_2")]}, "has no layer 'relu2_2'; did you mean relu2_1 or"),
        ({"objectives": [Objective("relu2_1", 6)]}, "channel of layer relu2_1 must be 0 to 5; got 6"),
    ],
)
def test_bad_input(change, words):
    arguments = {"picture": picture(), "network": small_vgg(), "objectives": OBJECTIVES, "settings": QUICK} | change
    with pytest.raises(ValueError, match=words):
        dream(**arguments)
    # a zoom says so before its first frame
    with pytest.raises(ValueError, match=words):
        zoom_frames(**arguments)


def test_bad_types():
    with pytest.raises(TypeError, match=r"picture must be a tensor of floats.*got torch\.uint8"):
        dream(torch.zeros(3, 8, 8, dtype=torch.uint8), small_vgg(), OBJECTIVES)
    with pytest.raises(TypeError, match="objectives must be a list"):
        dream(picture(), small_vgg(), OBJECTIVES[0])
    with pytest.raises(TypeError, match="settings must be DreamSettings"):
        dream(picture(), small_vgg(), OBJECTIVES, {"steps": 3})
    with pytest.raises(TypeError, match="size must be an int"):
        dream(picture(), small_vgg(), OBJECTIVES, QUICK, size=20.0)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("octaves", 0, "must be 1 or more; got 0"),
        ("octave_scale", 1.0, "must be above 1; got 1.0"),
        ("steps", 0, "must be 1 or more"),
        ("step_size", 0.0, "must be above 0"),
        ("step_size", float("nan"), "must be above 0"),
        ("jitter", -1, "must be 0 or more"),
        ("normalization", "max", "must be mean, std, laplacian or none; got 'max'"),
        ("seed", -1, "must be 0 or more"),
        ("tile", 0, "must be 1 or more"),
        ("alpha", 1.0, "must be above 1"),
        ("parametrization", "wavelets", "must be pixels or fourier"),
    ],
)
def test_settings_out_of_range(name, value, words):
    with pytest.raises(ValueError, match=f"DreamSettings: {name} {words}"):
        DreamSettings(**{name: value})


def test_settings_of_other_types():
    for name in ("octaves", "steps", "jitter", "seed", "tile"):
        with pytest.raises(TypeError, match=f"{name} must be a whole number"):
            DreamSettings(**{name: 2.5})
    for name in ("octave_scale", "step_size", "alpha"):
        with pytest.raises(TypeError, match=f"{name} must be a number"):
            DreamSettings(**{name: "2"})
    assert DreamSettings(**json.loads(json.dumps(dataclasses.asdict(QUICK)))) == QUICK


def test_a_zoom_of_nothing_is_the_picture():
    x = picture()
    assert zoom_picture(x, 0.0, 0.0) is x
    assert torch.equal(zoom_picture(x, 0.0, 360.0), x)
    # by next to nothing: the same arithmetic, which the shortcut leaves out
    torch.testing.assert_close(zoom_picture(x, 1e-9, 0.0), x, rtol=0, atol=1e-4)


def test_a_zoom_magnifies_and_turns_about_the_middle():
    y, x = torch.meshgrid(torch.arange(33.0) - 16, torch.arange(33.0) - 16, indexing="ij")
    ramp = torch.stack([x, y, torch.zeros_like(x)]) / 64 + 0.5
    torch.testing.assert_close(zoom_picture(ramp, 0.25)[:2] - 0.5, 0.75 * (ramp[:2] - 0.5))
    square = picture(21, 21)
    torch.testing.assert_close(zoom_picture(square, 0.0, 90.0), square.rot90(-1, (1, 2)), rtol=0, atol=1e-5)
    # what comes in from outside is the picture reflected
    shrunk = zoom_picture(square, -0.9, 0.0)
    assert shrunk.min() >= square.min()


def test_frames_are_the_dream_of_the_zoom_of_the_frame_before():
    seen, done = [], []
    settings = dataclasses.replace(QUICK, seed=5)
    frames = list(
        zoom_frames(
            picture(), small_vgg(), OBJECTIVES, settings, 3, 0.1, 5.0,
            on_frame=lambda i, frame: seen.append((i, frame)), keep_colors=False, on_step=lambda f, x: done.append(f),
        )
    )  # fmt: skip
    expected = dream(picture(), small_vgg(), OBJECTIVES, settings)
    for i, frame in enumerate(frames):
        torch.testing.assert_close(frame, expected)
        following = dataclasses.replace(settings, seed=6 + i)
        expected = dream(zoom_picture(frame, 0.1, 5.0), small_vgg(), OBJECTIVES, following)
    assert [i for i, _ in seen] == [0, 1, 2]
    assert all(frame is given for (_, frame), given in zip(seen, frames, strict=True))
    assert done == pytest.approx([i / 18 for i in range(1, 19)])


def test_colors_are_kept_over_frames():
    """With steps of nothing, frames differ by the zoom alone, and mean and deviation stay those of the first."""
    settings = DreamSettings(octaves=1, steps=1, step_size=1e-9)
    first, *_, last = zoom_frames(picture(), small_vgg(), OBJECTIVES, settings, 4, 0.2)
    torch.testing.assert_close(last.mean((1, 2)), first.mean((1, 2)), rtol=0, atol=2e-3)
    torch.testing.assert_close(last.std((1, 2)), first.std((1, 2)), rtol=0, atol=5e-3)
    # with real ones they would grow from frame to frame
    settings = DreamSettings(octaves=1, steps=3, step_size=0.02, jitter=4)
    for keep in (True, False):
        first, *_, last = zoom_frames(picture(), small_vgg(), OBJECTIVES, settings, 8, 0.2, keep_colors=keep)
        before, after = (torch.corrcoef(frame.flatten(1)) for frame in (first, last))
        assert bool((last.std((1, 2)) > 1.05 * first.std((1, 2))).all()) != keep
        assert bool((before - after).abs().max() < 0.02) == keep


@pytest.mark.parametrize("side", [96, 97])
@pytest.mark.parametrize(("zoom", "rotate"), [(0.05, 0.0), (0.02, 0.5), (0.1, -2.0)])
def test_a_zoom_draws_no_cross_through_the_middle(side, zoom, rotate):
    """Noise is as rough in the middle, where it hardly moves, as elsewhere, and stays rough."""
    frame = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0))
    for steps in range(1, 6):
        frame = zoom_picture(frame, zoom, rotate)
        if steps in (1, 5):
            for axis in (1, 2):
                rough = frame.diff(dim=axis).square().mean((0, 3 - axis))
                middle = rough[side // 2 - 2 : side // 2 + 1].mean()
                assert 0.6 < middle / rough[8:-8].median() < 1.6
    assert frame.std() > 0.75 * 12**-0.5


@pytest.mark.parametrize("encoder", ["efficientnet-lite2", "embedded"])
@pytest.mark.parametrize("name", ["astronaut", "camera"])
def test_twenty_frames_stay_as_rich_and_as_sharp(name, encoder):
    def measures(frame):
        chroma = frame.amax(0) - frame.amin(0)
        saturation = (chroma / frame.amax(0).clamp_min(0.01)).mean()
        return torch.stack([saturation, chroma.mean(), frame.std(), frame.diff(dim=2).square().mean().sqrt()])

    start = resize_picture(read_picture(f"samples:{name}").pixels, 64)
    network, settings = load_encoder(encoder, frame=False), DreamSettings(octaves=2, steps=4)
    first, *_, last = zoom_frames(start, network, default_objectives(network), settings, 20)
    saturation, chroma, contrast, sharpness = (measures(last) / measures(first)).tolist()
    assert 0.8 < chroma < 1.25
    # the embedded encoder colors what is nearly black of a gray picture, and black is most saturated
    assert (encoder, name) == ("embedded", "camera") or 0.7 < saturation < 1.2
    assert 0.95 < contrast < 1.05
    assert 0.65 < sharpness < 1.5


def test_a_zoom_goes_on_after_any_frame():
    arguments = (picture(), small_vgg(), OBJECTIVES, QUICK, 5, 0.1, 5.0)
    whole = list(zoom_frames(*arguments))
    for count in (1, 3):
        rest = list(zoom_frames(*arguments, after=(count, whole[0], whole[count - 1])))
        assert all(torch.equal(a, b) for a, b in zip(whole[count:], rest, strict=True))


def test_frames_out_of_range():
    for change, words in (
        ({"frames": 0}, "frames must be >= 1"),
        ({"zoom": 1.0}, "zoom must be"),
        ({"rotate": float("nan")}, "rotate"),
    ):
        with pytest.raises(ValueError, match=words):
            zoom_frames(picture(), small_vgg(), OBJECTIVES, **change)
    with pytest.raises(TypeError, match="frames must be an int"):
        zoom_frames(picture(), small_vgg(), OBJECTIVES, frames=2.0)
    with pytest.raises(TypeError, match="zoom must be a number"):
        zoom_picture(picture(), "0.1")


def test_layers_are_listed_with_channels_and_stride():
    layers = {layer.name: layer[1:] for layer in describe_layers(small_vgg(), 32)}
    assert list(layers) == [name for name, _ in small_vgg().named_children()]
    assert layers["conv1_1"] == (4, 1)
    assert layers["relu2_1"] == (6, 2)
    assert layers["pool3"] == (8, 8)
    own = Own()
    assert [layer.name for layer in describe_layers(own, 24)] == ["body.conv", "body.norm"]
    assert own.training
    assert not own.body["conv"]._forward_hooks
    with pytest.raises(ValueError, match="Own cannot take a picture of 25 x 25"):
        describe_layers(own, 25)


def test_default_objectives_are_layers_of_their_networks():
    with torch.device("meta"):
        networks = [GoogLeNet(), InceptionV3(), VGG(19), VGG((1, 1), widths=(4, 4))]
    found = [default_objectives(network)[0].layer for network in networks]
    assert found == ["inception_4c", "Mixed_6a", "relu4_2", "relu2_1"]
    for network, layer in zip(networks, found, strict=True):
        network.get_submodule(layer)
    cat = ClassObjective(281)
    assert [default_objectives(network, [cat]) for network in networks] == [[cat]] * 4
    assert default_objectives(EfficientNetLite(2), [cat]) == [cat, Objective("blocks_13", weight=0.5)]
    with pytest.raises(ValueError, match="Own has no layer to dream with by default"):
        default_objectives(Own())


@pytest.mark.parametrize("color", [1.0, 0.5])
def test_a_dream_of_a_flat_picture_has_no_frame(color):
    """Colors and patterns of its border are those of its middle."""
    network = load_encoder("embedded", frame=False)
    settings = DreamSettings(octaves=2)
    result = dream(torch.full((3, 96, 112), color), network, default_objectives(network), settings)
    border = torch.ones(96, 112, dtype=torch.bool)
    border[4:-4, 4:-4] = False
    middle = result[:, 16:-16, 16:-16]
    assert middle.std() > 0.005
    spread = middle.std((1, 2))
    # patterns are as large as a tenth of the border, whose mean varies with them
    assert ((result[:, border].mean(1) - middle.mean((1, 2))).abs() < 0.6 * spread).all()
    assert (0.5 * spread < result[:, border].std(1)).all()
