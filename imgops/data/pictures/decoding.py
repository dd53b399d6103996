"""Decodes pictures of any format within a limit of memory; every picture that is read is decoded here."""

from __future__ import annotations

import contextlib
import io
import os
import re
import threading
from collections.abc import Iterator
from typing import IO

import numpy as np
from PIL import Image

from ..._memory import free_memory
from .._errors import DataError, decoding
from .orientation import ignore_exif, read_orientation, upright

#: environment variable: how many GB of memory a picture may take, in place of all that is free
LIMIT = "IMGOPS_PICTURE_GB"
#: bytes per pixel that converting to 8 bits was measured to take: decoded, converted, and laid over white
BYTES = 19
#: bytes per pixel of the file that a decoder may take, however small its output is
_COEFFICIENTS = 3
#: pictures that take more bytes than this are decoded one at a time per process
_LARGE = 1 << 30
_ONE_AT_A_TIME = threading.RLock()
#: formats whose frames are views or layers of one picture
VIEWS = ("MPO", "PSD")
#: the key in a picture's ``info`` that is there where its file has more frames or pages, and it is the first
SEVERAL = "several frames"
#: TIFF's tag for the number of bits of each channel
_BITS = 258


def load_image(
    file: IO[bytes], name: str, bytes_per_pixel: int = BYTES, at_least: tuple[int, int] | None = None
) -> Image.Image:
    """Decode a picture (the first frame of an animation) and turn it upright by its EXIF orientation.

    Args:
        file: must be seekable.
        name: of the file, for messages.
        bytes_per_pixel: the memory that the caller takes for the picture in all.
        at_least: height and width that a part of it is resized to; a JPEG that is larger is not decoded in full.

    Returns:
        A picture in the mode that it was saved in; integers beyond 8 bits become mode "I;16", where 65535 is white. Its
        ``info`` has the key :data:`SEVERAL` where it is the first of several frames or pages.

    Raises:
        DataError: the file is no picture, is damaged or truncated, or is too large for the memory; names the file.
    """
    with decoding(name):
        try:
            return _decode(file, name, bytes_per_pixel, at_least)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            file.seek(0)
            with _raised_limit(bytes_per_pixel):
                return _decode(file, name, bytes_per_pixel, at_least)


def open_image(file: IO[bytes]) -> Image.Image:
    """``PIL.Image.open``, but an AVIF opens even if its EXIF is odd; to be called within ``decoding``."""
    try:
        return Image.open(file)
    except Exception as error:
        file.seek(0)
        content = file.read()
        # Pillow's plugin fails on odd EXIF tags; renamed to a kind that libavif does not know, they are ignored
        hidden = re.sub(rb"(infe.{8}(?:..)?)Exif", rb"\1none", content, flags=re.DOTALL)
        if content[4:8] == b"ftyp" and hidden != content:
            return open_image(io.BytesIO(hidden))
        if isinstance(error, Image.UnidentifiedImageError) and (format := _begins_as(content[:16])):
            raise SyntaxError(f"it begins as {format} does") from None
        raise


def _begins_as(start: bytes) -> str | None:
    """The format that a file seems to have by its first 16 bytes."""
    for format, (_, accepts) in Image.OPEN.items():
        # a plugin returns a text, not True, if this Pillow lacks its library
        if accepts is not None and len(start) == 16 and accepts(start) is True:
            return format
    return None


def _decode(file: IO[bytes], name: str, bytes_per_pixel: int, at_least: tuple[int, int] | None) -> Image.Image:
    image = open_image(file)
    # a decoder keeps all coefficients of a progressive JPEG, however small its output is
    whole = _COEFFICIENTS * image.width * image.height
    if at_least is not None and image.format in ("JPEG", "MPO"):
        # decode at twice the size, because the resizing that follows filters better than the decoder; both sides by the
        # longer one, as a picture may lie on its side
        image.draft(None, (2 * max(at_least), 2 * max(at_least)))
    needed = max(whole, bytes_per_pixel * image.width * image.height)
    with _ONE_AT_A_TIME if needed > _LARGE else contextlib.nullcontext():
        check_room(needed, f"{name}: {image.width} x {image.height} pixels")
        if image.format == "TIFF":
            orientation = read_orientation(image)
            ignore_exif(image)
            image.load()
        else:
            # a PNG may hold its EXIF after the pixels
            image.load()
            orientation = read_orientation(image)
    found = upright(_sixteen_bits(image, name) if image.mode.startswith("I") else image, orientation)
    if _goes_on(image, file):
        found.info[SEVERAL] = True
    return found


def _goes_on(image: Image.Image, file: IO[bytes]) -> bool:
    """Whether a file has frames or pages after the first, which is decoded."""
    if image.format == "GIF":
        # another one is asked, which may fail at damage after the first frame
        try:
            file.seek(0)
            return bool(Image.open(file).is_animated)  # type: ignore[attr-defined]
        except Exception:
            return False
    return image.format not in VIEWS and bool(getattr(image, "is_animated", False))


def _room() -> int | None:
    """Bytes that a picture may take; None if unknown.

    Raises:
        ValueError: the environment variable is no amount.
    """
    text = os.environ.get(LIMIT)
    if not text:
        return free_memory()
    try:
        return int(float(text) * 1e9)
    except (ValueError, OverflowError):
        raise ValueError(f"{LIMIT} must be a number of gigabytes, as in 8; got {text!r}") from None


def check_room(needed: int, what: str) -> None:
    """Raise if ``what`` would take more bytes than are free, or than the environment variable allows.

    Raises:
        DataError: it does not fit; the message says what to do.
    """
    # small pictures are not checked, since asking the system takes time
    if needed > _LARGE // 16 and (room := _room()) is not None and needed > room:
        raise DataError(
            f"{what} take {needed / 1e9:.1f} GB of memory, and {room / 1e9:.1f} are free: make it smaller, "
            f"or set {LIMIT} to the GB that it may take"
        )


@contextlib.contextmanager
def _raised_limit(bytes_per_pixel: int) -> Iterator[None]:
    """Raise Pillow's own limit of pixels, which its plugins look up, to what fits into memory."""
    with _ONE_AT_A_TIME:
        before, room = Image.MAX_IMAGE_PIXELS, _room()
        Image.MAX_IMAGE_PIXELS = None if room is None else room // bytes_per_pixel
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _sixteen_bits(image: Image.Image, name: str) -> Image.Image:
    """A picture of integers, scaled to 16 bits from the depth that the file states, or else from its largest value.

    Raises:
        DataError: values are negative or beyond 16 bits.
    """
    pixels = np.asarray(image)
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > 65535:
        raise DataError(f"{name}: its integer pixels are {low} to {high}, beyond 16 bits; convert it to 8 or 16 bits")
    white = _white(image, high)
    values = pixels if white == 65535 else pixels.astype(np.uint32) * 65535 // white
    scaled = Image.fromarray(values.astype(np.uint16))
    scaled.info = dict(image.info)
    if isinstance(level := image.info.get("transparency"), int):
        scaled.info["transparency"] = level * 65535 // white
    return scaled


def _white(image: Image.Image, highest: int) -> int:
    """The integer that means white."""
    bits = image.tag_v2.get(_BITS, (32,))[0] if image.format == "TIFF" else 16  # type: ignore[attr-defined]
    if image.mode == "I" and (bits > 16 or image.format not in ("TIFF", "PNG", "PPM")):
        # a 32-bit container says nothing about the range; its content is a mask, or had 8 or 16 bits
        return next(white for white in (1, 255, 65535) if highest <= white)
    return max((1 << bits) - 1, highest)
