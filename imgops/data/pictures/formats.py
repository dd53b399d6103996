"""Which endings of file names belong to pictures: those of the formats that Pillow can decode here."""

from __future__ import annotations

import functools

from PIL import EpsImagePlugin, Image, features

#: formats that Pillow recognizes but cannot decode without other programs
_NAMED_ONLY = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
#: formats that need a library which a build of Pillow may lack, with Pillow's name of the feature
_FEATURES = {"AVIF": "avif", "JPEG": "jpg", "JPEG2000": "jpg_2000", "MPO": "jpg", "PNG": "zlib", "WEBP": "webp"}


def picture_suffixes() -> frozenset[str]:
    """The endings of names, in lower case with the dot, of the formats that Pillow can decode here.

    Formats that it only writes (PDF) are left out; those that a plugin adds, such as pillow-heif's, are included.
    """
    return frozenset(suffix for suffix, format in Image.registered_extensions().items() if _decodes(format))


@functools.cache
def _decodes(format: str) -> bool:
    # MPO is several JPEGs in one file, and is opened as a JPEG
    if format in _NAMED_ONLY or ("JPEG" if format == "MPO" else format) not in Image.OPEN:
        return False
    if format == "EPS":
        return EpsImagePlugin.has_ghostscript()
    return format not in _FEATURES or bool(features.check(_FEATURES[format]))
