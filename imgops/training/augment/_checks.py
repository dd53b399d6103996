"""Checks on images, shared by the augmentations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...ops._common import check_tensor, untraced

#: gray, RGB and RGBA
CHANNELS = (1, 3, 4)


@untraced
def check_images(owner: str, images: Any, device: torch.device | None = None, least: int = 1) -> None:
    """Raise unless images are [N, 1 | 3 | 4, H, W] in a floating dtype on the device, no side below ``least``."""
    check_tensor(owner, "images", images, 4)
    channels, height, width = images.shape[1:]
    if channels not in CHANNELS:
        allowed = ", ".join(map(str, CHANNELS))
        raise ValueError(f"imgops.{owner}: images must have one of {allowed} channels; got shape {list(images.shape)}")
    if height < least or width < least:
        raise ValueError(
            f"imgops.{owner}: images must be at least {least} pixels high and wide; got shape {list(images.shape)}"
        )
    if device is not None and images.device != device:
        raise ValueError(f"imgops.{owner}: images must be on the device {device} of p; got {images.device}")


def check_same(owner: str, name: str, other: Tensor, images: Tensor) -> None:
    """Raise unless another batch has the shape, dtype and device of the images."""
    check_tensor(owner, name, other, 4)
    if (other.shape, other.dtype, other.device) != (images.shape, images.dtype, images.device):
        raise ValueError(
            f"imgops.{owner}: {name} must have the shape, dtype and device of real, "
            f"{list(images.shape)} {images.dtype} on {images.device}; got {list(other.shape)} {other.dtype} on "
            f"{other.device}"
        )
