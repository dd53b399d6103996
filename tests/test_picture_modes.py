"""Pictures of every mode that files have: levels, palettes, transparency."""

from __future__ import annotations

import struct
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from imgops.data import DataError, ImageFolder, read_picture
from imgops.data.pictures.conversion import to_channels
from tests.picture_files import SHORT, readers

RAMP = np.linspace(0, 255, 64).round().reshape(8, 8)


def in_mode(mode: str) -> Image.Image:
    """The gray ramp in a mode that some file is opened in."""
    gray = Image.fromarray(RAMP.astype(np.uint8))
    first = {"La": "LA", "RGBa": "RGBA", "PA": "P", "LAB": "RGB", "YCbCr": "RGB", "CMYK": "RGB", "HSV": "RGB"}
    # a palette of grays
    return gray.convert(first[mode]).convert(mode) if mode in first else gray.convert(mode)


@pytest.mark.parametrize("mode", ["L", "LA", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "I", "I;16"])
@readers
def test_a_gray_ramp_in_every_mode_that_tiff_has(read, mode, tmp_path):
    levels = {"I": RAMP.astype(np.int32), "I;16": (RAMP * 257).astype(np.uint16)}
    image = Image.fromarray(levels[mode]) if mode in levels else in_mode(mode)
    image.save(tmp_path / "a.tiff")
    assert (read(tmp_path / "a.tiff") * 255 - torch.from_numpy(RAMP)).abs().max() <= 2


@pytest.mark.parametrize("mode", ["La", "RGBa", "HSV", "PA", "1", "P"])
def test_modes_that_no_file_has_are_converted_all_the_same(mode):
    image = in_mode(mode)
    for channels, expected in ((1, "L"), (3, "RGB"), (4, "RGBA")):
        assert to_channels(image, channels, "a").mode == expected


@pytest.mark.parametrize("white", [1, 255, 65535])
@readers
def test_integers_of_32_bits_are_scaled_by_what_they_are(read, white, tmp_path):
    values = np.zeros([8, 8], np.int32)
    values[:, 4:] = white
    Image.fromarray(values).save(tmp_path / "a.tiff")
    pixels = read(tmp_path / "a.tiff")
    assert (pixels[:, :, :4] == 0).all()
    assert (pixels[:, :, 4:] == 1).all()


@pytest.mark.parametrize(
    ("values", "told"), [((0, 65536), "0 to 65536"), ((-3, 9), "-3 to 9"), ((0, 2**31 - 1), "0 to")]
)
@readers
def test_integers_that_have_no_white_are_refused(read, values, told, tmp_path, recwarn):
    Image.fromarray(np.resize(np.array(values, np.int32), [8, 8])).save(tmp_path / "deep.tiff")
    with pytest.raises(DataError) as raised:
        read(tmp_path / "deep.tiff")
    assert "deep.tiff" in str([raised.value, *(warning.message for warning in recwarn)])
    assert told in str([raised.value, *(warning.message for warning in recwarn)])


def test_a_tiff_of_12_bits_has_its_white_there(tmp_path):
    Image.fromarray(np.full([8, 8], 4095, np.uint16)).save(tmp_path / "a.tiff")
    content = bytearray((tmp_path / "a.tiff").read_bytes())
    place = content.index(struct.pack("<HHLH", 258, SHORT, 1, 16))
    content[place + 8] = 12
    (tmp_path / "a.tiff").write_bytes(content)
    value = int(np.asarray(Image.open(tmp_path / "a.tiff"))[0, 0])
    assert 0 < value <= 4095
    assert read_picture(tmp_path / "a.tiff").pixels[0, 0, 0] == pytest.approx(value / 4095, abs=1e-4)


def test_a_transparent_level_of_16_bits_is_an_alpha(tmp_path):
    Image.fromarray(np.repeat([[100, 40000]], 8, 0).astype(np.uint16)).save(tmp_path / "a.png", transparency=100)
    picture = read_picture(tmp_path / "a.png")
    assert picture.alpha is not None
    assert picture.alpha[0, 0].tolist() == [0, 1]
    assert picture.pixels[0, 0, 1] == pytest.approx(40000 / 65535)
    assert ImageFolder(tmp_path, 8, 4)[0][0][3].float().mean() == pytest.approx(127, abs=2)


def test_a_palette_with_an_alpha_for_each_color(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    image.save(tmp_path / "a.png", transparency=bytes([0, 128]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = read_picture(tmp_path / "a.png")
    assert picture.alpha is not None
    assert (picture.alpha[0, 0] * 255).tolist() == [0, 128]
    assert (picture.pixels[:, 0, 1] * 255).round().tolist() == [200, 100, 50]
