"""Converts the colors of a file's ICC profile to sRGB."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image

#: the color space that a profile must have to describe a picture of each mode
_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
#: a profile that changes no color by more than this, of 255, counts as sRGB: the difference is rounding
_SAME = 2
#: number of profiles whose transform is cached; a dataset has few
_KEPT = 32

Transform = Callable[[Image.Image], Image.Image]


def to_srgb(image: Image.Image, name: str) -> Image.Image:
    """A picture of mode L, RGB or CMYK in sRGB, by the profile in its ``info``: L or RGB.

    Gray stays gray. Without a profile gray and RGB are taken for sRGB, and CMYK is converted by Pillow's formula; the
    same happens, with a warning, where the profile is damaged or of another kind of picture.
    """
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        try:
            transform = _transform(profile, image.mode)
        except (OSError, ValueError, TypeError, ImportError) as error:
            # PyCMSError is an OSError only in some versions, and its text may have several lines
            reason = " ".join(str(error).split())[:80]
            warnings.warn(f"{name}: its color profile is ignored ({reason})", stacklevel=2)
        else:
            return transform(image)
    return image.convert("RGB") if image.mode == "CMYK" else image


def gray_table(image: Image.Image, name: str) -> np.ndarray | None:
    """The sRGB values of the levels 0 to 255 of a gray picture by its profile, uint8 [256]; None if they are the same.

    Values of finer levels are interpolated.
    """
    levels = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels.info["icc_profile"] = image.info.get("icc_profile")
    table = np.asarray(to_srgb(levels, name))[0]
    return None if np.array_equal(table, np.arange(256)) else table


@functools.cache
def srgb_profile() -> bytes | None:
    """A profile of sRGB to write into files, the same each time; None where Pillow was built without LittleCMS."""
    try:
        from PIL import ImageCms

        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    except ImportError:
        return None
    # the date is left out, so that the same profile is written each time
    return profile[:24] + bytes(12) + profile[36:]


@functools.lru_cache(_KEPT)
def _transform(profile: bytes, mode: str) -> Transform:
    """The transform of a picture of this mode from a profile's colors to sRGB.

    Raises:
        OSError, ValueError: the profile is damaged, or of another kind of picture.
        ImportError: Pillow was built without LittleCMS.
    """
    from PIL import ImageCms

    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    # some programs save gray pictures with the profile of their color pictures
    used = "RGB" if (mode, space) == ("L", "RGB") else mode
    if space != _SPACES[used]:
        raise ValueError(f"it is for {space}, and the picture is {mode}")
    # the table of grays is made once and may be exact; other pixels go through tables that LittleCMS optimizes
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION | (ImageCms.Flags.NOOPTIMIZE if mode == "L" else 0)
    try:
        built = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            used,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags,
        )
    except ImageCms.PyCMSError as error:
        raise ValueError(str(error)) from None
    sample = _sample(mode)
    converted = built.apply(sample.convert(used)).convert("L" if mode == "L" else "RGB")
    if mode == "L":
        table = np.asarray(converted)[0].tolist()
        same = max(abs(value - level) for level, value in enumerate(table)) <= _SAME
        return (lambda image: image) if same else (lambda image: image.point(table))
    if mode == "RGB" and np.abs(np.asarray(converted, int) - np.asarray(sample, int)).max() <= _SAME:
        return lambda image: image
    return built.apply


def _sample(mode: str) -> Image.Image:
    """Colors from the whole range, in one row: all grays, or a grid."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels = np.arange(0, 256, 51, dtype=np.uint8)
    colors = np.stack(np.meshgrid(*[levels] * len(mode), indexing="ij"), -1)
    return Image.frombytes(mode, (colors.size // len(mode), 1), colors.tobytes())
