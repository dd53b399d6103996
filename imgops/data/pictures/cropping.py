"""Which part of a picture is kept where another shape is wanted, and its resizing."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image


class Box(NamedTuple):
    """A part of a picture, in its pixels."""

    left: int
    top: int
    width: int
    height: int


def largest(size: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Width and height of the largest part of a picture of ``size`` (width, height) that has the shape of ``height`` x
    ``width``.

    >>> largest((300, 200), 48, 64), largest((300, 200), 64, 64)
    ((267, 200), (200, 200))
    """
    if size[0] * height >= size[1] * width:
        return max(1, round(size[1] * width / height)), size[1]
    return size[0], max(1, round(size[0] * height / width))


def center_box(size: tuple[int, int], height: int, width: int) -> Box:
    """The largest box of a shape, in the middle of a picture of ``size`` (width, height).

    >>> center_box((300, 200), 64, 64)
    Box(left=50, top=0, width=200, height=200)
    """
    w, h = largest(size, height, width)
    return Box((size[0] - w) // 2, (size[1] - h) // 2, w, h)


def tall_box(size: tuple[int, int], height: int, width: int) -> Box:
    """The largest box of a shape: of a picture that is taller the upper part, of one that is wider the middle.

    >>> tall_box((200, 300), 64, 64)
    Box(left=0, top=0, width=200, height=200)
    """
    w, h = largest(size, height, width)
    return Box((size[0] - w) // 2, 0, w, h)


def box_around(
    size: tuple[int, int], part: tuple[float, float, float, float], margin: float, height: int, width: int
) -> Box | None:
    """The box of a shape around a part of a picture, moved and, where it does not fit, reduced to lie inside.

    Args:
        size: width and height of the picture.
        part: left, top, width and height.
        margin: how much more is kept on each side, as a share of the part.
        height, width: of the shape.

    Returns:
        The box; None where the part lies outside.

    >>> box_around((300, 200), (100, 50, 40, 20), 0.25, 64, 64)
    Box(left=90, top=30, width=60, height=60)
    """
    left, top, w, h = part
    if left >= size[0] or top >= size[1] or left + w <= 0 or top + h <= 0:
        return None
    middle = left + w / 2, top + h / 2
    # the least box of the shape that holds the part with its margin, if it fits
    scale = max(w * (1 + 2 * margin) / width, h * (1 + 2 * margin) / height)
    scale = min(scale, size[0] / width, size[1] / height)
    w, h = max(1, round(scale * width)), max(1, round(scale * height))
    places = [min(max(round(m - s / 2), 0), whole - s) for m, s, whole in zip(middle, (w, h), size, strict=True)]
    return Box(places[0], places[1], w, h)


def cut(image: Image.Image, box: Box, height: int, width: int) -> Image.Image:
    """A box of a picture, resized by Lanczos with antialiasing to ``height`` x ``width``."""
    # Pillow's crop is not used, as it enforces a limit of pixels
    part = Image.new(image.mode, (box.width, box.height))
    part.paste(image, (-box.left, -box.top))
    return part.resize((width, height), Image.Resampling.LANCZOS)
