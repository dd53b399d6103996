"""The fact sheet of modulated_conv2d, and of the fused convolution beneath it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import imgops
from imgops import _eager
from imgops._epilogue import Epilogue
from imgops.ops._common import swapped_channels

from . import _sheet as s
from ._random import Pick, RandomCall, kinks_of, random_epilogue, random_image, strided
from .bias_act import LAUNCH_SHAPE, launch_epilogue
from .upfirdn2d import FOUR, resample_filter


class ModulatedConv(NamedTuple):
    """A case of modulated_conv2d."""

    n: int
    in_channels: int
    out_channels: int
    size: tuple[int, int]
    kernel: int = 3
    up: int = 1
    down: int = 1
    padding: int | tuple[int, ...] = 1
    demodulate: bool = True
    flip_weight: bool = True
    noise: bool = True
    bias: bool = True
    act: str = "lrelu"
    clamp: float | None = None
    filter_taps: tuple[int, ...] | None = (4, 4)


MODULATED_CONV = [
    ModulatedConv(2, 3, 4, (6, 5)),
    ModulatedConv(2, 4, 3, (4, 6), up=2),
    ModulatedConv(1, 3, 5, (8, 6), down=2),
    ModulatedConv(2, 3, 2, (5, 5), kernel=1, padding=0, demodulate=False, noise=False, act="linear"),
    ModulatedConv(1, 2, 3, (5, 4), kernel=1, padding=0, up=2, act="tanh"),
    ModulatedConv(2, 2, 3, (6, 6), kernel=1, padding=0, down=2, bias=False),
    ModulatedConv(1, 3, 2, (5, 6), flip_weight=False, act="swish", clamp=0.7),
    ModulatedConv(1, 2, 2, (4, 4), up=2, flip_weight=False, filter_taps=(8,), noise=False),
    ModulatedConv(1, 2, 2, (6, 5), padding=(1, 0, 2, 1), act="relu"),
    ModulatedConv(1, 2, 3, (4, 5), up=3, filter_taps=(6,), padding=2),
    ModulatedConv(2, 2, 2, (4, 4), up=2, filter_taps=None),
]


def _call(size: int = 4, out: int = 4, kernel: int = 3, channels: int = 2, **arguments: Any) -> s.Call:
    f = imgops.setup_filter([1, 3, 3, 1])

    def run(impl: str, x: Tensor, weight: Tensor, styles: Tensor, noise: Tensor, bias: Tensor) -> Tensor:
        given = arguments | {"padding": kernel // 2, "resample_filter": f.to(x.device)}
        return imgops.modulated_conv2d(x, weight, styles, noise=noise, bias=bias, impl=impl, **given)

    shapes = {"x": "1CHW", "weight": "CCKK", "styles": "1C", "noise": "11PP", "bias": "C"}
    sizes = {"C": channels, "H": size, "W": size, "K": kernel, "P": out}
    return s.Call(run, shapes, sizes, frozenset({"noise", "bias"}))


def _sized(**factors: int) -> s.Call:
    def run(impl: str, x: Tensor, weight: Tensor, styles: Tensor, bias: Tensor) -> Tensor:
        given: dict[str, Any] = {"act": "lrelu", "padding": 1, "resample_filter": FOUR.to(x.device), **factors}
        return imgops.modulated_conv2d(x, weight, styles, bias=bias, impl=impl, **given)

    return s.Call(run, {"x": "NCHW", "weight": "OC33", "styles": "NC", "bias": "O"}, {})


def _random(pick: Pick, dtype: torch.dtype) -> RandomCall:
    # every other call is large enough for the kernels of large images
    largest = pick.one([12, 40])
    x = random_image(pick, dtype, largest)
    n, i, h, w = x.shape
    o, kernel = pick.integer(1, 6), pick.one([1, 3, 3, 4])
    up, down = pick.one([(1, 1), (1, 1), (2, 1), (1, 2), (3, 1)])
    f = pick.one([None, imgops.setup_filter([1, 3, 3, 1])])
    padding, epilogue = pick.integer(0, 3), random_epilogue(pick)
    pick.assume(min(h, w) * up + 2 * padding >= kernel + 4)
    arguments = {
        "up": up,
        "down": down,
        "padding": padding,
        "resample_filter": f,
        "demodulate": pick.one([True, False]),
        "flip_weight": pick.one([True, False]),
    } | epilogue
    tensors = [x, strided(pick, (o, i, kernel, kernel), dtype), strided(pick, (n, i), dtype)]
    has_bias, noise_samples = pick.one([True, False]), pick.one([0, 1, n])
    if dtype in (torch.float16, torch.bfloat16) and arguments["demodulate"] and n > 0:
        # a gradient is a difference of rounded terms that go with 1 / |weight| and 1 / |styles|; and float16 scales
        # both first, so that there the eps of 1e-8 weighs less
        pick.assume(tensors[1].abs().amax((1, 2, 3)).min() > 0.1)
        pick.assume(tensors[2].abs().amax(1).min() > 0.1)
    with torch.no_grad():
        y = imgops.modulated_conv2d(*(t.float() for t in tensors), **arguments, impl="reference")
    if has_bias:
        tensors.append(strided(pick, (o,), dtype))
    if noise_samples:
        tensors.append(strided(pick, (noise_samples, 1, *y.shape[2:]), dtype))

    def run(impl: str | None, x: Tensor, weight: Tensor, styles: Tensor, *others: Tensor) -> Tensor:
        rest = list(others)
        bias = rest.pop(0) if has_bias else None
        noise = rest.pop() if noise_samples else None
        return imgops.modulated_conv2d(x, weight, styles, bias=bias, noise=noise, **arguments, impl=impl)

    squashed = epilogue["act"] not in ("linear", "relu", "lrelu") or epilogue["clamp"] is not None
    return RandomCall(run, tensors, kinks_of(epilogue), roundings=4, squashed=squashed)


def eager_grouped(
    x: Tensor, weight: Tensor, styles: Tensor, noise: Tensor, bias: Tensor, act: str, **how: Any
) -> Tensor:
    """A weight for each sample, and one convolution with as many groups, which takes ``how``. ``act`` is lrelu."""
    n, o = x.shape[0], weight.shape[0]
    w = weight * styles[:, None, :, None, None]
    w = (w * torch.rsqrt(w.square().sum([2, 3, 4], keepdim=True) + 1e-8)).to(x.dtype).reshape(n * o, *weight.shape[1:])
    x = _eager.convolution(x.reshape(1, -1, *x.shape[2:]), w, **how, groups=n)
    return _eager.finish(x.reshape(n, o, *x.shape[2:]), None, noise, bias)


def plain_conv2d(x: Tensor, weight: Tensor, up: int, down: int, padding: int, **_: Any) -> Tensor:
    """The vendor's convolution of the same shape, and nothing else: what a modulated one is held against."""
    weight = weight.to(x.dtype)
    if up > 1:
        return F.conv_transpose2d(x, weight.transpose(0, 1), stride=up)
    return F.conv2d(x, weight, stride=down, padding=padding)


