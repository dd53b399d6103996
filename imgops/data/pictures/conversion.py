"""Converts a picture of any mode to 8-bit pixels in sRGB with 1, 3 or 4 channels."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .._errors import DataError, decoding
from ._profiles import gray_table, to_srgb
from .cropping import Box, cut

#: Pillow's mode for each number of channels that a network may have
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def to_plain(image: Image.Image, name: str) -> Image.Image:
    """A picture of any mode in sRGB, with 8 bits per channel: L, LA, RGB or RGBA.

    16-bit gray keeps its high byte. Colors are converted by the file's ICC profile; CMYK without a profile, palettes
    and YCbCr become RGB by Pillow's formulas.

    Raises:
        DataError: the pixels are floating-point numbers, or of a mode that cannot be converted to RGB.
    """
    if image.mode == "F":
        raise DataError(f"{name}: its pixels are floating-point numbers; convert it to 8 or 16 bits per channel")
    with decoding(name):
        if image.mode == "I;16":
            values, alpha = deep_parts(image)
            return _with_alpha(to_srgb(_like(values >> 8, image), name), alpha)
        if image.has_transparency_data:
            image = image.convert("LA" if image.mode in ("LA", "La") else "RGBA")
            return _with_alpha(to_srgb(image.convert(image.mode[:-1]), name), image.getchannel("A"))
        if image.mode == "LAB":
            # the profile of a CMYK picture says nothing about the RGB that it becomes
            return image.convert("RGB")
        if image.mode not in ("L", "RGB", "CMYK"):
            image = image.convert("L" if image.mode == "1" else "RGB")
        return to_srgb(image, name)


def to_channels(image: Image.Image, channels: int, name: str) -> Image.Image:
    """A picture as of :func:`to_plain` in gray (1 channel), RGB (3) or RGBA (4). With 4 channels transparency is kept,
    else the picture is laid over white.

    Raises:
        DataError: as :func:`to_plain`.
    """
    image = to_plain(image, name)
    if channels != 4 and image.mode in ("LA", "RGBA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(MODES[channels])


def deep_gray(image: Image.Image, name: str) -> tuple[np.ndarray, Image.Image | None]:
    """A picture of mode "I;16" with all its bits, in sRGB: float32 [H, W] in [0, 1], and its alpha if it has one."""
    values, alpha = deep_parts(image)
    table = gray_table(_like(np.zeros([1, 1]), image), name)
    if table is None:
        return values.astype(np.float32) / 65535, alpha
    return np.interp(values, np.arange(256) * 257, table / 255).astype(np.float32), alpha


def deep_parts(image: Image.Image) -> tuple[np.ndarray, Image.Image | None]:
    """The values of a picture of mode "I;16", uint16 [H, W], and its alpha where one level is transparent."""
    values = np.asarray(image)
    level = image.info.get("transparency")
    return values, Image.fromarray(((values != level) * 255).astype(np.uint8)) if isinstance(level, int) else None


def _like(values: np.ndarray, image: Image.Image) -> Image.Image:
    """A gray picture with new values and the color profile of ``image``."""
    gray = Image.fromarray(values.astype(np.uint8))
    gray.info["icc_profile"] = image.info.get("icc_profile")
    return gray


def _with_alpha(image: Image.Image, alpha: Image.Image | None) -> Image.Image:
    if alpha is not None:
        image = image.copy()
        image.putalpha(alpha)
    return image


def to_tensor(image: Image.Image, box: Box, height: int, width: int) -> Tensor:
    """A box of a picture, resized by Lanczos; uint8 [C, height, width]."""
    pixels = torch.from_numpy(np.array(cut(image, box, height, width)))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()
