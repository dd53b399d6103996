"""Single pictures in and out: any size, grey, with transparency, turned by EXIF, with settings in their metadata."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, PngImagePlugin
from torch import Tensor

from ._images import DataError, load_image, to_channels
from .files import write_file
from .samples import PREFIX, load_sample

#: free pictures that need no download, by the names that follow ``samples:``
SAMPLES = {
    "astronaut": "astronaut",
    "brick": "brick",
    "camera": "camera",
    "chelsea": "chelsea",
    "coffee": "coffee",
    "grass": "grass",
    "gravel": "gravel",
    "hubble": "hubble_deep_field",
    "retina": "retina",
    "rocket": "rocket",
}
#: how Pillow calls the format of each ending
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
#: the tags of TIFF and EXIF that hold a description and the software's name
_DESCRIPTION, _SOFTWARE = 270, 305


class Picture(NamedTuple):
    """A picture in memory: float32 pixels [3, H, W], RGB in [0, 1]; alpha [1, H, W] if it has one; its source."""

    pixels: Tensor
    alpha: Tensor | None
    name: str


def read_picture(source: str | Path) -> Picture:
    """Read a picture: a file of any format that Pillow knows, upright by its EXIF orientation, or a sample.

    Args:
        source: a path, or ``samples:`` and a name of :data:`SAMPLES`.

    Returns:
        RGB from grey, palettes, CMYK and transparency too. 16-bit grey keeps all its bits, other 16-bit pictures the
        high 8. Transparent pixels keep their colour, and the alpha stands beside.

    Raises:
        OSError: the file cannot be read.
        DataError: it is no picture, or a damaged one; or there is no such sample.

    >>> read_picture("samples:chelsea").pixels.shape
    torch.Size([3, 300, 451])
    """
    name = str(source)
    if name.startswith(PREFIX):
        sample = name.removeprefix(PREFIX)
        if sample not in SAMPLES:
            raise DataError(f"{name}: no such sample; there are {', '.join(map(PREFIX.__add__, SAMPLES))}")
        return Picture(load_sample(SAMPLES[sample]).float() / 255, None, name)
    with open(source, "rb") as file:
        if not file.read(1):
            raise DataError(f"{name}: the file is empty")
        file.seek(0)
        image = load_image(file, name)
    if image.mode.startswith("I"):
        # which raises for more than 16 bits
        to_channels(image, 1, name)
        pixels = torch.from_numpy(np.asarray(image).astype(np.float32) / 65535)
        return Picture(pixels.expand(3, -1, -1).contiguous(), None, name)
    channels = 4 if image.has_transparency_data else 3
    values = torch.from_numpy(np.array(to_channels(image, channels, name))).permute(2, 0, 1).float() / 255
    return Picture(values[:3].contiguous(), values[3:].contiguous() if channels == 4 else None, name)


def write_picture(
    path: str | Path,
    pixels: Tensor,
    *,
    alpha: Tensor | None = None,
    settings: Mapping[str, Any] | None = None,
    quality: int = 95,
) -> None:
    """Write a picture as PNG, JPEG or TIFF by the ending of its name; the file is whole or absent.

    Args:
        path: ends in .png, .jpg, .jpeg, .tif or .tiff; its folder is made.
        pixels: [3, H, W] or [1, H, W], RGB or grey in [0, 1]; what is beyond is clipped.
        alpha: [1, H, W] in [0, 1], which PNG and TIFF keep; JPEG lays the picture over white.
        settings: what made the picture, kept as JSON in its metadata: :func:`read_settings` gives it back.
        quality: of JPEG, 1 to 100. Default 95.

    Raises:
        OSError: it cannot be written.
        ValueError: another ending, a shape that is none of a picture, or a quality out of range.
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
        pixels = pixels.expand(3, -1, -1)
        pixels = pixels * alpha + (1 - alpha) if format == "JPEG" else torch.cat([pixels, alpha])
    values = (pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
    buffer = io.BytesIO()
    image.save(buffer, format, **_options(format, settings, quality))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, buffer.getvalue())


def picture_format(path: str | Path) -> str:
    """Pillow's name of the format that a name's ending asks for.

    Raises:
        ValueError: none that is written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"{path}: pictures are written as {', '.join(FORMATS)}; got {suffix or 'no ending'!r}")
    return FORMATS[suffix]


def _options(format: str, settings: Mapping[str, Any] | None, quality: int) -> dict[str, Any]:
    text = None if settings is None else json.dumps(dict(settings), ensure_ascii=True)
    if format == "PNG":
        info = PngImagePlugin.PngInfo()
        if text is not None:
            info.add_text("Software", "imgops")
            info.add_text("imgops", text)
        return {"pnginfo": info}
    if format == "TIFF":
        tags = {} if text is None else {_DESCRIPTION: text, _SOFTWARE: "imgops"}
        return {"compression": "tiff_deflate", "tiffinfo": tags}
    exif = Image.Exif()
    if text is not None:
        exif[_DESCRIPTION], exif[_SOFTWARE] = text, "imgops"
    return {"quality": quality, "subsampling": 0, "exif": exif}


def read_settings(path: str | Path) -> dict[str, Any] | None:
    """The settings that :func:`write_picture` put into a picture, or None if there are none.

    Raises:
        OSError: the file cannot be read.
        DataError: it is no picture.
    """
    with open(path, "rb") as file:
        try:
            image = Image.open(file)
            text = image.info.get("imgops")
            if text is None and image.getexif().get(_SOFTWARE) == "imgops":
                text = image.getexif().get(_DESCRIPTION)
        except Image.UnidentifiedImageError:
            raise DataError(f"{path}: not a picture that Pillow can read") from None
    return None if text is None else json.loads(text)


def resize_picture(pixels: Tensor, size: int) -> Tensor:
    """The picture with its longer side at ``size`` pixels, its shape kept: [C, H, W] -> [C, H', W'], bicubic.

    Raises:
        ValueError: a size below 1.

    >>> resize_picture(torch.rand(3, 300, 450), 150).shape
    torch.Size([3, 100, 150])
    """
    if size < 1:
        raise ValueError(f"resize_picture: size must be >= 1; got {size}")
    h, w = pixels.shape[1:]
    new = [max(1, round(side * size / max(h, w))) for side in (h, w)]
    if new == [h, w]:
        return pixels
    return F.interpolate(pixels[None], new, mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)
