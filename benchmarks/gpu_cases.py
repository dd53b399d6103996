"""The problems that the GPU harness times: shapes, the bytes and FLOPs they cannot do without, and eager forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Kwargs = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One problem: what makes the op's arguments, which of them take gradients, and what it costs at least.

    ``bytes`` and ``flops`` are (forward, forward and backward). Each tensor counts once a pass: the backward reads the
    gradient and what it must know of the forward, and writes the gradients.
    """

    op: str
    name: str
    make: Callable[[torch.device], Kwargs]
    differentiable: tuple[str, ...]
    bytes: tuple[int, int]
    flops: tuple[int, int]
    dtype: torch.dtype

    @property
    def id(self) -> str:
        return f"{self.op}/{self.name}"


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
    forward = (x + y) * dtype.itemsize + weight * 4 + n * out * out * 4
    # backward: dy, x, y, dx, and the weight with its gradient
    both = forward + (2 * x + 2 * y) * dtype.itemsize + 2 * weight * 4
    note = f"to {outputs}" + (f" up{up}" if up > 1 else f" down{down}" if down > 1 else "")
    name = _label((n, inputs, size, size), dtype, channels_last, note)
    gradients = ("x", "weight", "styles", "noise", "bias")
    return Case("modulated_conv2d", name, make, gradients, (forward, both), (flops, 3 * flops), dtype)


def cases(dry: bool) -> list[Case]:
    """The shapes of StyleGAN2 at 256 and 1024 px, of StyleGAN3's filters and of VGG's features at 512 px."""
    half, single = torch.float16, torch.float32
    if dry:
        return [
            bias_act_case((2, 4, 9, 7), single),
            resample_case((1, 3, 8, 8), single, up=2, padding=(2, 1)),
            modulated_case(1, 4, 3, 8, single, up=2),
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
    ]


