"""Random crops to train style transfer on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from imgops.data import DataError, write_picture
from imgops.data.datasets.crops import RandomCrops


@pytest.fixture
def folder(tmp_path):
    """Two pictures, one in a subfolder, the other gray; and files that are none."""
    y, x = np.mgrid[:90, :140].astype(np.float32)
    ramp = torch.from_numpy(np.stack([x / 139, y / 89, 0 * x]))
    write_picture(tmp_path / "a" / "ramp.png", ramp)
    Image.new("L", (70, 64), 200).save(tmp_path / "gray.jpg")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden.png").write_text("")
    return tmp_path


def test_crops_are_squares_of_the_pictures(folder):
    crops = RandomCrops(folder, 32, zoom=2)
    sides, flipped = [], 0
    for x in map(crops.__getitem__, range(80)):
        assert x.shape == (3, 32, 32)
        assert (x.min(), x.max()) <= (1, 1)
        if x[2].max() > 0.1:
            torch.testing.assert_close(x, torch.full_like(x, 200 / 255), atol=0.01, rtol=0)
            continue
        # of the ramp: its slopes tell which part of the shorter side was taken
        down, right = x[1, -1].mean() - x[1, 0].mean(), x[0, :, -1].mean() - x[0, :, 0].mean()
        sides.append(float(down) * 32 / 31)
        assert abs(abs(float(right)) * 139 / 89 - float(down)) < 0.03
        flipped += int(right < 0)
    assert 20 < len(sides) < 60
    assert 0.45 < min(sides) < 0.6 < 0.9 < max(sides) < 1.03
    assert 0.25 < flipped / len(sides) < 0.75


def test_crops_are_the_same_for_a_seed(folder):
    for source in (folder, "samples:"):
        first = RandomCrops(source, 24, seed=3)
        batches = list(itertools.islice(first.batches(3), 4))
        assert batches[0].shape == (3, 3, 24, 24)
        (again,) = itertools.islice(RandomCrops(source, 24, seed=3).batches(3, start=3, workers=1), 1)
        assert torch.equal(again, batches[3])
        assert torch.equal(again[1], first[10])
        assert not torch.equal(again[1], RandomCrops(source, 24, seed=4)[10])
        assert not torch.equal(batches[0], batches[1])


def test_samples_are_pictures_and_textures():
    pictures, textures = (RandomCrops("samples:", 16, textures=share) for share in (0, 1))
    for crops in (pictures, textures):
        for i in range(12):
            crops[i]
    assert not any(name.startswith("texture") for name in pictures._kept)
    assert all(name.startswith("texture") for name in textures._kept)
    # reduced to what the closest crop needs
    assert all(min(picture.shape[1:]) == 32 for picture in pictures._kept.values())


def test_what_cannot_be_read_is_named_once(folder):
    (folder / "broken.png").write_text("no picture")
    (folder / "empty.jpg").write_text("")
    said: list[str] = []
    crops = RandomCrops(folder, 16, on_skip=said.append)
    expected = [crops[i] for i in range(20)]
    assert len(said) == 2
    assert {message.split("/")[-1].split(":")[0] for message in said} == {"broken.png", "empty.jpg"}
    # that they are known changes nothing
    assert all(torch.equal(crops[i], expected[i]) for i in range(20))
    (folder / "broken.png").unlink()
    with pytest.warns(UserWarning, match="passed over: .*empty.jpg: the file is empty"):
        next(RandomCrops(folder, 16).batches(20))


def test_bad_input(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        RandomCrops(tmp_path / "nowhere", 32)
    with pytest.raises(DataError, match="no pictures in it"):
        RandomCrops(tmp_path, 32)
    (tmp_path / "a.png").write_text("")
    with (
        pytest.warns(UserWarning, match="empty"),
        pytest.raises(DataError, match="none of the pictures to train on can be read"),
    ):
        RandomCrops(tmp_path, 32)[0]
    for arguments in ({"size": 8}, {"zoom": 0.5}, {"textures": 2.0}):
        with pytest.raises(ValueError, match="size must be >= 16, zoom >= 1 and textures 0 to 1"):
            RandomCrops("samples:", **{"size": 16} | arguments)
