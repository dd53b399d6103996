"""The fact sheet of conv2d, whose kernels are those of modulated_conv2d."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import imgops
import imgops.ops.concat_conv2d
from imgops._epilogue import Epilogue
from imgops.reference.conv2d import concatenated

from . import _sheet as s
from ._random import Pick, RandomCall, kinks_of, random_epilogue, random_image, strided


class Conv(NamedTuple):
    """A case of conv2d."""

    n: int
    in_channels: int
    out_channels: int
    size: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 1
    padding_mode: str = "zeros"
    dilation: int | tuple[int, int] = 1
    groups: int = 1
    bias: bool = True
    act: str = "lrelu"
    clamp: float | None = None
    residual_scale: float | None = None


CONV = [
    Conv(2, 3, 4, (6, 5)),
    Conv(1, 3, 5, (8, 6), stride=2),
    Conv(2, 4, 6, (9, 7), kernel=(4, 4), stride=2, padding=1),
    Conv(2, 3, 2, (5, 5), kernel=(1, 1), padding=0, act="linear"),
    Conv(1, 4, 4, (6, 8), kernel=(3, 5), padding=(1, 2), stride=(2, 1), bias=False, act="relu"),
    Conv(1, 4, 6, (7, 6), groups=2, act="swish", clamp=0.7),
    Conv(1, 4, 8, (9, 9), kernel=(5, 5), padding=2, groups=4, act="relu"),
    Conv(1, 3, 3, (8, 8), dilation=2, padding=2, act="tanh"),
    Conv(1, 3, 3, (6, 7), padding_mode="reflect"),
    Conv(1, 3, 3, (6, 7), padding_mode="replicate", stride=2, act="linear"),
    Conv(1, 2, 3, (6, 7), padding_mode="circular", padding=(2, 1)),
    # of many tiles: Winograd's on a CPU
    Conv(2, 5, 6, (18, 21), act="swish"),
    Conv(2, 17, 16, (20, 16), stride=2),
    Conv(16, 16, 32, (8, 8), groups=2),
    # each channel by itself
    Conv(2, 7, 7, (9, 6), groups=7, act="relu", clamp=6.0),
    Conv(1, 18, 18, (8, 7), kernel=(5, 5), padding=2, stride=2, groups=18, act="swish"),
    Conv(1, 4, 4, (9, 9), kernel=(7, 7), padding=3, groups=4, padding_mode="reflect", bias=False),
    # with a residual
    Conv(1, 4, 6, (7, 6), act="relu", residual_scale=1.0),
    Conv(2, 4, 3, (6, 5), kernel=(1, 1), padding=0, act="linear", residual_scale=0.5),
    Conv(1, 4, 6, (7, 6), groups=2, act="swish", residual_scale=5.0),
    Conv(2, 5, 6, (18, 21), act="swish", clamp=0.7, residual_scale=0.5),
    Conv(2, 17, 16, (20, 16), stride=2, residual_scale=1.0),
    Conv(16, 16, 32, (8, 8), groups=2, residual_scale=0.5),
    Conv(2, 7, 7, (9, 6), groups=7, act="linear", residual_scale=0.5),
    Conv(2, 7, 7, (9, 6), groups=7, act="swish", clamp=0.7, residual_scale=0.5),
    Conv(17, 16, 8, (8, 12), act="linear", bias=False, residual_scale=0.5),
]
_NAMES = "stride", "padding", "padding_mode", "dilation", "groups", "act", "clamp"


def _call(size: int = 4, out: int = 2, channels: int = 2, kernel: int = 3, **arguments: Any) -> s.Call:
    given = {"padding": kernel // 2, **arguments}

    def run(impl: str, x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None = None) -> Tensor:
        return imgops.conv2d(x, weight, bias, residual=residual, impl=impl, **given)

    shapes = {"x": "1CHH", "weight": f"OG{kernel}{kernel}", "bias": "O"}
    sizes = {"C": channels, "G": channels // given.get("groups", 1), "H": size, "O": out}
    if "residual_scale" in given:
        shapes["residual"] = "1OHH"
    reads = frozenset({"bias"}) if arguments.get("act") == "swish" else frozenset[str]()
    return s.Call(run, shapes, sizes, reads)


def _sized(**factors: Any) -> s.Call:
    def run(impl: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return imgops.conv2d(x, weight, bias, act="lrelu", padding=1, impl=impl, **factors)

    return s.Call(run, {"x": "NCHW", "weight": "OC33", "bias": "O"}, {})


def _sized_depthwise() -> s.Call:
    def run(impl: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return imgops.conv2d(x, weight, bias, act="swish", padding=1, groups=x.shape[1], impl=impl)

    return s.Call(run, {"x": "NCHW", "weight": "C133", "bias": "C"}, {})


def _sized_residual(impl: str, x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
    return imgops.conv2d(x, weight, bias, residual=residual, residual_scale=0.7, act="lrelu", padding=1, impl=impl)


def _random(pick: Pick, dtype: torch.dtype) -> RandomCall:
    x = random_image(pick, dtype, pick.one([12, 40]))
    _, i, h, w = x.shape
    groups = pick.one([1, 1, i])
    o, kernel = groups * pick.integer(1, 3), (pick.one([1, 3, 3, 4]), pick.one([1, 3, 3, 4]))
    arguments: dict[str, Any] = {
        "stride": pick.one([1, 1, 2, (1, 2), 3]),
        "padding": (pick.integer(0, 3), pick.integer(0, 3)),
        "padding_mode": pick.one(["zeros", "zeros", "reflect", "replicate", "circular"]),
        "dilation": pick.one([1, 1, 1, 2]),
        "groups": groups,
    } | random_epilogue(pick)
    reach = [arguments["dilation"] * (taps - 1) + 1 for taps in kernel]
    pick.assume(all(side >= max(r, p + 1) for side, r, p in zip((h, w), reach, arguments["padding"], strict=True)))
    tensors = [x, strided(pick, (o, i // groups, *kernel), dtype)]
    names = [name for name in ("bias", "residual") if pick.one([True, False])]
    if "bias" in names:
        tensors.append(strided(pick, (o,), dtype))
    if "residual" in names:
        with torch.no_grad():
            y = imgops.conv2d(*(t.float() for t in tensors[:2]), **arguments, impl="reference")
        tensors.append(strided(pick, tuple(y.shape), dtype))
        arguments["residual_scale"] = pick.one([1.0, 0.5])

    def run(impl: str | None, x: Tensor, weight: Tensor, *others: Tensor) -> Tensor:
        return imgops.conv2d(x, weight, **dict(zip(names, others, strict=True)), **arguments, impl=impl)

    squashed = arguments["act"] not in ("linear", "relu", "lrelu") or arguments["clamp"] is not None
    return RandomCall(run, tensors, kinks_of(arguments), roundings=2, squashed=squashed)


def eager(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    act: str,
    *,
    gain: float = 1.0,
    clamp: float | None = None,
    residual: Tensor | None = None,
    **how: Any,
) -> Tensor:
    """As one writes it; ``act`` is linear, relu, with a clamp of 6 or none, or swish, and ``gain`` 1."""
    y = F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), **how)
    y = y if residual is None else y + residual
    if act == "relu":
        return F.relu(y) if clamp is None else F.relu6(y)
    return y if act == "linear" else F.silu(y)


def eager_channels_last(
    x: Tensor, weight: Tensor, bias: Tensor, act: str, *, residual: Tensor | None = None, **how: Any
) -> Tensor:
    """The same in the layout in which oneDNN and tensor cores convolve; images stay in it from layer to layer."""
    last = torch.channels_last
    residual = None if residual is None else residual.contiguous(memory_format=last)
    x, weight = x.contiguous(memory_format=last), weight.contiguous(memory_format=last)
    return eager(x, weight, bias, act, residual=residual, **how)


FORMS: dict[str, s.Form] = {"eager": eager, "eager channels-last": eager_channels_last}


def _others(case: Conv) -> list[str]:
    """The tensors that a case has beside x and the weight."""
    return ["bias"] * case.bias + ["residual"] * (case.residual_scale is not None)


def _problem(case: Conv, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> s.Made:
    if dtype.itemsize == 2 and case.act in ("relu", "lrelu"):
        # a sum that is rounded between passes may cross a kink, where the slope jumps
        case = case._replace(act="swish")
    weight = torch.randn(
        case.out_channels, case.in_channels // case.groups, *case.kernel, device=device, dtype=acc_dtype
    )
    tensors = [s.image((case.n, case.in_channels, *case.size), dtype, device), weight]
    if case.bias:
        tensors.append(torch.randn(case.out_channels, device=device, dtype=acc_dtype))
    how: dict[str, Any] = {name: getattr(case, name) for name in _NAMES}
    if case.residual_scale is not None:
        how["residual_scale"] = case.residual_scale
        y = imgops.conv2d(*tensors[:2], **how, impl="reference")
        tensors.append(torch.randn_like(y))

    def call(backend: str, x: Tensor, weight: Tensor, *others: Tensor) -> Tensor:
        given = dict(zip(_others(case), others, strict=True))
        return imgops.conv2d(x, weight, **given, **how, impl=backend)

    return tensors, call


def _problems(dry: bool) -> Iterator[s.Problem]:
    for i, case in enumerate(CONV[: 1 if dry else None]):
        yield s.Problem(f"{i} {case.in_channels} to {case.out_channels} of {case.size}", partial(_problem, case))


def conv2d_case(
    n: int, inputs: int, outputs: int, size: int, dtype: torch.dtype, channels_last: bool = False
) -> s.Case:
    """A 3x3 layer with bias and SiLU, as those of a diffusion model's autoencoder."""

    def make(device: torch.device) -> s.Kwargs:
        return {
            "x": s.image((n, inputs, size, size), dtype, device, channels_last),
            "weight": torch.randn(outputs, inputs, 3, 3, device=device) / (3 * inputs**0.5),
            "bias": torch.randn(outputs, device=device),
            "act": "swish",
            "gain": 1.0,
            "padding": 1,
        }

    x, y, weight = n * inputs * size * size, n * outputs * size * size, outputs * inputs * 9
    once = (x + y) * dtype.itemsize + weight * 4
    # backward: dy, x, y before the activation, dx, the weight with its gradient
    twice = once + (2 * x + 2 * y) * dtype.itemsize + 2 * weight * 4
    flops = 2 * n * outputs * inputs * 9 * size * size
    name = s.label((n, inputs, size, size), dtype, channels_last, f"to {outputs}")
    costs = (once, twice), (flops, 3 * flops)
    return s.Case("conv2d", name, make, ("x", "weight", "bias"), *costs, dtype, s.product_rate(dtype))


