"""Modulated convolution of StyleGAN2 (Karras et al. 2020, section 2.2), as its formula reads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .._epilogue import Epilogue
from .bias_act import bias_act
from .upfirdn2d import upfirdn2d

DEMODULATION_EPS = 1e-8


def squared_norm(weight: Tensor) -> Tensor:
    """Sum of weight [O, I, kh, kw] squared over its taps, [O, I]."""
    return weight.square().sum(dim=(2, 3))


def demodulation(squared_norms: Tensor, styles: Tensor) -> Tensor:
    """``d[n, o] = rsqrt(sum over i, kh, kw of (weight[o, i, kh, kw] * styles[n, i])^2 + 1e-8)``, [N, O].

    ``squared_norms`` [O, I] is :func:`squared_norm`; styles [N, I].
    """
    return torch.rsqrt(styles.square() @ squared_norms.t() + DEMODULATION_EPS)


def resample_padding(
    padding: tuple[int, int, int, int], filter_size: tuple[int, int], up: int, down: int
) -> tuple[int, int, int, int]:
    """Padding (x0, x1, y0, y1) of the up-sampled image that centers a filter of ``filter_size`` (fw, fh)."""
    (x0, x1, y0, y1), (fw, fh) = padding, filter_size
    if up > 1:
        x0, x1 = x0 + (fw + up - 1) // 2, x1 + (fw - up) // 2
        y0, y1 = y0 + (fh + up - 1) // 2, y1 + (fh - up) // 2
    if down > 1:
        x0, x1 = x0 + (fw - down + 1) // 2, x1 + (fw - down) // 2
        y0, y1 = y0 + (fh - down + 1) // 2, y1 + (fh - down) // 2
    return x0, x1, y0, y1


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    epilogue: Epilogue,
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    resample_filter: Tensor | None,
    flip_weight: bool,
) -> Tensor:
    """x [N, I, H, W], weight [O, I, kh, kw], styles [N, I]; the epilogue's scale, [N, O], is the demodulation.

    Scale the input channels by the styles, (up-sample or) filter, convolve with the stride ``down``, scale the output
    channels by the demodulation: the same product as convolving each sample with its own modulated weight.
    """
    x = x * styles[:, :, None, None]
    size = (1, 1) if resample_filter is None else (resample_filter.shape[-1], resample_filter.shape[0])
    pads = resample_padding(padding, size, up, down)
    x = upfirdn2d(x, resample_filter if up > 1 or down > 1 else None, (up, up), (1, 1), pads, False, up**2)
    x = F.conv2d(x, weight if flip_weight else weight.flip([2, 3]), stride=down)
    return bias_act(x, epilogue)
