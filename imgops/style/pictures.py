"""Styles as pictures, read from files."""

from __future__ import annotations

from ..data.pictures import Picture, fill_hidden
from ..data.stills import read_still


def read_style(name: str) -> Picture:
    """The picture of a style; its hidden pixels get the colors around them.

    Raises:
        OSError, ValueError: it cannot be read; nothing of it is visible.
    """
    picture = read_still(name)
    if picture.alpha is not None and not picture.alpha.any():
        raise ValueError(f"{name}: is transparent all over; a style needs something that can be seen")
    return picture._replace(pixels=fill_hidden(picture.pixels, picture.alpha))
