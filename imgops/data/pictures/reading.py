"""Reads single pictures: of any size and format, gray, with transparency, turned by EXIF."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .._errors import DataError
from .conversion import deep_gray, to_plain
from .decoding import load_image
from .samples import PREFIX, SAMPLES, load_sample

#: bytes per pixel that reading was measured to take: decoded, converted, 8-bit and float values, and an alpha
_BYTES = 30


class Picture(NamedTuple):
    """A picture in memory: float32 pixels [3, H, W], RGB in [0, 1]; alpha [1, H, W] or None; the name of its source."""

    pixels: Tensor
    alpha: Tensor | None
    name: str


def read_picture(source: str | Path) -> Picture:
    """Read a picture: a file of any format that Pillow decodes, upright by its EXIF orientation, or a sample.

    Args:
        source: a path, or ``samples:`` and a name of :data:`SAMPLES`.

    Returns:
        The picture in sRGB, converted by the file's ICC profile if it has one; gray, palettes and CMYK become RGB.
        16-bit gray keeps all its bits, other 16-bit pictures their high 8. In a picture of 32-bit integers white is the
        smallest of 1, 255 and 65535 that no value exceeds. Transparent pixels keep their color, and the alpha is
        returned beside them.

    Raises:
        OSError: the file cannot be opened.
        DataError: the file is no picture, is damaged, is too large for the memory, or has pixels of floating-point
            numbers or of integers beyond 16 bits; or there is no such sample.

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
        levels, mask = deep_gray(image, name)
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
        [3, H, W], visible pixels unchanged; mid-gray if all are hidden.

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


def _around(weighted: Tensor, alpha: Tensor) -> Tensor:
    """Colors [3, H, W] from those times alpha; where alpha is 0, they are interpolated from means of larger windows."""
    if not alpha.all():
        halves = (F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) for x in (weighted, alpha))
        coarse = _around(*halves)
        far = F.interpolate(coarse[None], weighted.shape[1:], mode="bilinear", align_corners=False)[0]
        return torch.where(alpha > 0, weighted / alpha.clamp(min=1e-12), far)
    return weighted / alpha
