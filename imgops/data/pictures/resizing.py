"""Resizes pictures by bicubic interpolation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_picture(pixels: Tensor, size: int) -> Tensor:
    """The picture with its longer side at ``size`` pixels, its shape kept: [C, H, W] -> [C, H', W'], bicubic.

    Raises:
        ValueError: a size below 1.

    >>> resize_picture(torch.rand(3, 300, 450), 150).shape
    torch.Size([3, 100, 150])
    """
    if size < 1:
        raise ValueError(f"resize_picture: size must be >= 1; got {size}")
    return resample_picture(pixels, *resized_shape(pixels, size))


def resized_shape(pixels: Tensor, size: int) -> tuple[int, int]:
    """Height and width of a picture [C, H, W] with its longer side at ``size`` pixels.

    >>> resized_shape(torch.rand(3, 300, 450), 150)
    (100, 150)
    """
    height, width = pixels.shape[1:]
    longer = max(height, width)
    return max(1, round(height * size / longer)), max(1, round(width * size / longer))


def resample_picture(pixels: Tensor, height: int, width: int) -> Tensor:
    """The picture at another height and width: [C, H, W] -> [C, height, width] of its dtype, bicubic, in [0, 1].

    >>> resample_picture(torch.rand(1, 30, 45), 10, 20).shape
    torch.Size([1, 10, 20])
    """
    same = pixels.shape[1:] == (height, width)
    return pixels if same else resample(pixels, height, width).clamp(0, 1)


def resample(values: Tensor, height: int, width: int) -> Tensor:
    """Values [C, H, W] at another height and width, bicubic, not clipped to any range, in their dtype."""
    if values.shape[1:] == (height, width):
        return values
    # PyTorch has no bicubic filter in half precision on a CPU
    exact = values if values.dtype == torch.float64 else values.float()
    resized = F.interpolate(exact[None], (height, width), mode="bicubic", antialias=True, align_corners=False)
    return resized[0].to(values.dtype)
