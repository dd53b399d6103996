"""Damaged pictures end in one short line that names the file, whoever reads them."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from imgops.data import DataError, ImageFolder, read_picture
from tests.picture_files import ODD_EXIF, READERS, corner
from tests.profiles import DISPLAY_P3, cmyk_profile, rgb_profile


def written() -> dict[str, bytes]:
    """A small file of every format that Pillow writes and reads here."""
    Image.init()
    y, x = np.mgrid[:24, :32]
    color = Image.fromarray(np.stack([x * 8, y * 9, (x * y) % 256], -1).astype(np.uint8))
    files = {}
    for format in sorted(set(Image.SAVE) & set(Image.OPEN)):
        for image in (color, color.convert("P"), color.convert("L"), color.convert("F"), color.convert("1")):
            buffer = io.BytesIO()
            try:
                image.save(buffer, format)
            except (OSError, ValueError, KeyError, RuntimeError):
                continue
            files[format] = buffer.getvalue()
            break
    files |= {name: encode(color) for name, encode in VARIANTS.items()}
    return {name: content for name, content in files.items() if name not in ("EPS", "WMF")}


def encode(format: str, mode: str = "RGB", **options) -> Callable[[Image.Image], bytes]:
    def to_bytes(image: Image.Image) -> bytes:
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, format, **options)
        return buffer.getvalue()

    return to_bytes


VARIANTS = {
    "TIFF deflate": encode("TIFF", compression="tiff_deflate"),
    "TIFF LZW": encode("TIFF", compression="tiff_lzw"),
    "TIFF JPEG": encode("TIFF", compression="jpeg"),
    "TIFF CMYK": encode("TIFF", "CMYK", icc_profile=cmyk_profile({"C": (55, -37, -50)})),
    "PNG profile": encode("PNG", "RGBA", icc_profile=rgb_profile(DISPLAY_P3), exif=ODD_EXIF["text for a ratio"]),
    "PNG palette": encode("PNG", "P", transparency=bytes(range(0, 250, 10))),
    "JPEG profile": encode("JPEG", icc_profile=rgb_profile(DISPLAY_P3), exif=ODD_EXIF["big-endian"]),
    "JPEG CMYK": encode("JPEG", "CMYK"),
    "JPEG progressive": encode("JPEG", progressive=True),
    "WEBP lossless": encode("WEBP", "RGBA", lossless=True, exif=ODD_EXIF["as long"]),
}
FILES = written()


def damaged(content: bytes, seed: int, count: int) -> list[bytes]:
    """The content cut off, with bytes changed, with a part zeroed or lost, at places that the seed tells."""
    rng = random.Random(seed)
    results = [content[: len(content) * i // 12] for i in range(12)]
    for _ in range(count):
        changed = bytearray(content)
        # half of the changes in the head, where the sizes are
        within = len(content) if rng.random() < 0.5 else min(len(content), 200)
        start, length = rng.randrange(within), rng.choice((1, 1, 2, 4, 16, 100))
        kind = rng.randrange(4)
        if kind == 3:
            del changed[start : start + length]
        else:
            for place in range(start, min(start + length, len(content))):
                changed[place] = (rng.randrange(256), 0, 255)[kind]
        results.append(bytes(changed))
    return results


def is_refused(read: Callable[[Path], Tensor], path: Path) -> bool:
    try:
        read(path)
    except DataError as error:
        text = str(error)
        assert text.startswith(f"{path}: "), text
        assert text.isprintable(), text
        assert len(text) <= max(200, len(str(path)) + 150), text
        return True
    return False


def try_all(format: str, tmp_path: Path, seed: int, count: int) -> int:
    """Read damaged files, and see that nothing comes of it but a picture or a short line; how many lines."""
    path, refused = tmp_path / "some.png", 0
    for content in damaged(FILES[format], seed, count):
        path.write_bytes(content)
        for read in READERS["picture"], READERS["training"]:
            refused += is_refused(read, path)
    return refused


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", FILES)
def test_damage_ends_in_one_short_line_that_names_the_file(format, tmp_path, monkeypatch):
    monkeypatch.setenv("IMGOPS_PICTURE_GB", "0.1")
    # an icon of Apple's is large, and slow to decode
    assert try_all(format, tmp_path, seed=1, count=5 if format == "ICNS" else 40)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", FILES)
def test_more_damage(format, tmp_path, monkeypatch):
    monkeypatch.setenv("IMGOPS_PICTURE_GB", "0.1")
    assert try_all(format, tmp_path, seed=2, count=20 if format == "ICNS" else 150)


@pytest.mark.parametrize(
    "error", [RuntimeError, MemoryError, SyntaxError, KeyError, struct.error, zlib.error, AssertionError]
)
@pytest.mark.parametrize("reason", ["", "why", "two\nlines", "long " * 200])
def test_whatever_a_decoder_raises_names_the_file(error, reason, tmp_path, monkeypatch):
    corner().save(tmp_path / "a.png")

    def fail(image):
        raise error(reason)

    monkeypatch.setattr(Image.Image, "load", fail)
    for read in READERS["picture"], READERS["training"]:
        with pytest.raises(DataError) as raised:
            read(tmp_path / "a.png")
        assert str(raised.value).startswith(f"{tmp_path}/a.png: ")
        assert str(raised.value).isprintable()
        assert len(str(raised.value)) <= max(200, len(str(tmp_path)) + 120)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_what_is_cut_off_is_called_damaged(format, kept, tmp_path):
    if format not in FILES:
        pytest.skip("this Pillow has no such format")
    path = tmp_path / "a.png"
    path.write_bytes(FILES[format][: int(len(FILES[format]) * kept)])
    with pytest.raises(DataError, match=r"a\.png: damaged or truncated picture \("):
        read_picture(path)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_worker_of_the_loader_says_it_as_shortly(kind, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/cut.png").write_bytes(FILES["PNG"][:-60])
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.write(tmp_path / "p/cut.png", "cut.png")
    dataset = ImageFolder(tmp_path / ("p" if kind == "folder" else "p.zip"), 8)
    with pytest.raises(DataError) as here:
        dataset[0]
    with pytest.raises(DataError) as there:
        next(iter(DataLoader(dataset, batch_size=1, num_workers=1)))
    assert str(there.value) == str(here.value)
    assert "cut.png: damaged or truncated picture" in str(here.value)
    assert str(pickle.loads(pickle.dumps(here.value))) == str(here.value)


def test_a_name_that_cannot_be_printed_is_shown_in_one_line(tmp_path):
    name = os.fsdecode(b"gr\xfc\xdfe\n.png")
    (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(DataError) as raised:
        ImageFolder(tmp_path, 8)[0]
    assert str(raised.value) == f"{tmp_path}/gr\\xdcfc\\xdcdfe\\x0a.png: not a picture that Pillow can read"
