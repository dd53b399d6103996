"""What the generator and the discriminator share: the choice of resolutions, widths and precisions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..._settings import Resolution, check_grown, shape_of, start_shape
from ...nn._checks import check_size
from ...ops._common import untraced

ARCHITECTURES = ("orig", "skip", "resnet")
HALF_DTYPES = (torch.float16, torch.bfloat16)


def levels(owner: str, img_resolution: Resolution) -> dict[int, tuple[int, int]]:
    """The (height, width) of each level, the smallest first, by the number that names it: 4, 8, 16, ...

    Of square images whose side is a power of two the number is the side.

    Raises:
        TypeError, ValueError: the images are not of a shape that a start doubles to at least once.
    """
    if not isinstance(img_resolution, tuple):
        img_resolution = check_size(owner, "img_resolution", img_resolution)
    check_grown(f"{owner}: img_resolution", img_resolution)
    height, width, doublings = start_shape(*shape_of(img_resolution))
    return {4 * 2**k: (height * 2**k, width * 2**k) for k in range(doublings + 1)}


def channels_at(channel_base: int, channel_max: int, resolution: int) -> int:
    """``min(channel_base / resolution, channel_max)``, at least 1."""
    return max(1, min(channel_base // resolution, channel_max))


def half_resolutions(owner: str, all_resolutions: list[int], num_fp16_res: int, half_dtype: Any) -> list[int]:
    """The ``num_fp16_res`` highest resolutions, never 4x4; raise for a bad number or dtype."""
    num_fp16_res = check_size(owner, "num_fp16_res", num_fp16_res, minimum=0)
    if half_dtype not in HALF_DTYPES:
        raise ValueError(f"{owner}: half_dtype must be torch.float16 or torch.bfloat16; got {half_dtype}")
    return all_resolutions[1:][::-1][:num_fp16_res]


@untraced
def check_batch(owner: str, name: str, t: Any, shape: tuple[int, ...]) -> None:
    """Raise unless t is a tensor of shape [N, *shape]."""
    if not isinstance(t, Tensor):
        raise TypeError(f"{owner}: {name} must be a torch.Tensor; got {type(t).__name__}")
    if t.ndim != len(shape) + 1 or t.shape[1:] != shape:
        raise ValueError(f"{owner}: {name} must have shape [N, {', '.join(map(str, shape))}]; got {list(t.shape)}")


@untraced
def check_labels(owner: str, c: Any, c_dim: int, batch: int | None) -> None:
    """Raise unless c is [batch, c_dim], or None (or empty) where the network takes no labels."""
    if c is None and c_dim > 0:
        raise ValueError(
            f"{owner}: c must have shape [N, {c_dim}], for the network was built with c_dim={c_dim}; got None"
        )
    if c is not None:
        check_batch(owner, "c", c, (c_dim,))
        if batch is not None and c.shape[0] != batch:
            raise ValueError(f"{owner}: c must have a row for each of the {batch} samples; got {c.shape[0]}")
