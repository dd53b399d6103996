"""Single pictures in and out, and the procedural textures."""

from __future__ import annotations

import doctest
import errno
import os

import numpy as np
import pytest
import torch
from PIL import Image

import imgops.data.datasets.textures
import imgops.data.pictures.reading
import imgops.data.pictures.resizing
from imgops.data import DataError, read_picture, read_settings, resize_picture, write_picture
from imgops.data.datasets.textures import procedural_texture
from imgops.data.files import write_file

X = torch.rand(3, 9, 14)
SETTINGS = {"method": "optimize", "seed": 3, "style": "Größe.png", "weights": [1.5, 2]}


@pytest.mark.parametrize(("name", "error"), [("a.png", 0.5), ("a.TIFF", 0.5), ("b.tif", 0.5), ("a.jpg", 40)])
def test_what_is_written_is_read(name, error, tmp_path):
    path = tmp_path / "made" / name
    write_picture(path, X, settings=SETTINGS, quality=100)
    picture = read_picture(path)
    assert picture.alpha is None
    assert picture.name == str(path)
    assert picture.pixels.dtype == torch.float32
    assert ((picture.pixels - X) * 255).abs().max() <= error + 1e-3
    assert read_settings(path) == SETTINGS
    write_picture(path, X)
    assert read_settings(path) is None
    assert [p.name for p in path.parent.iterdir()] == [name]


def test_transparency(tmp_path):
    alpha = torch.rand(1, 9, 14)
    for name in ("a.png", "a.tiff"):
        write_picture(tmp_path / name, X, alpha=alpha)
        picture = read_picture(tmp_path / name)
        assert ((picture.alpha - alpha) * 255).abs().max() <= 0.501
        # also where nothing of them is seen
        assert ((picture.pixels - X) * 255).abs().max() <= 0.501
    write_picture(tmp_path / "a.jpg", X, alpha=torch.zeros_like(alpha))
    assert read_picture(tmp_path / "a.jpg").pixels.min() > 0.99


def test_kinds_of_pictures(tmp_path):
    levels = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1365
    Image.fromarray(levels).save(tmp_path / "16.png")
    picture = read_picture(tmp_path / "16.png").pixels
    torch.testing.assert_close(picture, torch.from_numpy(levels.astype(np.float32) / 65535).expand(3, 6, 8))
    Image.fromarray((levels // 256).astype(np.uint8)).save(tmp_path / "gray.png")
    assert read_picture(tmp_path / "gray.png").pixels.shape == (3, 6, 8)
    rgb = Image.fromarray((X * 255).byte().permute(1, 2, 0).numpy())
    rgb.convert("P").save(tmp_path / "palette.gif")
    assert read_picture(tmp_path / "palette.gif").pixels.shape == X.shape
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb.save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg").pixels.shape == (3, 14, 9)
    write_picture(tmp_path / "one.png", X[:1])
    assert Image.open(tmp_path / "one.png").mode == "L"
    assert read_picture("samples:hubble").pixels.shape == (3, 872, 1000)
    assert read_picture("samples:camera").pixels.shape == (3, 512, 512)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "the file is empty"), (b"hello", "not a picture"), (None, "damaged or truncated")],
)
def test_files_that_are_no_pictures(content, message, tmp_path):
    path = tmp_path / "a.png"
    write_picture(path, torch.rand(3, 64, 64))
    path.write_bytes(path.read_bytes()[:3000] if content is None else content)
    with pytest.raises(DataError, match=message) as raised:
        read_picture(path)
    assert str(path) in str(raised.value)


def test_bad_input(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_picture(tmp_path / "missing.png")
    with pytest.raises(DataError, match="samples:monalisa: no such sample; there are samples:astronaut, "):
        read_picture("samples:monalisa")
    for arguments, options, message in (
        (("a.webp", X), {}, r"written as \.png, .*; got '\.webp'"),
        (("a", X), {}, "got 'no ending'"),
        (("a.png", X[None]), {}, r"pixels must be \[3, H, W\]"),
        (("a.png", X), {"alpha": X}, r"alpha must be \[1, H, W\]"),
        (("a.jpg", X), {"quality": 0}, "quality must be 1 to 100; got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            write_picture(tmp_path / arguments[0], *arguments[1:], **options)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"before")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_file(path, b"after")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"before"


def test_sizes():
    assert resize_picture(X, 14) is X
    assert resize_picture(X, 28).shape == (3, 18, 28)
    assert resize_picture(torch.rand(3, 100, 2), 10).shape == (3, 10, 1)
    flat = resize_picture(torch.full((3, 40, 60), 0.25), 20)
    torch.testing.assert_close(flat, torch.full((3, 13, 20), 0.25))
    with pytest.raises(ValueError, match="size must be >= 1; got 0"):
        resize_picture(X, 0)


def test_textures():
    assert torch.equal(procedural_texture(5, 32), procedural_texture(5, 32))
    textures = torch.stack([procedural_texture(seed, 48) for seed in range(16)]).float()
    assert textures.shape == (16, 3, 48, 48)
    # none is flat, and no two are alike
    assert textures.std((2, 3)).amax(1).min() > 8
    assert torch.cdist(textures.flatten(1), textures.flatten(1)).fill_diagonal_(1e9).min() > 1000
    for arguments in ((-1, 32), (0, 8)):
        with pytest.raises(ValueError, match="seed must be >= 0 and size >= 16"):
            procedural_texture(*arguments)


@pytest.mark.parametrize(
    "module", [imgops.data.pictures.reading, imgops.data.pictures.resizing, imgops.data.datasets.textures]
)
def test_examples_run(module):
    failed, tried = doctest.testmod(module, extraglobs={"torch": torch})
    assert tried
    assert failed == 0
