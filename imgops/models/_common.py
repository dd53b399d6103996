"""What families share: the choice of resolutions, widths and precisions."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from .._settings import Resolution, check_grown, check_halved, check_type, shape_of, start_shape
from ..nn._checks import check_half_dtype, check_size

ARCHITECTURES = ("orig", "skip", "resnet")


def check_resolution(owner: str, img_resolution: Resolution, minimum: int = 1) -> Resolution:
    """Return the side as an int, or (height, width); raise TypeError, or ValueError for a side below the minimum."""
    if not isinstance(img_resolution, tuple):
        return check_size(owner, "img_resolution", img_resolution, minimum)
    check_type(f"{owner}: img_resolution", img_resolution, Resolution)
    for side in img_resolution:
        check_size(owner, "img_resolution", side, minimum)
    return img_resolution


class Level(NamedTuple):
    """What the layers of a resolution have in common.

    Attributes:
        shape: (height, width).
        channels: how many.
        half_dtype: the dtype that they run in where it is not that of the parameters.
    """

    shape: tuple[int, int]
    channels: int
    half_dtype: torch.dtype | None


def levels(
    owner: str,
    img_resolution: Resolution,
    channel_base: int,
    channel_max: int,
    num_fp16_res: int,
    half_dtype: Any,
) -> dict[int, Level]:
    """The levels of a network, the smallest first, by the number that names each: 4, 8, 16, ...

    Of square images whose side is a power of two the number is the side. A level has ``min(channel_base / number,
    channel_max)`` channels, at least 1; the ``num_fp16_res`` highest run in half precision, the first never.

    Raises:
        TypeError, ValueError: a number that is no int in range, another dtype, or images that are not of a shape that a
            start doubles to at least once.
    """
    img_resolution = check_resolution(owner, img_resolution)
    channel_base = check_size(owner, "channel_base", channel_base)
    channel_max = check_size(owner, "channel_max", channel_max)
    num_fp16_res = check_size(owner, "num_fp16_res", num_fp16_res, minimum=0)
    check_half_dtype(owner, half_dtype)
    check_grown(f"{owner}: img_resolution", img_resolution)
    height, width, doublings = start_shape(*shape_of(img_resolution))
    return {
        4 * 2**k: Level(
            (height * 2**k, width * 2**k),
            max(1, min(channel_base // (4 * 2**k), channel_max)),
            half_dtype if k > max(0, doublings - num_fp16_res) else None,
        )
        for k in range(doublings + 1)
    }


def halved(owner: str, img_resolution: Resolution) -> tuple[int, int, int]:
    """The (height, width) to which pictures halve while the shorter side stays at 4 or more, and how often they do.

    Raises:
        TypeError, ValueError: a side that is no int, or pictures that do not halve so.
    """
    return check_halved(f"{owner}: img_resolution", check_resolution(owner, img_resolution))