_CASES = s.cases_of(
    conv2d_case(1, 4, 3, 8, s.SINGLE),
    conv2d_case(1, 512, 512, 128, s.HALF, channels_last=True),
    conv2d_case(4, 256, 256, 64, s.HALF, channels_last=True),
    conv2d_case(4, 64, 64, 256, s.HALF),
)

#: (batch, channels in, channels out, side, activation) of VGG-19, a diffusion model's autoencoder and U-Net, RRDB and
#: a network of one style; with a residual ResNet's and RRDB's
LAYERS = [
    (1, 3, 64, 256, "relu"), (1, 64, 64, 256, "relu"), (1, 128, 128, 128, "relu"), (1, 256, 256, 64, "relu"),
    (1, 512, 512, 32, "relu"), (1, 512, 512, 16, "relu"), (4, 64, 64, 128, "relu"), (4, 256, 256, 32, "relu"),
    (1, 512, 512, 64, "swish"), (1, 256, 256, 128, "swish"), (1, 128, 128, 256, "swish"), (1, 320, 320, 64, "swish"),
    (4, 320, 320, 32, "swish"), (4, 640, 640, 16, "swish"), (4, 1280, 1280, 8, "swish"), (1, 64, 32, 128, "swish"),
    (1, 128, 32, 128, "swish"), (1, 192, 64, 128, "swish"), (4, 128, 128, 64, "relu"), (4, 24, 24, 128, "relu"),
]  # fmt: skip
#: (batch, channels, side, kernel, stride) of those of EfficientNet-Lite that convolve each channel by itself
DEPTHWISE = [
    (1, 32, 112, 3, 1), (1, 144, 56, 5, 2), (1, 240, 28, 5, 1), (1, 480, 14, 3, 1), (1, 1152, 7, 5, 1),
    (8, 32, 112, 3, 1), (8, 144, 56, 3, 1), (8, 240, 28, 5, 1), (8, 480, 14, 5, 1), (8, 1152, 7, 3, 1),
]  # fmt: skip
RESIDUAL_LAYERS = [(4, 64, 64, 56, "relu"), (4, 256, 256, 14, "relu"), (1, 64, 64, 128, "linear")]


