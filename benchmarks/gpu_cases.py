"""The problems that the GPU harness times: shapes, and the bytes and FLOPs that they cannot do without."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import imgops

from .eager import displaced_grid

Kwargs = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One problem: what makes the op's arguments, which of them take gradients, and what it costs at least.

    ``bytes`` and ``flops`` are (forward, forward and backward). Each tensor counts once a pass: the backward reads the
    gradient and what it must know of the forward, and writes the gradients. Zeros are not counted. ``rate`` is that of
    the arithmetic: "float32" outside tensor cores, "tf32", "float16" or "bfloat16" on them. ``graph``: whether a CUDA
    graph can capture the work.
    """

    op: str
    name: str
    make: Callable[[torch.device], Kwargs]
    differentiable: tuple[str, ...]
    bytes: tuple[int, int]
    flops: tuple[int, int]
    dtype: torch.dtype
    rate: str = "float32"
    graph: bool = True

    @property
    def id(self) -> str:
        return f"{self.op}/{self.name}"


def outputs_of(form: Callable[..., Any], kwargs: Kwargs) -> tuple[Tensor, ...]:
    """What a form makes of a case, as a tuple."""
    y = form(**kwargs)
    return y if isinstance(y, tuple) else (y,)


def _product_rate(dtype: torch.dtype) -> str:
    """Of a product whose operands are of this dtype: float32's is TF32, as PyTorch's convolutions take it."""
    return "tf32" if dtype == torch.float32 else str(dtype).removeprefix("torch.")


def _label(shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool, *notes: str) -> str:
    layout = "nhwc" if channels_last else "nchw"
    return " ".join(["x".join(map(str, shape)), str(dtype).removeprefix("torch."), layout, *notes])


def _image(shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool, device: torch.device) -> Tensor:
    x = torch.randn(shape, device=device).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def bias_act_case(shape: tuple[int, int, int, int], dtype: torch.dtype, channels_last: bool = False) -> Case:
    """Bias and leaky ReLU, as after each layer of StyleGAN2."""

    def make(device: torch.device) -> Kwargs:
        return {
            "x": _image(shape, dtype, channels_last, device),
            "b": torch.randn(shape[1], device=device),
            "act": "lrelu",
        }

    size = math.prod(shape) * dtype.itemsize
    # forward: x, y; backward: dy, y, dx
    return Case("bias_act", _label(shape, dtype, channels_last), make, ("x", "b"), (2 * size, 5 * size), (0, 0), dtype)


