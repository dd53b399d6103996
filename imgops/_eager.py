"""The fastest known forms of some ops in plain PyTorch, which the speed of the fused ones is compared with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def lrelu(x: Tensor) -> Tensor:
    """Leaky ReLU with the slope 0.2 and the gain sqrt(2), StyleGAN2's."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def bias_act(x: Tensor, b: Tensor, act: str = "lrelu") -> Tensor:
    """Bias and :func:`lrelu`, the only ``act``, in place as far as autograd allows: x [N, C, H, W], b [C]."""
    return F.leaky_relu_(x + b.to(x.dtype)[None, :, None, None], 0.2) * math.sqrt(2)


def upfirdn2d(x: Tensor, f: Tensor, up: int, down: int, padding: Sequence[int], gain: float) -> Tensor:
    """By strides: a transposed depthwise convolution up-samples, a strided one down-samples; no zero is inserted.

    x [N, C, H, W], f [fh, fw] or [n], padding (x0, x1, y0, y1); ``up`` or ``down`` is 1.
    """
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
            crop_x = [fw - 1 - p - e for p, e in zip(px, (0, stride[1] - 1), strict=True)]
            crop_y = [fh - 1 - p - e for p, e in zip(py, (0, stride[0] - 1), strict=True)]
            # a crop that is the same on both sides costs nothing: it is the convolution's own padding
            free_y, free_x = (c[0] if c[0] == c[1] and c[0] >= 0 else 0 for c in (crop_y, crop_x))
            x = F.conv_transpose2d(x, weight, stride=stride, padding=(free_y, free_x), groups=c)
            rest = [free_x - crop_x[0], free_x - crop_x[1], free_y - crop_y[0], free_y - crop_y[1]]
            x = F.pad(x, rest) if any(rest) else x
        else:
            stride = (down if along_y else 1, down if along_x else 1)
            weight, same = weight.flip([2, 3]), px[0] == px[1] >= 0 and py[0] == py[1] >= 0
            x = x if same else F.pad(x, [*px, *py])
            x = F.conv2d(x, weight, stride=stride, padding=(py[0], px[0]) if same else 0, groups=c)
    return x


def convolution(
    x: Tensor, weight: Tensor, up: int, down: int, padding: int, resample_filter: Tensor | None, groups: int = 1
) -> Tensor:
    """A convolution with a low-pass filter of 4 x 4 taps after up-sampling, which is by 2, or before down-sampling."""
    kernel, f = weight.shape[-1], resample_filter
    if up > 1 and f is not None:
        o, i = weight.shape[0] // groups, weight.shape[1]
        shape = (groups * i, o, kernel, kernel)
        transposed = weight.reshape(groups, o, i, kernel, kernel).transpose(1, 2).reshape(shape).flip([2, 3])
        x = F.conv_transpose2d(x, transposed, stride=up, groups=groups)
        return upfirdn2d(x, f, 1, 1, [padding] * 4, float(up**2))
    if down > 1 and f is not None:
        if kernel == 1:
            return F.conv2d(upfirdn2d(x, f, 1, down, [1] * 4, 1.0), weight, groups=groups)
        x = upfirdn2d(x, f, 1, 1, [padding + 1] * 4, 1.0)
        return F.conv2d(x, weight, stride=down, groups=groups)
    return F.conv2d(x, weight, padding=padding, groups=groups)


def finish(x: Tensor, demod: Tensor | None, noise: Tensor | None, bias: Tensor | None) -> Tensor:
    """The epilogue of a convolution, x its fresh output: demodulation [N, O], noise, bias and :func:`lrelu`."""
    # in place where autograd allows it
    if torch.is_grad_enabled():
        x = x if demod is None else x * demod[:, :, None, None]
        x = x if noise is None else x + noise.to(x.dtype)
        return lrelu(x if bias is None else x + bias[:, None, None].to(x.dtype))
    x = x if demod is None else x.mul_(demod[:, :, None, None])
    x = x if noise is None else x.add_(noise.to(x.dtype))
    x = x if bias is None else x.add_(bias[:, None, None].to(x.dtype))
    return F.leaky_relu_(x, 0.2).mul_(math.sqrt(2))


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    noise: Tensor,
    bias: Tensor,
    act: str = "lrelu",
    up: int = 1,
    down: int = 1,
    padding: int = 0,
    resample_filter: Tensor | None = None,
) -> Tensor:
    """Scale the input by the styles, convolve, scale the output by the demodulation; :func:`lrelu` is the only act."""
    demod = torch.rsqrt(styles.square() @ weight.square().sum([2, 3]).t() + 1e-8).to(x.dtype)
    x = x * styles.to(x.dtype)[:, :, None, None]
    x = convolution(x, weight.to(x.dtype), up, down, padding, resample_filter)
    return finish(x, demod, noise, bias)
