"""Pictures that are not square: which shapes there are, how they are written, cropped and resized."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from imgops._settings import PICTURES, Shapes, check, checked, resolution_text, setting, start_shape
from imgops.cli._options import parse_resolution
from imgops.data import ImageFolder, open_dataset


@pytest.mark.parametrize(
    ("shape", "start"),
    [
        *(((64, 64), (4, 4, 4)), ((4, 4), (4, 4, 0)), ((4096, 4096), (4, 4, 10)), ((96, 96), (3, 3, 5))),
        *(((48, 64), (3, 4, 4)), ((64, 48), (4, 3, 4)), ((32, 64), (4, 8, 3)), ((288, 512), (9, 16, 5))),
    ],
)
def test_where_a_network_starts(shape, start):
    assert start_shape(*shape) == start
    assert (start[0] << start[2], start[1] << start[2]) == shape


@pytest.mark.parametrize(
    ("shape", "got"),
    [
        ((33, 33), "got 33x33"),
        ((720, 1280), r"got 1280x720 \(which halves to 80x45\)"),
        ((2, 64), "got 64x2"),
        ((64, 8192), "got 8192x64"),
        ((0, 0), "got 0x0"),
        ((-64, 64), "got 64x-64"),
    ],
)
def test_shapes_that_no_network_has(shape, got):
    with pytest.raises(ValueError, match=f"^resolution must be a side, or height and width, of 4 to 4096 .* {got}$"):
        start_shape(*shape)


@pytest.mark.parametrize("value", [[48, 64], "64", 64.0, (48,), (48, 64.0), None, True])
def test_a_resolution_of_another_type(value):
    with pytest.raises(TypeError, match="resolution must be a whole number or a pair of whole numbers; got"):
        PICTURES.check("resolution", value)
    with pytest.raises(TypeError, match="resolution must be a whole number or a pair of whole numbers; got"):
        open_dataset("samples:textures", value)


@pytest.mark.parametrize(("text", "resolution"), [("64", 64), ("64x48", (48, 64)), (" 64 X 48 ", (48, 64)), ("8x8", 8)])
def test_the_width_is_written_first(text, resolution):
    assert parse_resolution("resolution", text) == resolution
    assert parse_resolution("resolution", resolution_text(resolution)) == resolution


@pytest.mark.parametrize("text", ["", "x", "64x", "x64", "64x48x3", "-64", "6.4", "64,48", "wide"])
def test_what_is_no_resolution(text):
    with pytest.raises(ValueError, match="resolution takes a side in pixels like 64, or WIDTHxHEIGHT like 64x48; got"):
        parse_resolution("resolution", text)


@dataclasses.dataclass(frozen=True)
class Settings:
    resolution: int | tuple[int, int] = setting(64, "Data", "Of the pictures.", allowed=Shapes(8))

    def __post_init__(self) -> None:
        check(self)


def test_a_setting_may_be_a_shape():
    assert checked(Settings((48, 64))).resolution == (48, 64)
    assert type(Settings(np.int64(32)).resolution) is int
    with pytest.raises(ValueError, match=r"resolution must be a side, or height and width, of 8 to 4096 .*; got 4"):
        Settings(4)
    with pytest.raises(TypeError, match="resolution must be a whole number or a pair of whole numbers; got 'x'"):
        Settings("x")


@pytest.mark.parametrize("shape", [(8, 16), (16, 8), (12, 8), (8, 8)])
@pytest.mark.parametrize("size", [(64, 32), (32, 64), (33, 33), (5, 4)])
def test_the_middle_of_a_picture_is_taken_in_its_proportions(tmp_path, shape, size):
    height, width = shape
    # the largest centered box of the shape, and around it another color
    scale = min(size[0] / width, size[1] / height)
    w, h = round(width * scale), round(height * scale)
    image = Image.new("RGB", size, "red")
    image.paste((0, 0, 255), ((size[0] - w) // 2, (size[1] - h) // 2, (size[0] - w) // 2 + w, (size[1] - h) // 2 + h))
    image.save(tmp_path / "a.png")
    dataset = ImageFolder(tmp_path, shape, mirror=True)
    assert (dataset.height, dataset.width, dataset.resolution) == (height, width, shape)
    picture = dataset[0][0]
    assert picture.shape == (3, height, width)
    assert (picture[0] == 0).all()
    assert (picture[2] == 255).all()
    assert torch.equal(dataset[1][0], picture.flip(2))
    assert dataset.first_of_class(0, 2).shape == (2, 3, height, width)


def test_a_side_and_a_square_are_the_same(tmp_path):
    Image.effect_noise((50, 40), 60).save(tmp_path / "a.jpg")
    assert torch.equal(ImageFolder(tmp_path, 16)[0][0], ImageFolder(tmp_path, (16, 16))[0][0])
    assert torch.equal(open_dataset("samples:textures", 16)[5][0], open_dataset("samples:textures", (16, 16))[5][0])


@pytest.mark.parametrize("shape", [(16, 24), (24, 16), (1024, 512)])
@pytest.mark.parametrize("name", ["textures", "pictures"])
def test_sample_sets_of_any_shape(name, shape):
    dataset = open_dataset(f"samples:{name}", shape)
    assert all(dataset[i][0].shape == (3, *shape) for i in range(len(dataset.class_names)))


def test_a_large_jpeg_is_reduced_no_further_than_its_shape_allows(tmp_path):
    Image.effect_noise((1024, 256), 60).save(tmp_path / "a.jpg", quality=95)
    Image.open(tmp_path / "a.jpg").save(tmp_path / "whole.png")
    fine = ImageFolder(tmp_path, (32, 128))
    assert (fine[0][0].float() - fine[1][0].float()).abs().mean() < 2
