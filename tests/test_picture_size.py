"""Large pictures: the limit is the memory, and small squares are decoded small."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imgops.data import DataError, ImageFolder, read_picture
from tests.picture_files import corner, readers


def flat(path: Path, size: tuple[int, int]) -> None:
    """A PNG of one level of gray, written without its pixels in memory."""
    rows, pressed = zlib.compressobj(1), b""
    for _ in range(size[1]):
        pressed += rows.compress(b"\0" + bytes(size[0]))

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))

    head = struct.pack(">LLBBBBB", *size, 8, 0, 0, 0, 0)
    content = chunk(b"IHDR", head) + chunk(b"IDAT", pressed + rows.flush()) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


@pytest.fixture
def small_limit(monkeypatch):
    """Pillow's limit at 1000 pixels, as a program may have set it."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    return 1000


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".webp", ".gif", ".bmp", ".ico"])
@pytest.mark.parametrize("size", [40, 100])
@readers
def test_the_limit_of_pillow_is_not_ours(read, size, suffix, tmp_path, small_limit, monkeypatch):
    path = tmp_path / f"a{suffix}"
    with monkeypatch.context() as context:
        context.setattr(Image, "MAX_IMAGE_PIXELS", None)
        corner(size).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(path).shape[0] == 3
    assert small_limit == Image.MAX_IMAGE_PIXELS


@readers
def test_a_picture_larger_than_the_memory_is_refused_with_the_remedy(read, tmp_path, monkeypatch, recwarn):
    flat(tmp_path / "large.png", (4000, 3000))
    monkeypatch.setenv("IMGOPS_PICTURE_GB", "0.1")
    with pytest.raises(DataError) as raised:
        read(tmp_path / "large.png")
    (said,) = [text for text in map(str, [raised.value, *(w.message for w in recwarn)]) if "large.png" in text]
    assert "4000 x 3000 pixels take 0." in said
    assert "set IMGOPS_PICTURE_GB" in said
    assert "damaged" not in said
    monkeypatch.setenv("IMGOPS_PICTURE_GB", "1")
    assert read(tmp_path / "large.png").max() == 0
    monkeypatch.setenv("IMGOPS_PICTURE_GB", "lots")
    with pytest.raises(ValueError, match="IMGOPS_PICTURE_GB must be a number of gigabytes, as in 8; got 'lots'"):
        read_picture(tmp_path / "large.png")


def test_the_limit_follows_the_free_memory(tmp_path, monkeypatch):
    flat(tmp_path / "large.png", (4000, 3000))
    monkeypatch.delenv("IMGOPS_PICTURE_GB", raising=False)
    monkeypatch.setattr("imgops.data.pictures.decoding.free_memory", lambda: 10**8)
    with pytest.raises(DataError, match=r"large\.png: 4000 x 3000 pixels take 0\.4 GB of memory, and 0\.1 are free"):
        read_picture(tmp_path / "large.png")
    # nobody knows
    monkeypatch.setattr("imgops.data.pictures.decoding.free_memory", lambda: None)
    assert read_picture(tmp_path / "large.png").pixels.shape == (3, 3000, 4000)


@pytest.mark.slow
def test_beyond_pillows_limit_as_it_is(tmp_path):
    flat(tmp_path / "a.png", (16320, 12240))
    before = Image.MAX_IMAGE_PIXELS
    assert ImageFolder(tmp_path, 8)[0][0].shape == (3, 8, 8)
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_jpeg_for_small_squares_is_decoded_small(tmp_path, monkeypatch):
    y, x = np.mgrid[:512, :768]
    image = Image.fromarray(np.stack([x / 3, y / 2, (x + y) / 5], -1).astype(np.uint8))
    image.save(tmp_path / "a.jpg", quality=98)
    from imgops.data.pictures import decoding

    sizes, kept = [], decoding.upright

    def note(image, orientation):
        sizes.append(image.size)
        return kept(image, orientation)

    monkeypatch.setattr(decoding, "upright", note)
    small = ImageFolder(tmp_path, 32)[0][0].float()
    assert sizes == [(96, 64)]
    whole = image.crop((128, 0, 640, 512)).resize((32, 32), Image.Resampling.LANCZOS)
    assert (small - torch.from_numpy(np.array(whole)).permute(2, 0, 1)).abs().max() < 4
