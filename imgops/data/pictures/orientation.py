"""Reads the orientation of a picture apart from the rest of its metadata, which may be damaged."""

from __future__ import annotations

import re
import struct
from typing import Any

from PIL import Image

_ORIENTATION = 0x0112
#: the transpose that turns each orientation upright
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: struct's codes for the TIFF types that can hold a small integer
_TYPES = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l"}
_XMP = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])")


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The picture turned as its EXIF orientation, 1 to 8, says."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def read_orientation(image: Image.Image) -> int:
    """The orientation in a picture's EXIF, or else in its XMP; 1 if there is none. Damaged metadata count as none."""
    found = _of_tiff(image.tag_v2) if hasattr(image, "tag_v2") else _of_exif(_exif_bytes(image.info))
    return found or _of_xmp(image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")) or 1


def ignore_exif(image: Image.Image) -> None:
    """Empty Pillow's copy of the EXIF, by which its TIFF decoder would turn the picture, and fail on an odd tag."""
    exif = image.getexif()
    for tag in list(exif):
        del exif[tag]


def _of_tiff(tags: Any) -> int | None:
    try:
        value = tags.get(_ORIENTATION)
    except Exception:
        # Pillow's conversion of a damaged tag may raise anything
        return None
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) and value in range(1, 9) else None


def _exif_bytes(info: dict[Any, Any]) -> bytes:
    exif = info.get("exif")
    text = info.get("Raw profile type exif")
    if exif is None and isinstance(text, str):
        # ImageMagick stores EXIF in a PNG as text: a name, a length, hexadecimal digits
        digits = re.sub(r"[^0-9a-fA-F]", "", "".join(text.split("\n")[3:]))
        exif = bytes.fromhex(digits[: len(digits) // 2 * 2])
    return exif if isinstance(exif, bytes) else b""


def _of_exif(exif: bytes) -> int | None:
    """The tag read from its place in the first directory, so that no other damaged entry matters."""
    start = re.search(rb"II\*\0|MM\0\*", exif[:64])
    if start is None:
        return None
    data, order = exif[start.start() :], "<" if exif[start.start()] == ord("I") else ">"
    try:
        (directory,) = struct.unpack_from(order + "L", data, 4)
        (count,) = struct.unpack_from(order + "H", data, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, _ = struct.unpack_from(order + "HHL", data, entry)
            if tag == _ORIENTATION:
                (value,) = struct.unpack_from(order + _TYPES[kind], data, entry + 8)
                return value if value in range(1, 9) else None
    except (struct.error, KeyError):
        # truncated, or not an integer
        return None
    return None


def _of_xmp(xmp: Any) -> int | None:
    found = _XMP.search(xmp.encode() if isinstance(xmp, str) else xmp) if isinstance(xmp, (str, bytes)) else None
    return int(found[1]) if found else None
