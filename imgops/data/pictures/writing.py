"""Writes single pictures, with the settings that made them in their metadata, and reads these settings."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import ExifTags, Image, PngImagePlugin
from torch import Tensor

from ..._settings import QUALITY
from .._errors import decoding
from ..files import write_file
from ._profiles import srgb_profile
from .decoding import open_image

#: Pillow's name of the format for each ending
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
#: the tags of TIFF and EXIF that hold a description and the software's name
_DESCRIPTION, _SOFTWARE = 270, 305


def write_picture(
    path: str | Path,
    pixels: Tensor,
    *,
    alpha: Tensor | None = None,
    settings: Mapping[str, Any] | None = None,
    quality: int = QUALITY,
) -> None:
    """Write a picture as PNG, JPEG or TIFF by the ending of its name; the file is whole or absent.

    The file is marked as sRGB, except a gray TIFF, for which there is no profile.

    Args:
        path: ends in .png, .jpg, .jpeg, .tif or .tiff; its folder is made.
        pixels: [3, H, W] or [1, H, W], RGB or gray; values beyond [0, 1] are clipped.
        alpha: [1, H, W] in [0, 1], which PNG and TIFF keep; JPEG lays the picture over white.
        settings: what made the picture, stored as JSON in its metadata; :func:`read_settings` returns it.
        quality: of a JPEG, 1 to 100. Default 95.

    Raises:
        OSError: it cannot be written.
        ValueError: the path has another ending, the shape is not that of a picture, or the quality is out of range.
    """
    path = Path(path)
    format = picture_format(path)
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or pixels.numel() == 0:
        raise ValueError(f"write_picture: pixels must be [3, H, W] or [1, H, W]; got {tuple(pixels.shape)}")
    if alpha is not None and alpha.shape != (1, *pixels.shape[1:]):
        raise ValueError(f"write_picture: alpha must be [1, H, W] of the picture's size; got {tuple(alpha.shape)}")
    if not 1 <= quality <= 100:
        raise ValueError(f"write_picture: quality must be 1 to 100; got {quality}")
    pixels = pixels.detach().float().cpu()
    if alpha is not None:
        alpha = alpha.detach().float().cpu()
        pixels = pixels * alpha + (1 - alpha) if format == "JPEG" else torch.cat([pixels, alpha])
    values = (pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    # an image of two channels is gray with alpha
    image = Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
    buffer = io.BytesIO()
    image.save(buffer, format, **_options(format, image.mode == "L", settings, quality))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, buffer.getvalue())


def picture_format(path: str | Path) -> str:
    """Pillow's name of the format that a name's ending asks for.

    Raises:
        ValueError: no format that is written has this ending.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"{path}: pictures are written as {', '.join(FORMATS)}; got {suffix or 'no ending'!r}")
    return FORMATS[suffix]


def png_info(settings: Mapping[str, Any] | None) -> PngImagePlugin.PngInfo:
    """The metadata of a PNG: that its pixels are sRGB, and the settings, which :func:`read_settings` returns."""
    info = PngImagePlugin.PngInfo()
    # rendering intent 0: perceptual
    info.add(b"sRGB", b"\0")
    if settings is not None:
        info.add_text("Software", "imgops")
        info.add_text("imgops", json.dumps(dict(settings), ensure_ascii=True))
    return info


def _options(format: str, gray: bool, settings: Mapping[str, Any] | None, quality: int) -> dict[str, Any]:
    """Pillow's options for writing a picture that is marked as sRGB and holds the settings."""
    if format == "PNG":
        return {"pnginfo": png_info(settings)}
    text = None if settings is None else json.dumps(dict(settings), ensure_ascii=True)
    if format == "TIFF":
        tags = {} if text is None else {_DESCRIPTION: text, _SOFTWARE: "imgops"}
        # a TIFF compressed by libtiff holds no EXIF; there is no profile for gray
        return {"compression": "tiff_deflate", "tiffinfo": tags, "icc_profile": None if gray else srgb_profile()}
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] = 1
    if text is not None:
        exif[_DESCRIPTION], exif[_SOFTWARE] = text, "imgops"
    return {"quality": quality, "subsampling": 0, "exif": exif}


def read_settings(path: str | Path) -> dict[str, Any] | None:
    """The settings that :func:`write_picture` put into a picture, or None if there are none.

    Raises:
        OSError: the file cannot be read.
        DataError: it is no picture.
    """
    with open(path, "rb") as file, decoding(str(path)):
        image = open_image(file)
        text = image.info.get("imgops")
        if text is None and image.getexif().get(_SOFTWARE) == "imgops":
            text = image.getexif().get(_DESCRIPTION)
        return None if text is None else json.loads(text)
