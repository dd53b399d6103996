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
from PIL import ExifTags, Image, PngImagePlugin
from torch import Tensor

from .._settings import QUALITY
from ._errors import DataError, decoding
from ._images import deep_grey, to_plain
from ._profiles import srgb_profile
from ._reading import load_image, open_image
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
#: Pillow's name of the format for each ending
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
#: the tags of TIFF and EXIF that hold a description and the software's name
_DESCRIPTION, _SOFTWARE = 270, 305
#: measured bytes per pixel that reading takes: decoded, converted, 8-bit and float values, and an alpha
_BYTES = 30


class Picture(NamedTuple):
    """A picture in memory: float32 pixels [3, H, W], RGB in [0, 1]; alpha [1, H, W] if it has one; its source."""

    pixels: Tensor
    alpha: Tensor | None
    name: str


def read_picture(source: str | Path) -> Picture:
    """Read a picture: a file of any format that Pillow decodes, upright by its EXIF orientation, or a sample.

    Args:
        source: a path, or ``samples:`` and a name of :data:`SAMPLES`.

    Returns:
        sRGB, by the file's ICC profile if it has one; from grey, palettes, CMYK and transparency too. 16-bit grey keeps
        all its bits, other 16-bit pictures the high 8. Of 32-bit integers up to 255 that is white, else 65535.
        Transparent pixels keep their colour, and the alpha stands beside.

    Raises:
        OSError: the file cannot be opened.
        DataError: it is no picture, a damaged one, one too large for the memory, or its pixels are floating-point
            numbers or integers beyond 16 bits; or there is no such sample.

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
        image = load_image(file, name, _BYTES)
    if image.mode == "I;16":
        levels, mask = deep_grey(image, name)
        return Picture(torch.from_numpy(levels).expand(3, -1, -1).contiguous(), _opacity(mask), name)
    image = to_plain(image, name)
    mask = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    values = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    return Picture(torch.empty(values.shape).copy_(values).div_(255), _opacity(mask), name)


def _opacity(mask: Image.Image | None) -> Tensor | None:
    return None if mask is None else torch.from_numpy(np.array(mask))[None].float() / 255


def fill_hidden(pixels: Tensor, alpha: Tensor | None) -> Tensor:
    """Fill the hidden pixels of a picture with the colors of visible ones around, weighted by how visible these are.

    Files often hold black or white where they are transparent, which a network would take for a part of the picture.

    Args:
        pixels: [3, H, W].
        alpha: [1, H, W] in [0, 1]; a pixel with 0 is hidden. None: no pixel is.

    Returns:
        [3, H, W]: visible pixels are as they were; if all are hidden, mid-grey.

    Raises:
        ValueError: an alpha of another size.

    >>> fill_hidden(torch.tensor([[[0.25, 1.0]]]).expand(3, -1, -1), torch.tensor([[[1.0, 0.0]]]))[0]
    tensor([[0.2500, 0.2500]])
    """
    if alpha is None:
        return pixels
    if alpha.shape != (1, *pixels.shape[1:]):
        raise ValueError(
            f"fill_hidden: alpha must be {(1, *pixels.shape[1:])} as the picture; got {tuple(alpha.shape)}"
        )
    if not alpha.any():
        return torch.full_like(pixels, 0.5)
    return torch.where(alpha > 0, pixels, _around(pixels * alpha, alpha)) if not alpha.all() else pixels


def _around(coloured: Tensor, alpha: Tensor) -> Tensor:
    """Colours [3, H, W] from those times alpha: where none are, of windows twice as large, and so on."""
    if not alpha.all():
        halves = (F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) for x in (coloured, alpha))
        coarse = _around(*halves)
        far = F.interpolate(coarse[None], coloured.shape[1:], mode="bilinear", align_corners=False)[0]
        return torch.where(alpha > 0, coloured / alpha.clamp(min=1e-12), far)
    return coloured / alpha


def write_picture(
    path: str | Path,
    pixels: Tensor,
    *,
    alpha: Tensor | None = None,
    settings: Mapping[str, Any] | None = None,
    quality: int = QUALITY,
) -> None:
    """Write a picture as PNG, JPEG or TIFF by the ending of its name; the file is whole or absent.

    It says that it is sRGB, but for a grey TIFF, for which there is no profile.

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
        pixels = pixels * alpha + (1 - alpha) if format == "JPEG" else torch.cat([pixels, alpha])
    values = (pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    # of two channels, grey and alpha
    image = Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
    buffer = io.BytesIO()
    image.save(buffer, format, **_options(format, image.mode == "L", settings, quality))
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


def png_info(settings: Mapping[str, Any] | None) -> PngImagePlugin.PngInfo:
    """What a PNG says beside its pixels: that they are sRGB, and the settings, for :func:`read_settings`."""
    info = PngImagePlugin.PngInfo()
    # rendering intent 0: perceptual
    info.add(b"sRGB", b"\0")
    if settings is not None:
        info.add_text("Software", "imgops")
        info.add_text("imgops", json.dumps(dict(settings), ensure_ascii=True))
    return info


def _options(format: str, grey: bool, settings: Mapping[str, Any] | None, quality: int) -> dict[str, Any]:
    """What Pillow writes besides the pixels: that they are sRGB, and the settings."""
    if format == "PNG":
        return {"pnginfo": png_info(settings)}
    text = None if settings is None else json.dumps(dict(settings), ensure_ascii=True)
    if format == "TIFF":
        tags = {} if text is None else {_DESCRIPTION: text, _SOFTWARE: "imgops"}
        # a TIFF compressed by libtiff holds no EXIF; there is no profile for grey
        return {"compression": "tiff_deflate", "tiffinfo": tags, "icc_profile": None if grey else srgb_profile()}
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


def resize_picture(pixels: Tensor, size: int) -> Tensor:
    """The picture with its longer side at ``size`` pixels, its shape kept: [C, H, W] -> [C, H', W'], bicubic.

    Raises:
        ValueError: a size below 1.

    >>> resize_picture(torch.rand(3, 300, 450), 150).shape
    torch.Size([3, 100, 150])
    """
    if size < 1:
        raise ValueError(f"resize_picture: size must be >= 1; got {size}")
    return resample_picture(pixels, *resized_shape(pixels, size))


def resized_shape(pixels: Tensor, size: int) -> tuple[int, int]:
    """Height and width of a picture [C, H, W] with its longer side at ``size`` pixels.

    >>> resized_shape(torch.rand(3, 300, 450), 150)
    (100, 150)
    """
    height, width = pixels.shape[1:]
    longer = max(height, width)
    return max(1, round(height * size / longer)), max(1, round(width * size / longer))


def resample_picture(pixels: Tensor, height: int, width: int) -> Tensor:
    """The picture at another height and width: [C, H, W] -> [C, height, width] of its dtype, bicubic, in [0, 1].

    >>> resample_picture(torch.rand(1, 30, 45), 10, 20).shape
    torch.Size([1, 10, 20])
    """
    same = pixels.shape[1:] == (height, width)
    return pixels if same else resample(pixels, height, width).clamp(0, 1)


def resample(values: Tensor, height: int, width: int) -> Tensor:
    """Values [C, H, W] at another height and width, bicubic, not clipped to any range, in their dtype."""
    if values.shape[1:] == (height, width):
        return values
    # PyTorch has no bicubic filter in half precision on a CPU
    exact = values if values.dtype == torch.float64 else values.float()
    resized = F.interpolate(exact[None], (height, width), mode="bicubic", antialias=True, align_corners=False)
    return resized[0].to(values.dtype)
