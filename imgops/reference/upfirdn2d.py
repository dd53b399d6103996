"""Pad, up-sample, filter and down-sample a batch of images: zero-insertion, then a correlation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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

    # after each sample, up - 1 zeros
    x = x.reshape(n, c, h, 1, w, 1)
    x = F.pad(x, [0, up_x - 1, 0, 0, 0, up_y - 1])
    x = x.reshape(n, c, h * up_y, w * up_x)

    # pad first, then crop: a negative padding on one side may reach into the padding of the other
    x = F.pad(x, [max(p, 0) for p in padding])
    x0, x1, y0, y1 = (max(-p, 0) for p in padding)
    x = x[:, :, y0 : x.shape[2] - y1, x0 : x.shape[3] - x1]

    if f is None:
        f = torch.ones(1, 1, device=x.device)
    # the gain is part of the filter, and so is rounded to the filter's dtype
    f = (f * gain ** (f.ndim / 2)).to(x.dtype)
    # a true convolution is a correlation with the flipped filter
    f = f if flip_filter else f.flip(list(range(f.ndim)))
    # depthwise: every plane is an image of one channel; a separable filter runs as a row, then as a column
    x = x.reshape(n * c, 1, *x.shape[2:])
    for k in [f[None, :], f[:, None]] if f.ndim == 1 else [f]:
        x = F.conv2d(x, k[None, None])
    x = x.reshape(n, c, *x.shape[2:])
    return x[:, :, ::down_y, ::down_x]
