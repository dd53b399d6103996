"""Pad, up-sample, filter and down-sample a batch of images: zero-insertion, then a correlation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: with both factors of an axis above this, nearly all of the inserted zeros are never read
LARGE_FACTOR = 16


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
) -> Tensor:
    """x [N, C, H, W], f [fh, fw] or [n] (separable) or None (identity) -> [N, C, H', W'].

    ``up`` and ``down`` are (x, y); ``padding`` is (x0, x1, y0, y1) on the up-sampled image.
    """
    n, c, h, w = x.shape
    (up_x, up_y), (down_x, down_y) = up, down

    if f is None:
        f = torch.ones(1, 1, device=x.device)
    # the gain is part of the filter, and so is rounded to the filter's dtype
    f = (f * gain ** (f.ndim / 2)).to(x.dtype)
    # a true convolution is a correlation with the flipped filter
    f = f if flip_filter else f.flip(list(range(f.ndim)))
    if h * w > 0 and max(min(up_x, down_x), min(up_y, down_y)) > LARGE_FACTOR:
        return _gathered(x, f if f.ndim == 2 else f.outer(f), up, down, padding)

    # after each sample, up - 1 zeros
    x = x.reshape(n, c, h, 1, w, 1)
    x = F.pad(x, [0, up_x - 1, 0, 0, 0, up_y - 1])
    x = x.reshape(n, c, h * up_y, w * up_x)

    # pad first, then crop: a negative padding on one side may reach into the padding of the other
    x = F.pad(x, [max(p, 0) for p in padding])
    x0, x1, y0, y1 = (max(-p, 0) for p in padding)
    x = x[:, :, y0 : x.shape[2] - y1, x0 : x.shape[3] - x1]

    # depthwise: every plane is an image of one channel; a separable filter runs as a row, then as a column
    x = x.reshape(n * c, 1, *x.shape[2:])
    for k in [f[None, :], f[:, None]] if f.ndim == 1 else [f]:
        x = F.conv2d(x, k[None, None])
    x = x.reshape(n, c, *x.shape[2:])
    return x[:, :, ::down_y, ::down_x]


def _gathered(
    x: Tensor, f: Tensor, up: tuple[int, int], down: tuple[int, int], padding: tuple[int, int, int, int]
) -> Tensor:
    """The output of :func:`upfirdn2d`: a pixel gathers the samples under the taps of f [fh, fw], which correlates."""
    (x0, x1, y0, y1), (fh, fw) = padding, f.shape
    at_x, k_x, m_x = _places(x.shape[3], fw, up[0], down[0], x0, x1, x.device)
    at_y, k_y, m_y = _places(x.shape[2], fh, up[1], down[1], y0, y1, x.device)
    # [N, C, H', taps, W', taps]
    samples = x[:, :, at_y][..., at_x].where(m_y[:, :, None, None] & m_x, 0)
    return (samples * f[k_y][..., k_x]).sum((3, 5))


def _places(
    size: int, taps: int, up: int, down: int, before: int, after: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Along an axis, for each output and each of its taps that may meet a sample: (sample, tap, whether they meet)."""
    outputs = (size * up + before + after - taps) // down + 1
    start = torch.arange(outputs, device=device)[:, None] * down - before
    sample = -(-start // up) + torch.arange(-(-taps // up), device=device)
    tap = sample * up - start
    return sample.clamp(0, size - 1), tap.clamp(max=taps - 1), (tap < taps) & (sample >= 0) & (sample < size)