def _comparisons() -> list[s.Comparison]:
    """The layers forward, and forward and backward as in a network whose weights are not trained."""
    rows = []
    for n, inputs, outputs, size, act, *residual in [*LAYERS, *((*layer, "residual") for layer in RESIDUAL_LAYERS)]:
        kwargs = {
            "x": torch.randn(n, inputs, size, size),
            "weight": torch.randn(outputs, inputs, 3, 3) / (3 * inputs**0.5),
            "bias": torch.randn(outputs),
            "act": act,
            "gain": 1.0,
            "padding": 1,
        }
        if residual:
            kwargs["residual"] = torch.randn(n, outputs, size, size)
        forms: dict[str, s.Form] = {"imgops": imgops.conv2d, **FORMS}
        name = " ".join([f"{n}x{inputs}x{size}x{size} -> {outputs} {act}", *residual])
        rows.append(s.Comparison("conv2d", name, s.forward(forms, kwargs), 1.0))
        # a rounded sum decides on which side of its kink a ReLU is
        loose = 1e-2 if act == "relu" else 1e-4
        gradient = s.both(forms, kwargs, ("x",))
        rows.append(s.Comparison("conv2d", f"{name} forward+input", gradient, 1.0, tolerance=loose))
    return rows + [row for layer in DEPTHWISE for row in _depthwise_rows(*layer)]