def resample_case(
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    channels_last: bool = False,
    up: int = 1,
    down: int = 1,
    taps: int = 4,
    padding: tuple[int, int] = (1, 1),
) -> Case:
    """A low-pass filter with a factor; 4 taps are [1, 3, 3, 1] made 2-D, more are a separable 1-D window."""

    def make(device: torch.device) -> Kwargs:
        f = torch.hann_window(taps + 2, periodic=False, device=device)[1:-1]
        if taps == 4:
            f = torch.tensor([1.0, 3.0, 3.0, 1.0], device=device)
            f = f.outer(f)
        return {
            "x": _image(shape, dtype, channels_last, device),
            "f": f / f.sum(),
            "up": up,
            "down": down,
            "padding": [*padding, *padding],
            "gain": float(up**2),
        }

    n, c, h, w = shape
    out_h, out_w = ((s * up + sum(padding) - taps) // down + 1 for s in (h, w))
    size_in, size_out = n * c * h * w * dtype.itemsize, n * c * out_h * out_w * dtype.itemsize
    # along x on the rows of the input, then along y; only the taps that meet a sample
    flops = 2 * n * c * taps // up * (h * out_w + out_h * out_w)
    note = f"up{up}" if up > 1 else f"down{down}" if down > 1 else "filter"
    name = _label(shape, dtype, channels_last, note, f"{taps} taps")
    return Case(
        "upfirdn2d", name, make, ("x",), (size_in + size_out, 2 * (size_in + size_out)), (flops, 2 * flops), dtype
    )


def modulated_case(
    n: int,
    inputs: int,
    outputs: int,
    size: int,
    dtype: torch.dtype,
    channels_last: bool = False,
    up: int = 1,
    down: int = 1,
) -> Case:
    """A 3x3 layer of StyleGAN2's synthesis network with its noise, bias and activation."""
    out = size * up // down

    def make(device: torch.device) -> Kwargs:
        f = torch.tensor([1.0, 3.0, 3.0, 1.0], device=device)
        return {
            "x": _image((n, inputs, size, size), dtype, channels_last, device),
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
    forward = (x + y) * dtype.itemsize + (weight + noise) * 4
    # backward: dy, x, y, dx, the weight with its gradient, and the gradient of the noise
    both = forward + (2 * x + 2 * y) * dtype.itemsize + (2 * weight + noise) * 4
    note = f"to {outputs}" + (f" up{up}" if up > 1 else f" down{down}" if down > 1 else "")
    name = _label((n, inputs, size, size), dtype, channels_last, note)
    gradients = ("x", "weight", "styles", "noise", "bias")
    costs = (forward, both), (flops, 3 * flops)
    return Case("modulated_conv2d", name, make, gradients, *costs, dtype, _product_rate(dtype))


def filtered_case(
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    channels_last: bool = False,
    up: int = 2,
    down: int = 2,
    radial: bool = False,
) -> Case:
    """The nonlinearity of a StyleGAN3 layer, 6 taps a factor; ``radial`` filters down by a 2-D filter, as -R does."""
    taps_up, taps_down = 6 * up, 6 * down
    n, c, h, w = shape
    # so that a factor of up / down is left of the size
    total = taps_up + taps_down - 1 - down
    padding = (total - total // 2, total // 2)

    def make(device: torch.device) -> Kwargs:
        fu, fd = (torch.kaiser_window(taps, False, 6.0, device=device) for taps in (taps_up, taps_down))
        fu, fd = fu / fu.sum(), fd / fd.sum()
        return {
            "x": _image(shape, dtype, channels_last, device),
            "fu": fu,
            "fd": fd.outer(fd) if radial else fd,
            "b": torch.randn(c, device=device),
            "up": up,
            "down": down,
            "padding": [*padding, *padding],
            "clamp": 256.0,
        }

    high_h, high_w = (size * up + total - taps_up + 1 for size in (h, w))
    out_h, out_w = ((size - taps_down) // down + 1 for size in (high_h, high_w))
    x, y = (n * c * area * dtype.itemsize for area in (h * w, out_h * out_w))
    flops = 2 * n * c * taps_up // up * (h * high_w + high_h * high_w)
    flops += 2 * n * c * taps_down * (out_h * out_w * taps_down if radial else out_w * (high_h + out_h))
    name = _label(shape, dtype, channels_last, f"up{up} down{down}{' radial' if radial else ''}")
    # backward: dy, x, dx
    costs = (x + y, 3 * x + 2 * y), (flops, 2 * flops)
    return Case("filtered_lrelu", name, make, ("x", "b"), *costs, dtype, "float32")


def adain_case(shape: tuple[int, int, int, int], dtype: torch.dtype, channels_last: bool = False) -> Case:
    """The features of a content with the statistics of a style's of the same size."""

    def make(device: torch.device) -> Kwargs:
        return {name: _image(shape, dtype, channels_last, device) for name in ("content", "style")}

    size = math.prod(shape) * dtype.itemsize
    # forward: content, style, y; backward: dy, content, style and two gradients
    name = _label(shape, dtype, channels_last)
    return Case("adain", name, make, ("content", "style"), (3 * size, 8 * size), (0, 0), dtype)


def affine_case(shape: tuple[int, int, int, int], dtype: torch.dtype, channels_last: bool = False) -> Case:
    """StyleGAN1's normalisation, with a scale and a bias a plane."""

    def make(device: torch.device) -> Kwargs:
        of_planes = {name: torch.randn(shape[:2], device=device) for name in ("scale", "bias")}
        return {"x": _image(shape, dtype, channels_last, device), **of_planes}

    size = math.prod(shape) * dtype.itemsize
    # forward: x, y; backward: dy, x, dx
    name, gradients = _label(shape, dtype, channels_last), ("x", "scale", "bias")
    return Case("adaptive_instance_norm", name, make, gradients, (2 * size, 5 * size), (0, 0), dtype)


def style_cases(shape: tuple[int, int, int, int], dtype: torch.dtype, channels_last: bool = False) -> list[Case]:
    """The second-order statistics of features and the losses on them; half of a symmetric product is counted."""
    n, c, h, w = shape
    name, x, product = _label(shape, dtype, channels_last), math.prod(shape) * dtype.itemsize, n * c * c

    def image(device: torch.device) -> Kwargs:
        return {"x": _image(shape, dtype, channels_last, device)}

    def target(device: torch.device) -> Kwargs:
        return {**image(device), "target": imgops.gram_matrix(torch.randn(shape, device=device), impl="reference")}

    def gaussian(device: torch.device) -> Kwargs:
        mean, covariance = imgops.feature_statistics(torch.randn(shape, device=device), impl="reference")
        return {**image(device), "target_mean": mean, "target_covariance": covariance}

    # backward: x and dx, and the whole product of the difference and x; PyTorch's products of float32 are not in TF32
    costs = (x + 4 * product, 3 * x + 8 * product), (product * h * w, 3 * product * h * w)
    rate = "float32" if dtype == torch.float32 else _product_rate(dtype)
    return [
        Case("gram_matrix", name, image, ("x",), *costs, dtype, rate),
        Case("feature_statistics", name, image, ("x",), *costs, dtype, rate),
        Case("style_loss", name, target, ("x",), *costs, dtype, rate),
        # most of the work is in the roots of matrices, which the host waits for
        Case("wasserstein_loss", name, gaussian, ("x",), (0, 0), (0, 0), dtype, graph=False),
    ]


def sampling_cases(shape: tuple[int, int, int, int], dtype: torch.dtype, channels_last: bool = False) -> list[Case]:
    """Bilinear samples at places some pixels away, given as a grid and as displacements."""
    n, _, h, w = shape

    def displaced(device: torch.device) -> Kwargs:
        coarse = torch.randn(n, 2, 8, 8, device=device)
        displacement = 4 * F.interpolate(coarse, size=(h, w), mode="bicubic", align_corners=False)
        return {"x": _image(shape, dtype, channels_last, device), "displacement": displacement, "padding_mode": "zeros"}

    def gridded(device: torch.device) -> Kwargs:
        made = displaced(device)
        return {"x": made["x"], "grid": displaced_grid(made["displacement"])}

    image, places = math.prod(shape) * dtype.itemsize, n * 2 * h * w * 4
    # backward: dy, x, dx, the places and their gradient
    bytes = 2 * image + places, 5 * image + 3 * places
    name = _label(shape, dtype, channels_last)
    return [
        Case("grid_sample", name, gridded, ("x", "grid"), bytes, (0, 0), dtype),
        Case("displace", name, displaced, ("x", "displacement"), bytes, (0, 0), dtype),
    ]


def cases(dry: bool) -> list[Case]:
    """The shapes of StyleGAN2 at 256 and 1024 px, of StyleGAN3's filters and of VGG's features at 512 px."""
    half, single = torch.float16, torch.float32
    if dry:
        return [
            bias_act_case((2, 4, 9, 7), single),
            resample_case((1, 3, 8, 8), single, up=2, padding=(2, 1)),
            modulated_case(1, 4, 3, 8, single, up=2),
            filtered_case((1, 2, 8, 8), single),
            adain_case((1, 2, 6, 6), single),
            affine_case((1, 2, 6, 6), single),
            *style_cases((1, 4, 6, 6), single),
            *sampling_cases((1, 2, 8, 8), single),
        ]
    return [
        bias_act_case((16, 64, 256, 256), half),
        bias_act_case((16, 64, 256, 256), half, channels_last=True),
        bias_act_case((16, 512, 32, 32), half),
        bias_act_case((4, 32, 1024, 1024), half),
        bias_act_case((4, 64, 512, 512), single),
        resample_case((16, 3, 128, 128), single, up=2, padding=(2, 1)),
        resample_case((16, 64, 257, 257), half),
        resample_case((16, 64, 257, 257), half, channels_last=True),
        resample_case((16, 64, 256, 256), half, down=2),
        resample_case((16, 64, 256, 256), half, channels_last=True, down=2),
        resample_case((16, 64, 128, 128), half, up=2, padding=(2, 1)),
        resample_case((4, 32, 1025, 1025), half),
        resample_case((4, 128, 148, 148), half, up=2, taps=12, padding=(6, 5)),
        modulated_case(16, 512, 512, 32, half),
        modulated_case(16, 512, 512, 32, half, channels_last=True),
        modulated_case(16, 128, 128, 128, half),
        modulated_case(16, 128, 64, 128, half, up=2),
        modulated_case(16, 128, 64, 128, half, channels_last=True, up=2),
        modulated_case(4, 64, 32, 512, half, up=2),
        modulated_case(4, 32, 32, 1024, half),
        modulated_case(16, 512, 512, 16, single),
        filtered_case((4, 512, 36, 36), single),
        filtered_case((4, 512, 148, 148), half, up=4),
        filtered_case((4, 256, 276, 276), half),
        filtered_case((4, 256, 276, 276), half, channels_last=True),
        filtered_case((4, 256, 276, 276), half, radial=True),
        filtered_case((4, 32, 1044, 1044), half),
        adain_case((8, 512, 64, 64), single),
        adain_case((8, 512, 64, 64), half),
        adain_case((8, 512, 64, 64), half, channels_last=True),
        adain_case((8, 64, 512, 512), half),
        affine_case((16, 128, 128, 128), half),
        affine_case((4, 32, 1024, 1024), half, channels_last=True),
        *style_cases((1, 64, 512, 512), single),
        # sums of the squares of so many pixels are beyond float16
        *style_cases((1, 64, 512, 512), torch.bfloat16),
        *style_cases((1, 256, 128, 128), torch.bfloat16),
        *style_cases((1, 512, 64, 64), single),
        *style_cases((1, 512, 64, 64), torch.bfloat16, channels_last=True),
        *sampling_cases((16, 3, 256, 256), single),
        *sampling_cases((16, 64, 128, 128), half),
        *sampling_cases((16, 64, 128, 128), half, channels_last=True),
    ]
