"""What families share: the choice of resolutions, widths and precisions."""

from __future__ import annotations

from typing import Any

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


def levels(owner: str, img_resolution: Resolution) -> dict[int, tuple[int, int]]:
    """The (height, width) of each level, the smallest first, by the number that names it: 4, 8, 16, ...

    Of square images whose side is a power of two the number is the side.

    Raises:
        TypeError, ValueError: the images are not of a shape that a start doubles to at least once.
    """
    img_resolution = check_resolution(owner, img_resolution)
    check_grown(f"{owner}: img_resolution", img_resolution)
    height, width, doublings = start_shape(*shape_of(img_resolution))
    return {4 * 2**k: (height * 2**k, width * 2**k) for k in range(doublings + 1)}


def halved(owner: str, img_resolution: Resolution) -> tuple[int, int, int]:
    """The (height, width) to which pictures halve while the shorter side stays at 4 or more, and how often they do.

    Raises:
        TypeError, ValueError: a side that is no int, or pictures that do not halve so.
    """
    return check_halved(f"{owner}: img_resolution", check_resolution(owner, img_resolution))


def channels_at(channel_base: int, channel_max: int, resolution: int) -> int:
    """``min(channel_base / resolution, channel_max)``, at least 1."""
    return max(1, min(channel_base // resolution, channel_max))


def half_resolutions(owner: str, all_resolutions: list[int], num_fp16_res: int, half_dtype: Any) -> list[int]:
    """The ``num_fp16_res`` highest resolutions, never 4x4; raise for a bad number or dtype."""
    num_fp16_res = check_size(owner, "num_fp16_res", num_fp16_res, minimum=0)
    check_half_dtype(owner, half_dtype)
    return all_resolutions[1:][::-1][:num_fp16_res]