def _depthwise_rows(n: int, channels: int, size: int, kernel: int, stride: int) -> list[s.Comparison]:
    """Such a layer with ReLU6 forward, with the gradient of its input, and with all."""
    kwargs = {
        "x": torch.randn(n, channels, size, size),
        "weight": torch.randn(channels, 1, kernel, kernel) / kernel,
        "bias": torch.randn(channels),
        "act": "relu",
        "gain": 1.0,
        "clamp": 6.0,
        "stride": stride,
        "padding": kernel // 2,
        "groups": channels,
    }
    forms: dict[str, s.Form] = {"imgops": imgops.conv2d, **FORMS}
    name = f"{n}x{channels}x{size}x{size} depthwise {kernel}x{kernel}/{stride} relu6"
    # oneDNN's kernels for channels-last images are faster at many of these, and another layout's
    rows = [s.Comparison("conv2d", name, s.forward(forms, kwargs), obvious_goal=1.0)]
    for what, wanted in ("input", ("x",)), ("all", ("x", "weight", "bias")):
        rows.append(s.Comparison("conv2d", f"{name} forward+{what}", s.both(forms, kwargs, wanted), tolerance=1e-2))
    return rows


def _products(x: Tensor, weight: Tensor, stride: int, padding: list[int], *arguments: Any) -> Tensor:
    return F.conv2d(F.pad(x, padding), weight, stride=stride, groups=x.shape[1])


