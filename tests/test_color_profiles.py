"""Colors are those that a file's profile says; what is written is sRGB and says so."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from imgops.data import read_picture, write_picture
from tests.picture_files import readers
from tests.profiles import ADOBE_RGB, DISPLAY_P3, SRGB, cmyk_profile, encoded, gray_profile, rgb_profile

COLORS = np.array(
    [[200, 80, 60], [60, 160, 90], [128, 128, 128], [30, 60, 200], [240, 230, 60], [90, 70, 110], [0, 0, 0], [255] * 3]
)


def patches(values: np.ndarray) -> Image.Image:
    """A column for each of eight colors."""
    return Image.fromarray(np.repeat(values[None].astype(np.uint8), 8, 0))


@pytest.mark.parametrize("primaries", [DISPLAY_P3, ADOBE_RGB, SRGB], ids=["P3", "Adobe RGB", "gamma 2.2"])
@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.webp", "a.jpg", "alpha.png"])
@readers
def test_colors_are_those_of_the_profile(read, name, primaries, tmp_path):
    image, profile = patches(encoded(COLORS, primaries)), rgb_profile(primaries)
    image = image.convert("RGBA") if name == "alpha.png" else image
    options = {"quality": 100, "subsampling": 0} if name == "a.jpg" else {"lossless": True} if name == "a.webp" else {}
    image.save(tmp_path / name, icc_profile=profile, **options)
    seen = read(tmp_path / name)[:, 3].T * 255
    # what is not in the profile's words would be up to 30 off
    assert (seen - torch.from_numpy(COLORS)).abs().max() <= (6 if name == "a.jpg" else 3)


@readers
def test_an_srgb_profile_changes_nothing(read, tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    patches(COLORS).save(tmp_path / "a.png", icc_profile=profile)
    assert torch.equal((read(tmp_path / "a.png")[:, 3].T * 255).round(), torch.from_numpy(COLORS).float())


@pytest.mark.parametrize("deep", [False, True])
@readers
def test_gray_by_its_profile(read, deep, tmp_path):
    levels = np.array([0, 10, 50, 100, 128, 180, 220, 255])
    image = Image.fromarray(np.repeat(levels[None], 8, 0).astype(np.uint16) * 257) if deep else patches(levels)
    image.save(tmp_path / "a.png", icc_profile=gray_profile(1.0))
    light = levels / 255
    expected = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(read(tmp_path / "a.png")[0, 3].numpy() - expected).max() <= 1 / 255


def test_gray_with_a_profile_of_colors(tmp_path):
    levels = np.array([0, 10, 50, 100, 128, 180, 220, 255])
    patches(levels).save(tmp_path / "a.png")
    patches(levels).save(tmp_path / "b.png", icc_profile=rgb_profile(DISPLAY_P3, 1.0))
    plain, picture = (read_picture(tmp_path / name).pixels for name in ("a.png", "b.png"))
    assert (picture - plain)[0, 0, 1:-1].min() > 0.05


@readers
def test_cmyk_by_its_profile(read, tmp_path):
    image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    image.paste((0, 255, 255, 0), (4, 0, 8, 8))
    inks = {"C": (55.0, -37.0, -50.0), "MY": (47.0, 68.0, 48.0)}
    image.save(tmp_path / "a.tiff", icc_profile=cmyk_profile(inks))
    cyan, warm = (read(tmp_path / "a.tiff")[:, 4, x] * 255 for x in (1, 6))
    # Lab (55, -37, -50), which is out of gamut, and (47, 68, 48) in sRGB; Pillow's formula says pure cyan and red
    assert cyan[0] < 20
    assert 130 < cyan[1] < 170
    assert 190 < warm[0] < 240
    assert 15 < warm[1] < 60


@pytest.mark.parametrize(
    "profile", [b"junk", rgb_profile(DISPLAY_P3)[:200], gray_profile(1.0), rgb_profile(DISPLAY_P3)[:-40]]
)
@readers
def test_a_profile_that_cannot_be_used_is_named_and_passed_over(read, profile, tmp_path):
    patches(COLORS).save(tmp_path / "broken.png", icc_profile=profile)
    with pytest.warns(UserWarning, match=r"broken\.png: its color profile is ignored") as told:
        seen = read(tmp_path / "broken.png")
    assert len(str(told[0].message)) < 300
    assert torch.equal((seen[:, 3].T * 255).round(), torch.from_numpy(COLORS).float())


@pytest.mark.parametrize(("name", "channels"), [("a.png", 1), ("a.png", 3), ("a.jpg", 1), ("a.jpg", 3), ("a.tiff", 3)])
def test_what_is_written_says_that_it_is_srgb(name, channels, tmp_path):
    pixels = (torch.rand(channels, 8, 8) * 255).round() / 255
    for alpha in (None, torch.ones(1, 8, 8)):
        write_picture(tmp_path / name, pixels, alpha=alpha, settings={"seed": 1})
        image = Image.open(tmp_path / name)
        if name == "a.png":
            assert image.info["srgb"] == 0
        elif name == "a.jpg":
            assert image.getexif().get_ifd(0x8769)[0xA001] == 1
        else:
            assert "sRGB" in ImageCms.getProfileDescription(io.BytesIO(image.info["icc_profile"]))
        if name != "a.jpg":
            torch.testing.assert_close(read_picture(tmp_path / name).pixels, pixels.expand(3, -1, -1))
        first = (tmp_path / name).read_bytes()
        write_picture(tmp_path / name, pixels, alpha=alpha, settings={"seed": 1})
        assert (tmp_path / name).read_bytes() == first
