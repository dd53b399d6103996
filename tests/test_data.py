"""Datasets: every kind of picture, labels, damage in one clear line, sample sets."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imgops.data import SAMPLE_SETS, DataError, EndlessSampler, ImageFolder, open_dataset


def halves(left: tuple[int, ...], right: tuple[int, ...], mode: str = "RGB", size: int = 16) -> Image.Image:
    """A picture with one color on the left and one on the right."""
    image = Image.new(mode, (size, size), right)
    image.paste(left, (0, 0, size // 2, size))
    return image


def only(path: Path, channels: int = 3) -> torch.Tensor:
    """The one picture of a folder, at 8 px."""
    dataset = open_dataset(path, 8, channels)
    assert len(dataset) == 1
    picture, label = dataset[0]
    assert picture.dtype == torch.uint8
    assert picture.shape == (channels, 8, 8)
    assert label == 0
    return picture


RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.tiff", "a.gif", "A.PNG"])
def test_formats(tmp_path, name):
    halves(RED, BLUE).save(tmp_path / name, **({"quality": 100} if "jpg" in name or "webp" in name else {}))
    picture = only(tmp_path).float()
    assert (picture[:, 4, 1] - torch.tensor([255.0, 0, 0])).abs().max() < 12
    assert (picture[:, 4, 6] - torch.tensor([0, 0, 255.0])).abs().max() < 12


def test_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    halves(RED, BLUE).save(tmp_path / "a.jpg", exif=exif, quality=100)
    picture = only(tmp_path)
    assert picture[0, 0, 4] > 240
    assert picture[2, 7, 4] > 240


def test_cmyk(tmp_path):
    halves((0, 255, 255, 0), (255, 255, 0, 0), "CMYK").save(tmp_path / "a.jpg", quality=100)
    picture = only(tmp_path)
    assert picture[0, 4, 1] > 240
    assert picture[0, 4, 6] < 15
    assert picture[2, 4, 6] > 240


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit(tmp_path, suffix):
    Image.fromarray(np.full([8, 8], 0x80FF, np.uint16)).save(tmp_path / f"a.{suffix}")
    assert (only(tmp_path) == 0x80).all()


def test_32_bit_integers_within_16(tmp_path):
    Image.fromarray(np.full([8, 8], 0x1234, np.int32)).save(tmp_path / "a.tiff")
    assert (only(tmp_path, 1) == 0x12).all()


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.paste(0, (0, 0, 4, 8))
    image.save(tmp_path / "a.png", transparency=0)
    picture = only(tmp_path)
    assert (picture[:, :, :4] == 255).all()
    assert picture[:, 0, 7].tolist() == [10, 20, 30]
    assert only(tmp_path, 4)[3, 0].tolist() == [0] * 4 + [255] * 4


@pytest.mark.parametrize(("mode", "pixel", "seen"), [("RGBA", (0, 0, 0, 0), 255), ("LA", (50, 255), 50), ("1", 1, 255)])
@pytest.mark.parametrize("channels", [1, 3])
def test_modes(tmp_path, mode, pixel, seen, channels):
    Image.new(mode, (8, 8), pixel).save(tmp_path / "a.png")
    assert (only(tmp_path, channels) == seen).all()


def test_center_crop_and_resize(tmp_path):
    image = Image.new("RGB", (48, 16), RED)
    image.paste(BLUE, (16, 0, 32, 16))
    image.save(tmp_path / "a.png")
    picture = only(tmp_path)
    assert (picture[2] == 255).all()
    assert (picture[0] == 0).all()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_and_folder_agree(tmp_path, compression):
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    (folder / "__MACOSX").mkdir()
    for i, name in enumerate(["b.png", "sub/a.png", "sub/c.png", ".hidden.png", "__MACOSX/b.png"]):
        halves((i * 40, 0, 0), BLUE).save(folder / name)
    (folder / "notes.txt").write_text("passed over")
    (folder / "dataset.json").write_text(json.dumps({"labels": [["sub/a.png", 1], ["b.png", 0], ["sub/c.png", 1]]}))
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w", compression) as archive:
        for path in folder.rglob("*"):
            archive.write(path, path.relative_to(folder).as_posix())
    a, b = ImageFolder(folder, 8, mirror=True), ImageFolder(tmp_path / "pictures.zip", 8, mirror=True)
    assert a.names == b.names == ["b.png", "sub/a.png", "sub/c.png"]
    assert a.labels.tolist() == b.labels.tolist() == [0, 1, 1]
    assert a.class_names == ("0", "1")
    # an open archive survives the way to a worker process
    b[0]
    for dataset in b, pickle.loads(pickle.dumps(b)):
        assert all(torch.equal(a[i][0], dataset[i][0]) and a[i][1] == dataset[i][1] for i in range(len(a)))
    assert len(a) == 6
    assert torch.equal(a[3][0], a[0][0].flip(2))
    assert torch.equal(a.first_of_class(1, 3), torch.stack([a[1][0], a[2][0], a[1][0]]))
    assert open_dataset(folder, 8, use_labels=False).labels is None


def png(size: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((size, size), 50).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("limit", [0, 3 * 64 * 2, 2**20])
def test_pictures_are_decoded_once_as_far_as_memory_is_meant_for_it(tmp_path, monkeypatch, limit):
    monkeypatch.setattr("imgops.data.datasets.picture_files.KEPT", limit)
    for k in range(4):
        (tmp_path / f"{k}.png").write_bytes(png(16))
    dataset = ImageFolder(tmp_path, 8, mirror=True)
    wanted = [dataset[k][0] for k in range(8)]
    # what is handed out may be changed
    for k in range(8):
        dataset[k][0].zero_()
    read = []
    monkeypatch.setattr(dataset, "read", lambda index: read.append(index) or ImageFolder.read(dataset, index))
    assert all(torch.equal(dataset[k][0], picture) for k, picture in enumerate(wanted))
    kept = min(limit // (3 * 64), 4)
    assert sorted(read) == sorted([*range(kept, 4)] * 2)
    copy = pickle.loads(pickle.dumps(ImageFolder(tmp_path, 8)))
    assert torch.equal(copy[0][0], wanted[0])


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (png()[:1500], "cut.png", "damaged or truncated picture"),
        (b"hello", "text.png", "not a picture"),
        (b"", "empty.jpg", "not a picture"),
        (png()[:20], "head.png", "damaged|not a picture"),
        (png()[:60] + bytes(600) + png()[660:], "noise.png", "damaged"),
    ],
)
def test_damage_names_the_file(tmp_path, content, name, message):
    (tmp_path / "ok.png").write_bytes(png())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        open_dataset(tmp_path, 8).check()
    assert f"{tmp_path}/{name}" in str(error.value)
    assert "\n" not in str(error.value)


def test_check_says_how_many_are_broken(tmp_path):
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(png() if i % 4 == 0 else b"")
    with pytest.raises(DataError) as error:
        ImageFolder(tmp_path, 8).check()
    assert str(error.value) == (
        f"{tmp_path}/1.png: not a picture that Pillow can read; "
        "6 of 8 pictures cannot be used, 2.png, 3.png, 5.png, ... too"
    )


def test_check_visits_every_picture(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(png())
    seen = []
    ImageFolder(tmp_path, 8).check(lambda: seen.append(1))
    assert len(seen) == 5


@pytest.mark.parametrize("pixels", [np.ones([8, 8], np.float32), np.full([8, 8], 1 << 20, np.int32)])
def test_refused_depths(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "deep.tiff")
    with pytest.raises(DataError, match=r"deep\.tiff: its (integer )?pixels .*convert it to 8 or 16 bits"):
        open_dataset(tmp_path, 8)[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON of the form"),
        ('["a"]', "must be JSON of the form"),
        ('{"labels": [["a.png"]]}', r'each label must be \["name", class\]'),
        ('{"labels": [["a.png", "cat"]]}', "the class of a.png must be an integer"),
        ('{"labels": [["a.png", -1]]}', "the class of a.png must be an integer"),
        ('{"labels": [["a.png", 0], ["gone.png", 0]]}', "gone.png has a label but is not in"),
        ('{"labels": [["a.png", 0], ["a.png", 1]]}', "a.png has two labels, 0 and 1"),
        ('{"labels": [["a.png", 0]]}', r"b.png has no label \(1 of 2"),
        ('{"labels": [["a.png", 0], ["b.png", 2]]}', "no picture has class 1"),
    ],
)
def test_label_errors(tmp_path, text, message):
    for name in "a.png", "b.png":
        (tmp_path / name).write_bytes(png(8))
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        open_dataset(tmp_path, 8)
    assert "dataset.json" in str(error.value)


def test_labels_may_be_null(tmp_path):
    (tmp_path / "a.png").write_bytes(png(8))
    (tmp_path / "dataset.json").write_text('{"labels": null}')
    assert open_dataset(tmp_path, 8).labels is None


def test_bad_sources(tmp_path):
    with pytest.raises(DataError, match="no pictures in it"):
        open_dataset(tmp_path, 8)
    with pytest.raises(DataError, match="missing: no such folder or zip"):
        open_dataset(tmp_path / "missing", 8)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"a\.txt: neither a folder nor a zip"):
        open_dataset(tmp_path / "a.txt", 8)
    archive = tmp_path / "cut.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.png", png())
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"cut\.zip: a truncated or damaged zip, its end is missing"):
        open_dataset(archive, 8)
    with pytest.raises(DataError, match="samples:nothing: no such sample set; there are samples:textures"):
        open_dataset("samples:nothing", 8)
    with pytest.raises(ValueError, match="resolution must be a side, or height and width, of 4 to 4096 pixels"):
        open_dataset("samples:textures", 33)
    with pytest.raises(ValueError, match="channels must be one of 1, 3, 4"):
        open_dataset("samples:textures", 32, 2)


@pytest.mark.parametrize("name", SAMPLE_SETS)
def test_sample_sets(name):
    a, b, other = (open_dataset(f"samples:{name}", 16, seed=seed) for seed in (0, 0, 1))
    classes = len(a.class_names)
    assert len(a) == 8192 * classes
    assert a.labels[:classes].tolist() == list(range(classes))
    for i in [0, 1, classes, len(a) - 1]:
        assert a[i][0].shape == (3, 16, 16)
        assert torch.equal(a[i][0], b[i][0])
        assert a[i][1] == i % classes
    assert not torch.equal(a.first_of_class(1, 8), other.first_of_class(1, 8))


def test_sample_sets_at_any_size():
    # larger than the picture itself, gray and with alpha
    assert open_dataset("samples:textures", 1024, 1)[0][0].shape == (1, 1024, 1024)
    assert open_dataset("samples:textures", 8, 4)[3][0].shape == (4, 8, 8)


def test_sample_set_without_scikit_image(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "skimage.data", None)
    monkeypatch.setitem(__import__("sys").modules, "skimage", None)
    with pytest.raises(ImportError, match="pip install scikit-image"):
        open_dataset("samples:textures", 8)


def test_sampler_continues_anywhere():
    whole = list(islice(EndlessSampler(7, seed=3), 30))
    assert sorted(whole[:7]) == sorted(whole[7:14]) == list(range(7))
    assert whole[:7] != whole[7:14]
    for start in 0, 5, 7, 20:
        assert list(islice(EndlessSampler(7, seed=3, start=start), 10)) == whole[start : start + 10]
    assert list(islice(EndlessSampler(7, seed=4), 14)) != whole[:14]
