"""The fact sheet of conv_transpose2d, whose kernels are those of modulated_conv2d."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import imgops

from . import _sheet as s
from ._random import Pick, RandomCall, kinks_of, random_epilogue, random_image, strided


class Conv(NamedTuple):
    """A case of conv_transpose2d."""

    n: int
    in_channels: int
    out_channels: int
    size: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    stride: int | tuple[int, int] = 2
    padding: int | tuple[int, int] = 1
    output_padding: int | tuple[int, int] = 1
    dilation: int | tuple[int, int] = 1
    groups: int = 1
    bias: bool = True
    act: str = "lrelu"
    clamp: float | None = None


CONV = [
    Conv(2, 3, 4, (6, 5)),
    Conv(1, 3, 5, (8, 6), output_padding=0, act="swish"),
    Conv(2, 4, 6, (5, 7), kernel=(4, 4), output_padding=0),
    Conv(2, 3, 2, (5, 5), kernel=(1, 1), stride=1, padding=0, output_padding=0, act="linear"),
    Conv(1, 4, 4, (6, 8), kernel=(3, 5), padding=(1, 2), stride=(2, 1), output_padding=(1, 0), bias=False, act="relu"),
    Conv(1, 4, 6, (7, 6), groups=2, act="swish", clamp=0.7),
    Conv(1, 3, 3, (8, 8), stride=1, dilation=2, padding=2, act="tanh"),
    Conv(1, 3, 3, (6, 7), padding=(1, 0), output_padding=(0, 1)),
    Conv(2, 3, 3, (2, 3), kernel=(2, 2), stride=3, padding=0, output_padding=(2, 1)),
    # of many tiles: Winograd's on a CPU
    Conv(2, 5, 6, (18, 21), stride=1, padding=0, output_padding=0, act="swish"),
    Conv(2, 17, 16, (20, 16)),
    Conv(2, 5, 6, (18, 21), padding=0, output_padding=(1, 0), act="swish", clamp=0.7),
    Conv(2, 5, 6, (18, 21), padding=(1, 3), output_padding=0),
]
_NAMES = "stride", "padding", "output_padding", "dilation", "groups", "act", "clamp"


def _call(size: int = 3, out: int = 2, channels: int = 2, **arguments: Any) -> s.Call:
    given = {"padding": 1, **arguments}

    def run(impl: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return imgops.conv_transpose2d(x, weight, bias, impl=impl, **given)

    shapes = {"x": "1CHH", "weight": "CG33", "bias": "O"}
    sizes = {"C": channels, "G": out // given.get("groups", 1), "H": size, "O": out}
    reads = frozenset({"bias"}) if arguments.get("act") == "swish" else frozenset[str]()
    return s.Call(run, shapes, sizes, reads)


def _sized(**factors: Any) -> s.Call:
    def run(impl: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return imgops.conv_transpose2d(x, weight, bias, act="lrelu", padding=1, impl=impl, **factors)

    return s.Call(run, {"x": "NCHW", "weight": "CO33", "bias": "O"}, {})


def _random(pick: Pick, dtype: torch.dtype) -> RandomCall:
    x = random_image(pick, dtype, pick.one([9, 24]))
    _, i, h, w = x.shape
    groups = pick.one([1, 1, i])
    o, kernel = pick.integer(1, 3), (pick.one([1, 3, 3, 4]), pick.one([1, 3, 3, 4]))
    stride, dilation = pick.one([1, 1, 2, 2, (1, 2), 3]), pick.one([1, 1, 1, 2])
    steps = stride if isinstance(stride, tuple) else (stride, stride)
    arguments: dict[str, Any] = {
        "stride": stride,
        "padding": (pick.integer(0, 3), pick.integer(0, 3)),
        "output_padding": tuple(pick.integer(0, max(step, dilation) - 1) for step in steps),
        "dilation": dilation,
        "groups": groups,
    } | random_epilogue(pick)
    sides = zip((h, w), steps, kernel, arguments["padding"], strict=True)
    pick.assume(all((n - 1) * step + dilation * (taps - 1) >= 2 * pad for n, step, taps, pad in sides))
    tensors = [x, strided(pick, (i, o, *kernel), dtype)]
    if pick.one([True, False]):
        tensors.append(strided(pick, (o * groups,), dtype))

    def run(impl: str | None, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return imgops.conv_transpose2d(x, weight, bias, **arguments, impl=impl)

    squashed = arguments["act"] not in ("linear", "relu", "lrelu") or arguments["clamp"] is not None
    return RandomCall(run, tensors, kinks_of(arguments), roundings=2, squashed=squashed)


def eager(x: Tensor, weight: Tensor, bias: Tensor, act: str, gain: float = 1.0, **how: int) -> Tensor:
    """As one writes it; ``act`` is relu or swish, and ``gain`` 1."""
    y = F.conv_transpose2d(x, weight.to(x.dtype), bias.to(x.dtype), **how)
    return F.relu(y) if act == "relu" else F.silu(y)


def eager_channels_last(x: Tensor, weight: Tensor, bias: Tensor, act: str, gain: float = 1.0, **how: int) -> Tensor:
    """The same in the layout in which oneDNN and tensor cores convolve; images stay in it from layer to layer."""
    last = torch.channels_last
    return eager(x.contiguous(memory_format=last), weight.contiguous(memory_format=last), bias, act, **how)


FORMS: dict[str, s.Form] = {"eager": eager, "eager channels-last": eager_channels_last}


def _problem(case: Conv, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> s.Made:
    if dtype.itemsize == 2 and case.act in ("relu", "lrelu"):
        # a sum that is rounded between passes may cross a kink, where the slope jumps
        case = case._replace(act="swish")
    weight = torch.randn(
        case.in_channels, case.out_channels // case.groups, *case.kernel, device=device, dtype=acc_dtype
    )
    tensors = [s.image((case.n, case.in_channels, *case.size), dtype, device), weight]
    if case.bias:
        tensors.append(torch.randn(case.out_channels, device=device, dtype=acc_dtype))
    how: dict[str, Any] = {name: getattr(case, name) for name in _NAMES}

    def call(backend: str, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return imgops.conv_transpose2d(x, weight, bias, **how, impl=backend)

    return tensors, call


def _problems(dry: bool) -> Iterator[s.Problem]:
    for i, case in enumerate(CONV[: 1 if dry else None]):
        yield s.Problem(f"{i} {case.in_channels} to {case.out_channels} of {case.size}", partial(_problem, case))


class Layer(NamedTuple):
    """A layer that doubles the sides: batch, channels in and out, side of its input, of its kernel."""

    n: int
    inputs: int
    outputs: int
    size: int
    kernel: int = 3

    def how(self) -> dict[str, int]:
        return {"stride": 2, "padding": 1, "output_padding": self.kernel % 2}

    def weight(self, device: torch.device | None = None) -> Tensor:
        # about kernel ** 2 / 4 taps meet an output
        scale = 2 / (self.kernel * self.inputs**0.5)
        return torch.randn(self.inputs, self.outputs, self.kernel, self.kernel, device=device) * scale


def conv_transpose2d_case(layer: Layer, dtype: torch.dtype, channels_last: bool = False) -> s.Case:
    """A layer with bias and SiLU."""
    n, inputs, outputs, size, kernel = layer

    def make(device: torch.device) -> s.Kwargs:
        return {
            "x": s.image((n, inputs, size, size), dtype, device, channels_last),
            "weight": layer.weight(device),
            "bias": torch.randn(outputs, device=device),
            "act": "swish",
            "gain": 1.0,
            **layer.how(),
        }

    x, y, weight = n * inputs * size * size, 4 * n * outputs * size * size, outputs * inputs * kernel**2
    once = (x + y) * dtype.itemsize + weight * 4
    # backward: dy, x, y before the activation, dx, the weight with its gradient
    twice = once + (2 * x + 2 * y) * dtype.itemsize + 2 * weight * 4
    flops = 2 * weight * n * size * size
    name = s.label((n, inputs, size, size), dtype, channels_last, f"to {outputs}, {kernel} x {kernel}")
    costs = (once, twice), (flops, 3 * flops)
    return s.Case("conv_transpose2d", name, make, ("x", "weight", "bias"), *costs, dtype, s.product_rate(dtype))


_CASES = s.cases_of(
    conv_transpose2d_case(Layer(1, 4, 3, 8), s.SINGLE),
    conv_transpose2d_case(Layer(4, 128, 64, 128), s.HALF, channels_last=True),
    conv_transpose2d_case(Layer(4, 64, 32, 256), s.HALF),
    conv_transpose2d_case(Layer(64, 512, 256, 8, 4), s.HALF, channels_last=True),
)

#: decoders of style transfer and of image-to-image networks, and DCGAN
LAYERS = [
    Layer(1, 128, 64, 64), Layer(1, 128, 64, 128), Layer(1, 64, 32, 128), Layer(1, 64, 32, 256), Layer(8, 128, 64, 64),
    Layer(1, 512, 256, 8, 4), Layer(8, 512, 256, 8, 4), Layer(8, 256, 128, 16, 4), Layer(8, 128, 64, 32, 4),
]  # fmt: skip


def _comparisons() -> list[s.Comparison]:
    """The layers forward, and forward and backward as in a network whose weights are not trained."""
    rows = []
    for layer in LAYERS:
        n, inputs, outputs, size, kernel = layer
        kwargs = {
            "x": torch.randn(n, inputs, size, size),
            "weight": layer.weight(),
            "bias": torch.randn(outputs),
            "act": "relu",
            "gain": 1.0,
            **layer.how(),
        }
        forms: dict[str, s.Form] = {"imgops": imgops.conv_transpose2d, **FORMS}
        name = f"{n}x{inputs}x{size}x{size} -> {outputs}, {kernel} x {kernel}"
        # others than 3 x 3 are the library's, which is faster where images stay channels-last
        goal = 1.0 if kernel == 3 else None
        rows.append(s.Comparison("conv_transpose2d", name, s.forward(forms, kwargs), goal))
        # a rounded sum decides on which side of its kink a ReLU is
        gradient = s.both(forms, kwargs, ("x",))
        rows.append(s.Comparison("conv_transpose2d", f"{name} forward+input", gradient, goal, tolerance=1e-2))
    return rows


def _pictures() -> dict[str, nn.Module]:
    weight = torch.randn(s.CHANNELS, 3, 3, 3)

    def convolved(**how: Any) -> nn.Module:
        return s.Called(
            lambda x, weight: imgops.conv_transpose2d(x, weight, act="lrelu", padding=1, **how), weight=weight
        )

    return {
        "conv_transpose2d": convolved(),
        "conv_transpose2d strided": convolved(stride=2, output_padding=1),
    }


SHEET = s.Sheet(
    calls={
        "conv_transpose2d": _call(act="lrelu"),
        "conv_transpose2d-strided": _call(act="lrelu", stride=2),
        "conv_transpose2d-linear": _call(stride=2),
        "conv_transpose2d-swish": _call(act="swish", clamp=2.0, stride=2),
        "conv_transpose2d-groups": _call(groups=2, stride=2, act="lrelu"),
        "conv_transpose2d-dilated": _call(dilation=2, act="relu"),
    },
    sized={
        "conv_transpose2d": _sized(),
        "conv_transpose2d, strided": _sized(stride=2, output_padding=1),
    },
    random=_random, forms=FORMS, pictures=_pictures, problems=_problems, cases=_CASES, launches=s.no_launches,
    comparisons=_comparisons,
    tolerance=s.SEVERAL_ROUNDINGS,
    cuda=True,
    lowered=True,
)  # fmt: skip