def _lrelu(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def eager_bias_act(x: Tensor, b: Tensor, act: str) -> Tensor:
    """As one writes it first; ``act`` is lrelu."""
    return _lrelu(x + b.to(x.dtype)[None, :, None, None])


def eager_upfirdn2d(x: Tensor, f: Tensor, up: int, down: int, padding: list[int], gain: float) -> Tensor:
    """Insert zeros, pad, convolve each channel, keep each down-th pixel."""
    n, c, h, w = x.shape
    if up > 1:
        x = F.pad(x.reshape(n, c, h, 1, w, 1), [0, up - 1, 0, 0, 0, up - 1]).reshape(n, c, h * up, w * up)
    x = F.pad(x, padding)
    kernels = [f] if f.ndim == 2 else [f[None, :], f[:, None]]
    for kernel in kernels:
        kernel = (kernel * gain ** (1 / len(kernels))).flip([0, 1]).to(x.dtype)
        x = F.conv2d(x, kernel.expand(c, 1, *kernel.shape), groups=c)
    return x[:, :, ::down, ::down]


def eager_upfirdn2d_strided(x: Tensor, f: Tensor, up: int, down: int, padding: list[int], gain: float) -> Tensor:
    """By strides: a transposed depthwise convolution up-samples, a strided one down-samples; no zero is inserted."""
    c = x.shape[1]
    kernels = [f] if f.ndim == 2 else [f[None, :], f[:, None]]
    for i, kernel in enumerate(kernels):
        kernel = (kernel * gain ** (1 / len(kernels))).to(x.dtype)
        fh, fw = kernel.shape
        # which axes this kernel filters: both, or x and then y
        along_x, along_y = len(kernels) == 1 or i == 0, len(kernels) == 1 or i == 1
        px, py = padding[:2] if along_x else (0, 0), padding[2:] if along_y else (0, 0)
        weight = kernel.expand(c, 1, fh, fw)
        if up > 1:
            stride = (up if along_y else 1, up if along_x else 1)
            x = F.conv_transpose2d(x, weight, stride=stride, groups=c)
            x = F.pad(
                x,
                [
                    *(p - (fw - 1) + e for p, e in zip(px, (0, stride[1] - 1), strict=True)),
                    *(p - (fh - 1) + e for p, e in zip(py, (0, stride[0] - 1), strict=True)),
                ],
            )
        else:
            stride = (down if along_y else 1, down if along_x else 1)
            x = F.conv2d(F.pad(x, [*px, *py]), weight.flip([2, 3]), stride=stride, groups=c)
    return x


def _eager_epilogue(x: Tensor, demod: Tensor, noise: Tensor, bias: Tensor) -> Tensor:
    return _lrelu(x * demod[:, :, None, None] + noise.to(x.dtype) + bias[:, None, None].to(x.dtype))


def _eager_convolution(
    x: Tensor, weight: Tensor, up: int, down: int, padding: int, f: Tensor | None, groups: int = 1
) -> Tensor:
    if up > 1 and f is not None:
        o, i = weight.shape[0] // groups, weight.shape[1]
        transposed = weight.reshape(groups, o, i, 3, 3).transpose(1, 2).reshape(groups * i, o, 3, 3).flip([2, 3])
        x = F.conv_transpose2d(x, transposed, stride=up, groups=groups)
        return eager_upfirdn2d_strided(x, f, 1, 1, [padding] * 4, float(up**2))
    if down > 1 and f is not None:
        x = eager_upfirdn2d_strided(x, f, 1, 1, [padding + 1] * 4, 1.0)
        return F.conv2d(x, weight, stride=down, groups=groups)
    return F.conv2d(x, weight, padding=padding, groups=groups)


def eager_modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    noise: Tensor,
    bias: Tensor,
    act: str,
    up: int,
    down: int,
    padding: int,
    resample_filter: Tensor | None,
) -> Tensor:
    """Scale the input, convolve, scale the output."""
    demod = torch.rsqrt(styles.square() @ weight.square().sum([2, 3]).t() + 1e-8).to(x.dtype)
    x = x * styles.to(x.dtype)[:, :, None, None]
    x = _eager_convolution(x, weight.to(x.dtype), up, down, padding, resample_filter)
    return _eager_epilogue(x, demod, noise, bias)


def eager_modulated_conv2d_grouped(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    noise: Tensor,
    bias: Tensor,
    act: str,
    up: int,
    down: int,
    padding: int,
    resample_filter: Tensor | None,
) -> Tensor:
    """A weight for each sample, and one convolution with as many groups."""
    n, o = x.shape[0], weight.shape[0]
    w = weight * styles[:, None, :, None, None]
    w = (w * torch.rsqrt(w.square().sum([2, 3, 4], keepdim=True) + 1e-8)).to(x.dtype).reshape(n * o, *weight.shape[1:])
    x = _eager_convolution(x.reshape(1, -1, *x.shape[2:]), w, up, down, padding, resample_filter, groups=n)
    x = x.reshape(n, o, *x.shape[2:])
    return _eager_epilogue(x, x.new_ones(n, o), noise, bias)


def plain_conv2d(x: Tensor, weight: Tensor, up: int, down: int, padding: int, **_: Any) -> Tensor:
    """The library's convolution of the same shape, and nothing else: what a modulated one is held against."""
    weight = weight.to(x.dtype)
    if up > 1:
        return F.conv_transpose2d(x, weight.transpose(0, 1), stride=up)
    return F.conv2d(x, weight, stride=down, padding=padding)


#: forms in plain PyTorch by op; the first is the obvious one, which torch.compile gets too
EAGER: dict[str, dict[str, Callable[..., Tensor]]] = {
    "bias_act": {"eager": eager_bias_act},
    "upfirdn2d": {"eager": eager_upfirdn2d, "eager strided": eager_upfirdn2d_strided},
    "modulated_conv2d": {
        "eager": eager_modulated_conv2d,
        "eager grouped": eager_modulated_conv2d_grouped,
        "plain conv": plain_conv2d,
    },
}
