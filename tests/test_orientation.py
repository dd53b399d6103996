"""The turn that a picture's metadata ask for, whatever else they hold and wherever they stand."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features
from torch import Tensor

from imgops.data import read_frames, read_picture
from tests.picture_files import ASCII, ODD_EXIF, RATIONAL, RESOLUTION_AS_TEXT, SHORT, corner, exif, readers, turned


def red(pixels: Tensor) -> tuple[float, float]:
    """The middle (down, right) of what is red, in pixels."""
    return tuple(float(i) for i in (pixels[1] < 0.5).nonzero().float().mean(0))


@pytest.mark.parametrize("tags", ODD_EXIF.values(), ids=ODD_EXIF)
@readers
def test_the_orientation_is_read_whatever_else_the_tags_hold(read, tags, tmp_path):
    corner().save(tmp_path / "a.jpg", exif=tags, quality=100, subsampling=0)
    # a quarter to the right: the top left goes to the top right
    assert red(read(tmp_path / "a.jpg")) == (1.5, 6.5)


@pytest.mark.parametrize(
    "tags", [b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0junk" * 9, exif(turned(99)), exif(turned(0))]
)
@readers
def test_without_a_readable_orientation_a_picture_stays_as_it_is(read, tags, tmp_path):
    corner().save(tmp_path / "a.jpg", exif=tags, quality=100, subsampling=0)
    assert red(read(tmp_path / "a.jpg")) == (0.5, 1.5)


def keep_in_tiff(path: Path) -> None:
    """An orientation, and a resolution as text, among the tags of the TIFF itself."""
    corner().save(path, tiffinfo={0x0112: 6}, dpi=(72, 72))
    content = bytearray(path.read_bytes())
    # the type of XResolution becomes ASCII
    place = content.index(struct.pack("<HHL", 0x011A, RATIONAL, 1))
    content[place + 2] = ASCII
    path.write_bytes(content)


def keep_in_avif(path: Path) -> None:
    """A tag that Pillow's plugin cannot write again, and tries to, as the EXIF and the picture's own turn differ."""
    tags = exif((0x0113, SHORT, 1, struct.pack("<H", 3)), RESOLUTION_AS_TEXT)
    corner().transpose(Image.Transpose.ROTATE_270).save(path, exif=tags, quality=100, subsampling="4:4:4")
    path.write_bytes(path.read_bytes().replace(struct.pack("<HH", 0x0113, SHORT), struct.pack("<HH", 0x0112, SHORT)))


def keep_in_xmp(path: Path) -> None:
    corner().save(
        path, xmp=b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>', quality=100, subsampling=0
    )


PLACES = {
    "a.png": lambda path: corner().save(path, exif=exif(turned(), RESOLUTION_AS_TEXT)),
    "a.webp": lambda path: corner().save(path, exif=exif(turned(), RESOLUTION_AS_TEXT), lossless=True),
    "a.tiff": keep_in_tiff,
    "a.jpg": keep_in_xmp,
    "a.avif": keep_in_avif,
}


@pytest.mark.parametrize("name", PLACES)
@readers
def test_the_orientation_is_found_in_every_format(read, name, tmp_path):
    if name == "a.avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    PLACES[name](tmp_path / name)
    assert red(read(tmp_path / name)) == (1.5, 6.5)


@pytest.mark.parametrize("value", range(1, 9))
def test_all_orientations_are_those_of_pillow(value, tmp_path):
    corner().save(tmp_path / "a.png", exif=exif(turned(value)))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    assert ((read_picture(tmp_path / "a.png").pixels * 255).round().byte().permute(1, 2, 0).numpy() == expected).all()


def test_frames_are_turned_too(tmp_path):
    frames = [corner(), corner()]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], exif=exif(turned()), lossless=True)
    assert [red(frame) for frame in read_frames(tmp_path / "a.webp")][:1] == [(1.5, 6.5)]
