"""Corruptions: noise, and a rectangle cut out."""

from __future__ import annotations

import torch
from torch import Tensor


def add_noise(images: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Images [N, C, H, W] with white noise of standard deviation sigma [N, 1]."""
    return torch.addcmul(images, noise, sigma[:, :, None, None])


def cut_out(images: Tensor, center: Tensor, size: Tensor) -> Tensor:
    """Images [N, C, H, W], 0 where a pixel's center lies within a rectangle.

    Args:
        center: [N, 2], (x, y) as fractions of width and height.
        size: [N, 1] or [N, 2], the sides as fractions of width and height; 0 cuts out nothing.
    """
    height, width = images.shape[2:]
    x, y = (
        ((torch.arange(n, dtype=center.dtype, device=center.device) + 0.5) / n - c).abs() >= s / 2
        for n, c, s in zip((width, height), center.split(1, 1), size.expand(-1, 2).split(1, 1), strict=True)
    )
    return torch.where(x[:, None, None, :] | y[:, None, :, None], images, 0)