def _weight_products(dy: Tensor, x: Tensor, stride: int, padding: list[int], kernel: int) -> Tensor:
    # PyTorch's own count of such a gradient has the products of all channels
    return _products(x, x.new_ones(x.shape[1], 1, kernel, kernel), stride, padding)


def _concat_products(parts: list[Tensor], weight: Tensor, nearest: int, padding: list[int], *rest: Any) -> Tensor:
    return F.conv2d(F.pad(concatenated(parts, nearest), padding), weight)


def _pictures() -> dict[str, nn.Module]:
    weight = torch.randn(3, s.CHANNELS, 3, 3)

    def convolved(**how: Any) -> nn.Module:
        return s.Called(lambda x, weight: imgops.conv2d(x, weight, act="lrelu", padding=1, **how), weight=weight)

    return {
        "conv2d": convolved(),
        "conv2d strided": convolved(stride=2),
        "conv2d reflect": convolved(padding_mode="reflect"),
    }


SHEET = s.Sheet(
    calls={
        "conv2d": _call(act="lrelu"),
        "conv2d-linear": _call(size=3),
        "conv2d-swish": _call(act="swish", clamp=2.0),
        "conv2d-strided": _call(stride=2, act="relu"),
        "conv2d-groups": _call(groups=2, act="lrelu"),
        "conv2d-reflect": _call(padding_mode="reflect", act="lrelu"),
        "conv2d-dilated": _call(dilation=2, padding=2, act="relu"),
        "conv2d-depthwise": _call(channels=4, out=4, groups=4, act="lrelu"),
        "conv2d-depthwise-strided": _call(channels=4, out=4, groups=4, stride=2, act="swish", clamp=2.0),
        "conv2d-residual": _call(act="relu", residual_scale=1.0),
        "conv2d-residual-linear": _call(gain=0.2, residual_scale=5.0),
        "conv2d-residual-pointwise": _call(kernel=1, act="swish", residual_scale=0.5),
        "conv2d-residual-depthwise": _call(channels=4, out=4, groups=4, act="relu", residual_scale=0.5),
    },
    sized={
        "conv2d": _sized(),
        "conv2d, strided": _sized(stride=2),
        "conv2d, depthwise": _sized_depthwise(),
        "conv2d, residual": s.Call(
            _sized_residual, {"x": "NCHW", "weight": "OC33", "bias": "O", "residual": "NOHW"}, {}
        ),
    },
    random=_random, forms=FORMS, pictures=_pictures, problems=_problems, cases=_CASES, launches=s.no_launches,
    comparisons=_comparisons,
    schemas={
        "concat_conv2d": lambda: (
            [s.values(1, 2, 4, 4), s.values(1, 1, 4, 4)], s.values(2, 3, 3, 3), 1, [1, 1, 1, 1],
            s.values(1, 2, 4, 4), 0.7, s.values(2), s.values(1, 2), s.values(1, 1, 4, 4), "swish", 0.0, 1.3, 4.0,
        ),
        "concat_conv2d: up-sampled": lambda: (
            [s.values(1, 2, 3, 4)], s.values(2, 2, 3, 3), 2, [1, 0, 2, 1], None, 1.0, *Epilogue(),
        ),
        "depthwise_conv2d": lambda: (
            s.values(1, 2, 4, 4), s.values(2, 1, 3, 3), 1, [1, 1, 1, 1], 1, s.values(2), s.values(1, 2),
            s.values(1, 1, 4, 4), "swish", 0.0, 1.3, 4.0, True,
        ),
        "depthwise_weight_gradient": lambda: (s.values(1, 2, 4, 4), s.values(1, 2, 4, 4), 1, [1, 1, 1, 1], 3),
    },
    products={
        "concat_conv2d": _concat_products,
        "depthwise_conv2d": _products,
        "depthwise_weight_gradient": _weight_products,
    },
    tolerance=s.SEVERAL_ROUNDINGS,
    cuda=True,
    lowered=True,
)  # fmt: skip
