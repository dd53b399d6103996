"""Every layer and network in each dtype and under autocast, forward and backward, against itself in float32."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import imgops
import imgops.nn
from imgops.models.encoders._layers import Branches, ConvNorm, Pool
from imgops.models.encoders.googlenet import GoogLeNet, Inception
from imgops.models.encoders.inception_v3 import InceptionV3
from imgops.models.encoders.vgg import VGG
from imgops.models.style.adain_decoder import AdaINDecoder
from imgops.models.style.transform_net import TransformNet
from imgops.models.stylegan2 import Discriminator, Generator, MappingNetwork

NETWORK = nn.Sequential(nn.Conv2d(4, 3, 3), nn.ReLU())
SMALL = {"channel_base": 128, "channel_max": 8, "mapping_layers": 2}
DRAWS = torch.Generator().manual_seed(0)
X, STYLES, W = (torch.randn(*size, generator=DRAWS) for size in ((2, 4, 8, 8), (2, 4), (2, 5)))
PICTURE = torch.rand(2, 3, 16, 16, generator=DRAWS)
LONG = [1.0, 2.0, 3.0, 4.0, 4.0, 3.0, 2.0, 1.0]
#: how each layer and network is built, and what it is called with
MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...]]] = {
    "AdaIN": (imgops.nn.AdaIN, (X, X[:1, :, :3] + 1)),
    "AdaptiveInstanceNorm2d": (lambda: imgops.nn.AdaptiveInstanceNorm2d(4, 5), (X, W)),
    "BiasAct": (lambda: imgops.nn.BiasAct(4, act="swish"), (X,)),
    "FusedConv2d": (lambda: imgops.nn.FusedConv2d(4, 6, 3, padding=1, groups=2, act="lrelu"), (X,)),
    "FusedConvTranspose2d": (lambda: imgops.nn.FusedConvTranspose2d(4, 6, 3, 2, 1, 1, act="swish"), (X,)),
    "ContentLoss": (lambda: imgops.nn.ContentLoss(X[:1]), (X,)),
    "EqualizedConv2d": (lambda: imgops.nn.EqualizedConv2d(4, 3, 3, up=2, resample_filter=LONG), (X,)),
    "EqualizedLinear": (lambda: imgops.nn.EqualizedLinear(4, 3, lr_multiplier=0.01), (STYLES,)),
    "FIRDownsample2d": (imgops.nn.FIRDownsample2d, (X,)),
    "FIRUpsample2d": (lambda: imgops.nn.FIRUpsample2d(2, LONG), (X,)),
    "Features": (lambda: imgops.nn.Features(NETWORK, ["1"]), (X,)),
    "FilteredLReLU": (lambda: imgops.nn.FilteredLReLU(4, [1, 5, 10, 10, 5, 1], LONG, clamp=256), (X,)),
    "GramMatrix": (imgops.nn.GramMatrix, (X,)),
    "InstanceNorm2d": (lambda: imgops.nn.InstanceNorm2d(4), (X,)),
    "MinibatchStdDev": (imgops.nn.MinibatchStdDev, (X,)),
    "ModulatedConv2d": (lambda: imgops.nn.ModulatedConv2d(4, 3, 3, down=2), (X, STYLES)),
    "ModulatedDisplacement": (lambda: imgops.nn.ModulatedDisplacement(4, 5), (X, W)),
    "PerceptualLoss": (lambda: imgops.nn.PerceptualLoss(NETWORK, ["1"]), (X, X.flip(0))),
    "StyleLoss": (lambda: imgops.nn.StyleLoss(X[:1]), (X,)),
    "EFDM": (imgops.nn.EFDM, (X, X[:1, :, :3] + 1)),
    "SlicedWassersteinLoss": (lambda: imgops.nn.SlicedWassersteinLoss(X[:1], 5, seed=0), (X,)),
    "SynthesisLayer": (lambda: imgops.nn.SynthesisLayer(4, 3, 5, 16, up=2), (X, W, "const")),
    "ToRGB": (lambda: imgops.nn.ToRGB(4, 3, 5), (X, W)),
    "TotalVariation": (imgops.nn.TotalVariation, (X,)),
    "Pool, average": (lambda: Pool("average", 3, 1, 1), (X,)),
    "Pool, l2": (lambda: Pool("l2"), (X,)),
    "Inception": (lambda: Inception(4, 3, 2, 3, 2, 3, 2, padding_mode="reflect").eval(), (X,)),
    "ConvNorm": (lambda: Branches(a=ConvNorm(4, 3, kernel_size=3), b=ConvNorm(4, 2, kernel_size=3)).eval(), (X,)),
    "VGG": (lambda: VGG((1, 2), widths=(4, 6), pooling="l2"), (PICTURE,)),
    "TransformNet": (lambda: TransformNet((4, 6, 8), 1), (PICTURE,)),
    "AdaINDecoder": (lambda: AdaINDecoder((1, 1), widths=(3, 4)), (X,)),
    "MappingNetwork": (lambda: MappingNetwork(4, 5, 6, 3, 2), (STYLES, W, 0.7, 2)),
    "Generator": (lambda: Generator(4, 5, 6, 16, 3, **SMALL), (STYLES, W, 0.7, 2, True, "const")),
    "Generator, resnet": (
        lambda: Generator(4, 0, 6, 16, 3, architecture="resnet", **SMALL), (STYLES, None, 0.7, None, True, "const"),
    ),
    "Discriminator": (lambda: Discriminator(5, 16, 3, **SMALL), (PICTURE, W)),
    "Discriminator, skip": (lambda: Discriminator(0, 16, 3, architecture="skip", **SMALL), (PICTURE,)),
}  # fmt: skip
#: of a result's size; a network's layers each round what they make
TOLERANCE = {torch.float64: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def evaluated(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[list[Tensor], list[Tensor | None]]:
    """(results, gradients of the inputs and parameters)."""
    inputs = [a.clone().requires_grad_() if isinstance(a, Tensor) else a for a in arguments]
    y = module(*inputs)
    flat = [y] if isinstance(y, Tensor) else list(y.values()) if isinstance(y, dict) else [y[0], *y[1]]
    leaves = [t for t in inputs if isinstance(t, Tensor)] + list(module.parameters())
    # its gradients, of pictures divided by 255, are below the smallest numbers of float16: scaled, as training does
    scale = 2**14 if isinstance(module, TransformNet) else 1
    loss = scale * sum((t.float() if t.dtype != torch.float64 else t).square().mean() for t in flat)
    return flat, list(torch.autograd.grad(loss, leaves, allow_unused=True))


def assert_near(actual: list[Tensor | None], expected: list[Tensor | None], tolerance: float) -> None:
    largest = max(float(e.detach().abs().max()) for e in expected if e is not None)
    for a, e in zip(actual, expected, strict=True):
        assert (a is None) == (e is None)
        if a is not None and e is not None:
            error = float((a.detach().double() - e.detach().double()).abs().max())
            assert error <= tolerance * max(float(e.detach().abs().max()), 0.1 * largest)


def built(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    torch.manual_seed(0)
    build, arguments = MODULES[name]
    return copy.deepcopy(build()), arguments


def test_every_layer_is_here():
    layers = {n for n in imgops.nn.__all__ if inspect.isclass(getattr(imgops.nn, n))} - {"DisplacementState"}
    # a vector that is rounded may be nearest to another code
    layers -= {"VectorQuantizer"}
    assert layers <= MODULES.keys()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("name", MODULES)
def test_modules_in_other_dtypes(name, dtype):
    module, arguments = built(name)
    expected, expected_gradients = evaluated(module, arguments)
    module, arguments = built(name)
    arguments = tuple(a.to(dtype) if isinstance(a, Tensor) else a for a in arguments)
    module.to(dtype)
    actual, gradients = evaluated(module, arguments)
    assert_near(actual, expected, TOLERANCE[dtype])
    # four pixels per plane in the middle of TransformNet: its normalizations multiply what float16 rounds
    if (name, dtype) != ("TransformNet", torch.float16):
        assert_near(gradients, expected_gradients, 4 * TOLERANCE[dtype])
    assert all(g.dtype == dtype for g in gradients if g is not None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("name", MODULES)
def test_modules_under_autocast(name, dtype):
    module, arguments = built(name)
    expected, expected_gradients = evaluated(module, arguments)
    module, arguments = built(name)
    with torch.autocast("cpu", dtype):
        actual, gradients = evaluated(module, arguments)
    assert_near(actual, expected, TOLERANCE[dtype])
    assert_near(gradients, expected_gradients, 5 * TOLERANCE[dtype])
    assert all(b.dtype == torch.float32 for b in module.buffers() if b.is_floating_point())


#: networks of many layers, and the side of the pictures they are given
DEEP: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "GoogLeNet": (GoogLeNet, 32),
    "GoogLeNet, l2": (lambda: GoogLeNet(pooling="l2", padding_mode="reflect"), 64),
    "InceptionV3": (InceptionV3, 75),
    "InceptionV3, fid": (lambda: InceptionV3(fid=True, pooling="l2"), 75),
}
#: of a gradient's norm: what is rounded moves activations across the corners of ReLU and maxima of pools, so that the
#: error of a gradient grows as the root of that of the activations
DEEP_TOLERANCE = {torch.float64: 1e-2, torch.float16: 0.25, torch.bfloat16: 0.5}


@pytest.mark.slow
@pytest.mark.parametrize("autocast", [False, True], ids=["converted", "autocast"])
@pytest.mark.parametrize("dtype", DEEP_TOLERANCE, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("name", DEEP)
def test_deep_networks_in_other_dtypes(name, dtype, autocast):
    if autocast and dtype == torch.float64:
        pytest.skip("autocast knows no float64")
    torch.manual_seed(0)
    build, side = DEEP[name]
    network, picture = build().eval(), torch.rand(1, 3, side, side)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            # as after training; PyTorch's own draws make each layer's result smaller, beyond what float16 holds
            nn.init.kaiming_normal_(layer.weight)
    (expected,), expected_gradients = evaluated(network, (picture,))
    with torch.autocast("cpu", dtype, enabled=autocast):
        if not autocast:
            network.to(dtype)
            picture = picture.to(dtype)
        (actual,), gradients = evaluated(network, (picture,))
    assert actual.dtype == dtype
    assert_near([actual], [expected], TOLERANCE[dtype])
    for parameter, a, e in zip([picture, *network.parameters()], gradients, expected_gradients, strict=True):
        assert a.dtype == parameter.dtype
        assert a.isfinite().all()
        assert float((a.double() - e.double()).norm()) <= DEEP_TOLERANCE[dtype] * float(e.double().norm())


#: layers whose results hold in half precision where the squares of what they are given do not
SQUARES = {
    "AdaIN": imgops.nn.AdaIN,
    "ContentLoss": lambda: imgops.nn.ContentLoss(1000 * X[:1]),
    "InstanceNorm2d": lambda: imgops.nn.InstanceNorm2d(4),
    "MinibatchStdDev": imgops.nn.MinibatchStdDev,
    "PerceptualLoss": lambda: imgops.nn.PerceptualLoss(NETWORK, ["1"]),
    "Pool": lambda: Pool("l2"),
    "Pool, padded": lambda: Pool("l2", 3, 1, 1, count_include_pad=True),
    "StyleLoss": lambda: imgops.nn.StyleLoss(X[:1]),
    "TotalVariation": imgops.nn.TotalVariation,
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("name", SQUARES)
def test_squares_beyond_half_precision(name, dtype):
    torch.manual_seed(0)
    module, x = copy.deepcopy(SQUARES[name]()), 1000 * X.to(dtype)
    arguments = (x, x.flip(0)) if name in ("AdaIN", "PerceptualLoss") else (x,)
    expected = module(*[a.float() for a in arguments])
    assert_near([module.to(dtype)(*arguments)], [expected], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_filters_in_half_precision_are_widened(impl, dtype):
    x, weight, styles = X.to(dtype), torch.randn(3, 4, 3, 3), STYLES
    f = imgops.setup_filter([1, 3, 3, 1]).to(dtype).requires_grad_()
    calls: list[Callable[[Tensor], Tensor]] = [
        lambda f: imgops.upfirdn2d(x, f, up=2, padding=2, impl=impl),
        lambda f: imgops.filtered_lrelu(x, f, f, up=2, down=2, padding=4, impl=impl),
        lambda f: imgops.modulated_conv2d(x, weight, styles, up=2, padding=1, resample_filter=f, impl=impl),
    ]
    for call in calls:
        y, wide = call(f), f.detach().float().requires_grad_()
        torch.testing.assert_close(y, call(wide))
        (df,), (dwide,) = (torch.autograd.grad(call(g).float().square().mean(), g) for g in (f, wide))
        assert df.dtype == dtype
        torch.testing.assert_close(df, dwide.to(dtype))
