"""Pictures as files have them, for tests: every way to read them, and metadata that are odd."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from imgops.data import ImageFolder, read_picture
from imgops.data.datasets.crops import RandomCrops

#: every way from a file to RGB in [0, 1], of a picture of 8 x 8 pixels: [3, 8, 8]
READERS: dict[str, Callable[[Path], Tensor]] = {
    "picture": lambda path: read_picture(path).pixels,
    "training": lambda path: ImageFolder(path.parent, 8)[0][0] / 255,
    "crops": lambda path: RandomCrops(path.parent, 16)._draw(np.random.default_rng(0)) / 255,
}
readers = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


def corner(size: int = 8) -> Image.Image:
    """Red at the top left of white: each of the eight orientations looks different from most others."""
    image = Image.new("RGB", (size, size), "white")
    image.paste((255, 0, 0), (0, 0, size // 2, size // 4))
    return image


LONG, SHORT, ASCII, RATIONAL = 4, 3, 2, 5


def exif(*entries: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    """A TIFF header and one directory of (tag, type, count, four bytes)."""
    body = b"".join(struct.pack(order + "HHL", *entry[:3]) + entry[3].ljust(4, b"\0") for entry in entries)
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "L", 8)
    return b"Exif\0\0" + head + struct.pack(order + "H", len(entries)) + body + bytes(4)


def turned(value: int = 6, kind: int = SHORT, order: str = "<") -> tuple[int, int, int, bytes]:
    return 0x0112, kind, 1, struct.pack(order + {SHORT: "H", LONG: "L", 1: "B"}[kind], value)


RESOLUTION_AS_TEXT = (0x011A, ASCII, 3, b"72\0")
ODD_EXIF = {
    "text for a ratio": exif(turned(), RESOLUTION_AS_TEXT),
    "big-endian": exif(turned(order=">"), (0x011A, ASCII, 3, b"72\0"), order=">"),
    "as long": exif(turned(kind=LONG)),
    "as byte": exif(turned(kind=1)),
    "unknown type": exif((0x010F, 99, 1, b"abcd"), turned()),
    "huge count": exif((0x010F, ASCII, 2**31, b"\xff\xff\xff\x7f"), turned()),
    "offset beyond the end": exif((0x010F, ASCII, 400, struct.pack("<L", 9999)), turned()),
    "directory cut off": exif(turned(), RESOLUTION_AS_TEXT)[:-9],
    "count of entries too large": exif(turned())[:14] + b"\xff\xff" + exif(turned())[16:],
    "lists and no numbers": exif(turned(), (0x011A, RATIONAL, 1, struct.pack("<L", 26)), (0x8769, ASCII, 2, b"x")),
}