def _problem(case: ModulatedConv, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> s.Made:
    if dtype.itemsize == 2:
        # a sum that is rounded between passes may cross a kink, where the slope jumps; and the gradient of few styles,
        # which demodulation makes nearly cancel, is lost in rounding
        act = "swish" if case.act in ("relu", "lrelu") else case.act
        case = case._replace(act=act, clamp=None, in_channels=case.in_channels + 13)
    f = resample_filter(case.filter_taps, True, device)
    # as large as a low-pass filter, for the range of float16
    f = None if f is None else f / f.abs().sum()
    x = s.image((case.n, case.in_channels, *case.size), dtype, device)
    kernel = case.out_channels, case.in_channels, case.kernel, case.kernel
    operands = {
        "weight": torch.randn(kernel, device=device, dtype=acc_dtype),
        "styles": torch.randn(case.n, case.in_channels, device=device, dtype=acc_dtype) + 1,
    }
    if case.bias:
        operands["bias"] = torch.randn(case.out_channels, device=device, dtype=acc_dtype)

    names = "act", "clamp", "up", "down", "padding", "demodulate", "flip_weight"
    how: dict[str, Any] = {name: getattr(case, name) for name in names}

    def call(backend: str, x: Tensor, *tensors: Tensor) -> Tensor:
        named: dict[str, Any] = dict(zip(operands, tensors, strict=True))
        return imgops.modulated_conv2d(x, **named, **how, resample_filter=f, impl=backend)

    if case.noise:
        size = call("reference", x.to(acc_dtype), *operands.values()).shape[2:]
        operands["noise"] = torch.randn(case.n, 1, *size, device=device, dtype=acc_dtype)
    return [x, *operands.values()], call


def _problems(dry: bool) -> Iterator[s.Problem]:
    for i, case in enumerate(MODULATED_CONV[: 1 if dry else None]):
        name = f"{i} {case.in_channels} to {case.out_channels} of {case.size}, {case.kernel}x{case.kernel}"
        yield s.Problem(f"{name} up {case.up} down {case.down}", partial(_problem, case))


def modulated_case(
    n: int,
    inputs: int,
    outputs: int,
    size: int,
    dtype: torch.dtype,
    channels_last: bool = False,
    up: int = 1,
    down: int = 1,
) -> s.Case:
    """A 3x3 layer of StyleGAN2's synthesis network with its noise, bias and activation."""
    out = size * up // down

    def make(device: torch.device) -> s.Kwargs:
        f = torch.tensor([1.0, 3.0, 3.0, 1.0], device=device)
        return {
            "x": s.image((n, inputs, size, size), dtype, device, channels_last),
            "weight": torch.randn(outputs, inputs, 3, 3, device=device),
            "styles": torch.randn(n, inputs, device=device) + 1,
            "noise": torch.randn(n, 1, out, out, device=device),
            "bias": torch.randn(outputs, device=device),
            "act": "lrelu",
            "up": up,
            "down": down,
            "padding": 1,
            "resample_filter": f.outer(f) / f.sum() ** 2 if up > 1 or down > 1 else None,
        }

    low = min(size, out)
    flops = 2 * n * outputs * inputs * 9 * low * low
    x, y, weight = n * inputs * size * size, n * outputs * out * out, outputs * inputs * 9
    noise = n * out * out
    once = (x + y) * dtype.itemsize + (weight + noise) * 4
    # backward: dy, x, y, dx, the weight with its gradient, and the gradient of the noise
    twice = once + (2 * x + 2 * y) * dtype.itemsize + (2 * weight + noise) * 4
    note = f"to {outputs}" + (f" up{up}" if up > 1 else f" down{down}" if down > 1 else "")
    name = s.label((n, inputs, size, size), dtype, channels_last, note)
    gradients = ("x", "weight", "styles", "noise", "bias")
    costs = (once, twice), (flops, 3 * flops)
    return s.Case("modulated_conv2d", name, make, gradients, *costs, dtype, s.product_rate(dtype))


_CASES = s.cases_of(
    modulated_case(1, 4, 3, 8, s.SINGLE, up=2),
    modulated_case(16, 512, 512, 32, s.HALF),
    modulated_case(16, 512, 512, 32, s.HALF, channels_last=True),
    modulated_case(16, 128, 128, 128, s.HALF),
    modulated_case(16, 128, 64, 128, s.HALF, up=2),
    modulated_case(16, 128, 64, 128, s.HALF, channels_last=True, up=2),
    modulated_case(4, 64, 32, 512, s.HALF, up=2),
    modulated_case(4, 32, 32, 1024, s.HALF),
    modulated_case(16, 512, 512, 16, s.SINGLE),
)


MODULATED = {"eager": _eager.modulated_conv2d, "eager grouped": eager_grouped}
FORMS: dict[str, s.Form] = {**MODULATED, "plain conv": plain_conv2d}
BATCH = 4
#: (channels in, channels out, input size, up), from 4x4 to 256x256 with channel_base 32768 and channel_max 512
LAYERS = [
    (512, 512, 4, 1), (512, 512, 4, 2), (512, 512, 8, 1), (512, 512, 8, 2), (512, 512, 16, 1),
    (512, 512, 16, 2), (512, 512, 32, 1), (512, 512, 32, 2), (512, 512, 64, 1), (512, 256, 64, 2),
    (256, 256, 128, 1), (256, 128, 128, 2), (128, 128, 256, 1),
]  # fmt: skip
#: up-sampling layers with a goal of their own: (channels, input size) -> how many times faster
UP_GOALS = {(256, 32): 1.5, (64, 128): 2.5}


def _comparison(inputs: int, outputs: int, size: int, up: int, goal: float | None) -> s.Comparison:
    """One layer; all operands are random."""
    kwargs = {
        "x": torch.randn(BATCH, inputs, size, size),
        "weight": torch.randn(outputs, inputs, 3, 3),
        "styles": torch.randn(BATCH, inputs),
        "noise": torch.randn(BATCH, 1, size * up, size * up),
        "bias": torch.randn(outputs),
        "act": "lrelu",
        "up": up,
        "down": 1,
        "padding": 1,
        "resample_filter": imgops.setup_filter([1, 3, 3, 1]),
    }
    forms = {"imgops": imgops.modulated_conv2d, **MODULATED}
    name = f"{BATCH}x{inputs}x{size}x{size} -> {outputs}" + (f" up {up}" if up > 1 else "")
    return s.Comparison("modulated_conv2d", name, s.forward(forms, kwargs), goal)


def _comparisons() -> list[s.Comparison]:
    """With noise, bias and leaky ReLU every layer shape of StyleGAN2-256, then the up-sampling layers with goals."""
    layers = [_comparison(*layer, goal=1.0) for layer in LAYERS]
    return layers + [_comparison(c, c, size, 2, goal) for (c, size), goal in UP_GOALS.items()]


def _recorded(a: dict[str, Tensor], params: s.Kwargs, backend: str) -> dict[str, Tensor]:
    taps = torch.tensor(params.pop("resample_filter"), dtype=torch.float32)
    f = (taps.outer(taps) / taps.sum() ** 2).to(a["x"].device)
    inputs = [a[name].requires_grad_() for name in ("x", "w", "s")]
    y = imgops.modulated_conv2d(*inputs, noise=a.get("noise"), resample_filter=f, **params, impl=backend)
    first = torch.autograd.grad(y, inputs, a["dy"], create_graph=True)
    total = sum((g * a[name]).sum() for g, name in zip(first, ("vx", "vw", "vs"), strict=True))
    second = torch.autograd.grad(total, inputs)
    names = ("y", "dx", "dw", "ds", "hx", "hw", "hs")
    return dict(zip(names, [y, *first, *second], strict=True))


def _pictures() -> dict[str, nn.Module]:
    weight, f = torch.randn(3, s.CHANNELS, 3, 3), imgops.setup_filter([1, 3, 3, 1])

    def convolved(**factors: int) -> nn.Module:
        def call(x: Tensor, weight: Tensor, f: Tensor) -> Tensor:
            styles = x.mean([2, 3])
            return imgops.modulated_conv2d(x, weight, styles, act="lrelu", padding=1, resample_filter=f, **factors)

        return s.Called(call, weight=weight, f=f)

    return {
        "modulated_conv2d": convolved(),
        "modulated_conv2d up": convolved(up=2),
        "modulated_conv2d down": convolved(down=2),
    }


def _launches(dtype: torch.dtype, channels_last: bool) -> Iterator[s.Launch]:
    """StyleGAN2's convolutions."""
    x, epilogue, channels = s.unread(LAUNCH_SHAPE, dtype, channels_last), launch_epilogue(), LAUNCH_SHAPE[1]
    scale, around, no_padding = epilogue.scale, (1, 1, 1, 1), (0, 0, 0, 0)
    weight = torch.empty(channels, channels, 3, 3, dtype=dtype)
    small, deep_weight = s.unread((32, 512, 4, 4), dtype, channels_last), torch.empty(512, 512, 3, 3, dtype=dtype)
    deep, to_rgb = torch.empty(32, 512), torch.empty(3, channels, 1, 1, dtype=dtype)
    deep_epilogue = epilogue._replace(b=torch.empty(512), scale=deep, noise=torch.empty(32, 1, 4, 4))
    for name, arguments in {
        "3x3": (x, weight, scale, 1, around, 1, 1, None, 1.0, *epilogue, True),
        "3x3 of 4x4 images": (small, deep_weight, deep, 1, around, 1, 1, None, 1.0, *deep_epilogue, True),
        "1x1 to RGB": (x, to_rgb, scale, 1, no_padding, 1, 1, None, 1.0, *Epilogue(torch.empty(3)), False),
        "3x3 transposed": (x, weight, scale, 1, no_padding, 2, 1, None, 1.0, *Epilogue(), False),
        "3x3 with a residual": (x, weight, None, 1, around, 1, 1, x, 0.7, *Epilogue(epilogue.b, act="relu"), False),
    }.items():
        tested = name in ("3x3", "3x3 transposed", "3x3 with a residual")
        yield s.Launch(f"conv2d {name}", "fused_conv2d.fused_conv2d", arguments, tested=tested)


def _products(x: Tensor, weight: Tensor, *arguments: Any) -> Tensor:
    _, stride, padding, up, groups, *_ = arguments
    if up > 1:
        return F.conv_transpose2d(x, swapped_channels(weight, groups), stride=up, groups=groups)
    return F.conv2d(F.pad(x, padding), weight, stride=stride, groups=groups)


def _weight_products(dy: Tensor, x: Tensor, stride: int, padding: list[int], groups: int, swapped: bool) -> Tensor:
    shape = dy.shape[1], x.shape[1] // groups, 3, 3
    dweight = torch.nn.grad.conv2d_weight(F.pad(x, padding), shape, dy, stride=stride, groups=groups)
    return swapped_channels(dweight, groups) if swapped else dweight


SHEET = s.Sheet(
    calls={
        "modulated_conv2d": _call(act="lrelu"),
        "modulated_conv2d-clamp": _call(clamp=1.0, demodulate=False),
        "modulated_conv2d-up": _call(up=2, out=8, act="lrelu", clamp=2.0),
        "modulated_conv2d-up-swish": _call(up=2, out=8, act="swish"),
        "modulated_conv2d-down": _call(down=2, out=2, act="lrelu"),
        "modulated_conv2d-pointwise": _call(kernel=1, demodulate=False),
    },
    sized={
        "modulated_conv2d": _sized(),
        "modulated_conv2d, up": _sized(up=2),
        "modulated_conv2d, down": _sized(down=2),
    },
    random=_random, forms=FORMS, pictures=_pictures, problems=_problems, cases=_CASES, launches=_launches,
    comparisons=_comparisons, recorded=_recorded,
    schemas={
        "conv2d_weight_gradient": lambda: (s.values(1, 2, 4, 4), s.values(1, 2, 4, 4), 1, [1, 1, 1, 1], 1, True),
        "fused_conv2d": lambda: (
            s.values(1, 2, 4, 4), s.values(2, 2, 3, 3), s.values(1, 2), 1, [1, 1, 1, 1], 1, 1,
            s.values(1, 2, 4, 4), 0.7, s.values(2), s.values(1, 2), s.values(1, 1, 4, 4), "swish", 0.0, 1.3, 4.0, True,
        ),
        "squared_norm": lambda: (s.values(2, 2, 3, 3),),
    },
    products={"fused_conv2d": _products, "conv2d_weight_gradient": _weight_products},
    tolerance=s.SEVERAL_ROUNDINGS,
    cuda=True,
    lowered=True,
)  # fmt: skip
