"""From whatever Pillow reads to 8-bit pixels with 1, 3 or 4 channels."""

from __future__ import annotations

import struct
import zlib
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

#: Pillow's mode for each number of channels that a network may have
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
#: what Pillow and its codecs raise on a file that is no picture, or a damaged one
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


class DataError(ValueError):
    """The data cannot be used; the message is one line that names the file."""


def load_image(file: IO[bytes], name: str) -> Image.Image:
    """Decode a picture (the first frame of an animation) and turn it upright by its EXIF orientation.

    Raises:
        DataError: it is no picture, or a damaged or truncated one; names the file.
    """
    try:
        image = Image.open(file)
    except Image.UnidentifiedImageError:
        raise DataError(f"{name}: not a picture that Pillow can read") from None
    except DAMAGE as error:
        raise DataError(f"{name}: damaged picture ({error})") from None
    try:
        image.load()
        return ImageOps.exif_transpose(image)
    except DAMAGE as error:
        raise DataError(f"{name}: damaged or truncated picture ({error})") from None


def to_channels(image: Image.Image, channels: int, name: str) -> Image.Image:
    """Convert to 8-bit grey (1 channel), RGB (3) or RGBA (4).

    16-bit grey keeps its high byte. Palettes, CMYK and YCbCr become RGB by Pillow's formulas, without colour
    profiles. Transparency is kept with 4 channels, else laid over white.

    Raises:
        DataError: floating-point pixels, integers beyond 16 bits, or a mode that has no way to RGB.
    """
    if image.mode.startswith("I"):
        pixels = np.asarray(image)
        if pixels.size and (pixels.min() < 0 or pixels.max() > 65535):
            raise DataError(f"{name}: its integer pixels exceed 16 bits; convert it to 8 or 16 bits a channel")
        image = Image.fromarray((pixels >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise DataError(f"{name}: its pixels are floating-point numbers; convert it to 8 or 16 bits a channel")
    try:
        if channels != 4 and image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert(MODES[channels])
    except ValueError as error:
        raise DataError(f"{name}: cannot convert its mode {image.mode} ({error})") from None


def to_tensor(image: Image.Image, resolution: int, side: int, left: int, top: int) -> Tensor:
    """The square of ``side`` pixels at (left, top), resized by Lanczos; uint8 [C, resolution, resolution]."""
    square = image.crop((left, top, left + side, top + side))
    pixels = torch.from_numpy(np.array(square.resize((resolution, resolution), Image.Resampling.LANCZOS)))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()
