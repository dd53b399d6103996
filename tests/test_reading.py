"""Pictures as files have them: odd metadata, modes, colour profiles, size, damage; one way in for all readers."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps, features
from torch import Tensor
from torch.utils.data import DataLoader

from imgops.data import DataError, ImageFolder, read_frames, read_picture, write_picture
from imgops.data._images import to_channels
from imgops.data.crops import RandomCrops
from tests.profiles import ADOBE_RGB, DISPLAY_P3, SRGB, cmyk_profile, encoded, grey_profile, rgb_profile

#: every way from a file to RGB in [0, 1], of a picture of 8 x 8 pixels: [3, 8, 8]
READERS: dict[str, Callable[[Path], Tensor]] = {
    "picture": lambda path: read_picture(path).pixels,
    "training": lambda path: ImageFolder(path.parent, 8)[0][0] / 255,
    "crops": lambda path: RandomCrops(path.parent, 16)._draw(np.random.default_rng(0)) / 255,
}
readers = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


def corner(size: int = 8) -> Image.Image:
    """Red at the top left of white: each of the eight orientations looks different from most others."""
    image = Image.new("RGB", (size, size), "white")
    image.paste((255, 0, 0), (0, 0, size // 2, size // 4))
    return image


def red(pixels: Tensor) -> tuple[float, float]:
    """The middle (down, right) of what is red, in pixels."""
    return tuple(float(i) for i in (pixels[1] < 0.5).nonzero().float().mean(0))


# --- orientation ---

LONG, SHORT, ASCII, RATIONAL = 4, 3, 2, 5


def exif(*entries: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    """A TIFF header and one directory of (tag, type, count, four bytes)."""
    body = b"".join(struct.pack(order + "HHL", *entry[:3]) + entry[3].ljust(4, b"\0") for entry in entries)
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "L", 8)
    return b"Exif\0\0" + head + struct.pack(order + "H", len(entries)) + body + bytes(4)


def turned(value: int = 6, kind: int = SHORT, order: str = "<") -> tuple[int, int, int, bytes]:
    return 0x0112, kind, 1, struct.pack(order + {SHORT: "H", LONG: "L", 1: "B"}[kind], value)


RESOLUTION_AS_TEXT = (0x011A, ASCII, 3, b"72\0")
ODD_EXIF = {
    "text for a ratio": exif(turned(), RESOLUTION_AS_TEXT),
    "big-endian": exif(turned(order=">"), (0x011A, ASCII, 3, b"72\0"), order=">"),
    "as long": exif(turned(kind=LONG)),
    "as byte": exif(turned(kind=1)),
    "unknown type": exif((0x010F, 99, 1, b"abcd"), turned()),
    "huge count": exif((0x010F, ASCII, 2**31, b"\xff\xff\xff\x7f"), turned()),
    "offset beyond the end": exif((0x010F, ASCII, 400, struct.pack("<L", 9999)), turned()),
    "directory cut off": exif(turned(), RESOLUTION_AS_TEXT)[:-9],
    "count of entries too large": exif(turned())[:14] + b"\xff\xff" + exif(turned())[16:],
    "lists and no numbers": exif(turned(), (0x011A, RATIONAL, 1, struct.pack("<L", 26)), (0x8769, ASCII, 2, b"x")),
}


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


# --- modes ---

RAMP = np.linspace(0, 255, 64).round().reshape(8, 8)


def in_mode(mode: str) -> Image.Image:
    """The grey ramp in a mode that some file is opened in."""
    grey = Image.fromarray(RAMP.astype(np.uint8))
    first = {"La": "LA", "RGBa": "RGBA", "PA": "P", "LAB": "RGB", "YCbCr": "RGB", "CMYK": "RGB", "HSV": "RGB"}
    # a palette of greys
    return grey.convert(first[mode]).convert(mode) if mode in first else grey.convert(mode)


@pytest.mark.parametrize("mode", ["L", "LA", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "I", "I;16"])
@readers
def test_a_grey_ramp_in_every_mode_that_tiff_has(read, mode, tmp_path):
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


def test_a_palette_with_an_alpha_for_each_colour(tmp_path):
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


# --- colour profiles ---

COLOURS = np.array(
    [[200, 80, 60], [60, 160, 90], [128, 128, 128], [30, 60, 200], [240, 230, 60], [90, 70, 110], [0, 0, 0], [255] * 3]
)


def patches(values: np.ndarray) -> Image.Image:
    """A column for each of eight colours."""
    return Image.fromarray(np.repeat(values[None].astype(np.uint8), 8, 0))


@pytest.mark.parametrize("primaries", [DISPLAY_P3, ADOBE_RGB, SRGB], ids=["P3", "Adobe RGB", "gamma 2.2"])
@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.webp", "a.jpg", "alpha.png"])
@readers
def test_colours_are_those_of_the_profile(read, name, primaries, tmp_path):
    image, profile = patches(encoded(COLOURS, primaries)), rgb_profile(primaries)
    image = image.convert("RGBA") if name == "alpha.png" else image
    options = {"quality": 100, "subsampling": 0} if name == "a.jpg" else {"lossless": True} if name == "a.webp" else {}
    image.save(tmp_path / name, icc_profile=profile, **options)
    seen = read(tmp_path / name)[:, 3].T * 255
    # what is not in the profile's words would be up to 30 off
    assert (seen - torch.from_numpy(COLOURS)).abs().max() <= (6 if name == "a.jpg" else 3)


@readers
def test_an_srgb_profile_changes_nothing(read, tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    patches(COLOURS).save(tmp_path / "a.png", icc_profile=profile)
    assert torch.equal((read(tmp_path / "a.png")[:, 3].T * 255).round(), torch.from_numpy(COLOURS).float())


@pytest.mark.parametrize("deep", [False, True])
@readers
def test_grey_by_its_profile(read, deep, tmp_path):
    levels = np.array([0, 10, 50, 100, 128, 180, 220, 255])
    image = Image.fromarray(np.repeat(levels[None], 8, 0).astype(np.uint16) * 257) if deep else patches(levels)
    image.save(tmp_path / "a.png", icc_profile=grey_profile(1.0))
    light = levels / 255
    expected = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(read(tmp_path / "a.png")[0, 3].numpy() - expected).max() <= 1 / 255


def test_grey_with_a_profile_of_colours(tmp_path):
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
    "profile", [b"junk", rgb_profile(DISPLAY_P3)[:200], grey_profile(1.0), rgb_profile(DISPLAY_P3)[:-40]]
)
@readers
def test_a_profile_that_cannot_be_used_is_named_and_passed_over(read, profile, tmp_path):
    patches(COLOURS).save(tmp_path / "broken.png", icc_profile=profile)
    with pytest.warns(UserWarning, match=r"broken\.png: its colour profile is ignored") as told:
        seen = read(tmp_path / "broken.png")
    assert len(str(told[0].message)) < 300
    assert torch.equal((seen[:, 3].T * 255).round(), torch.from_numpy(COLOURS).float())


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


# --- size ---


def flat(path: Path, size: tuple[int, int]) -> None:
    """A PNG of one level of grey, written without its pixels in memory."""
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
    monkeypatch.setattr("imgops.data._reading.free_memory", lambda: 10**8)
    with pytest.raises(DataError, match=r"large\.png: 4000 x 3000 pixels take 0\.4 GB of memory, and 0\.1 are free"):
        read_picture(tmp_path / "large.png")
    # nobody knows
    monkeypatch.setattr("imgops.data._reading.free_memory", lambda: None)
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
    from imgops.data import _reading

    sizes, kept = [], _reading.upright

    def note(image, orientation):
        sizes.append(image.size)
        return kept(image, orientation)

    monkeypatch.setattr(_reading, "upright", note)
    small = ImageFolder(tmp_path, 32)[0][0].float()
    assert sizes == [(96, 64)]
    whole = image.crop((128, 0, 640, 512)).resize((32, 32), Image.Resampling.LANCZOS)
    assert (small - torch.from_numpy(np.array(whole)).permute(2, 0, 1)).abs().max() < 4


# --- damage ---


def written() -> dict[str, bytes]:
    """A small file of every format that Pillow writes and reads here."""
    Image.init()
    y, x = np.mgrid[:24, :32]
    colour = Image.fromarray(np.stack([x * 8, y * 9, (x * y) % 256], -1).astype(np.uint8))
    files = {}
    for format in sorted(set(Image.SAVE) & set(Image.OPEN)):
        for image in (colour, colour.convert("P"), colour.convert("L"), colour.convert("F"), colour.convert("1")):
            buffer = io.BytesIO()
            try:
                image.save(buffer, format)
            except (OSError, ValueError, KeyError, RuntimeError):
                continue
            files[format] = buffer.getvalue()
            break
    files |= {name: encode(colour) for name, encode in VARIANTS.items()}
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
