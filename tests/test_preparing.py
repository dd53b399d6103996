"""``imgops data``: pictures become a dataset that reads back as the same; what is refused or twice there is named."""

from __future__ import annotations

import errno
import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imgops.data import DataError, ImageFolder, PrepareSettings, open_dataset, prepare_dataset
from imgops.data.preparing._naming import FileNames

RNG = np.random.default_rng(0)


def noise(width: int = 20, height: int = 14, mode: str = "RGB") -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    return Image.fromarray(RNG.integers(0, 256, (height, width, channels), np.uint8).squeeze(), mode)


def photos(folder: Path, count: int = 6) -> Path:
    """Pictures of several formats and sizes in two subfolders."""
    for k in range(count):
        path = folder / "ab"[k % 2] / f"{k}.{['png', 'jpg', 'webp'][k % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        # the second is so large that a JPEG is decoded in part
        noise(20 + k + 200 * (k == 1), 14 + 5 * (k % 3) + 100 * (k == 1)).save(path)
    return folder


def prepare(source, out, processes: int = 0, **settings):
    return prepare_dataset(source, out, PrepareSettings(**settings), processes=processes)


def pixels(dataset) -> list[torch.Tensor]:
    return [dataset.picture(k) for k in range(dataset.count)]


def same(a, b) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


@pytest.mark.parametrize("resolution", [8, (8, 12), 64])
@pytest.mark.parametrize("kind", ["folder", "zip", "shards"])
def test_what_is_prepared_reads_back_as_the_pictures_themselves(tmp_path, kind, resolution):
    source = photos(tmp_path / "in")
    out = tmp_path / ("out.zip" if kind == "zip" else "out")
    made = prepare(source, out, resolution=resolution, labels="folders", shard_size=4 if kind == "shards" else None)
    assert (made.out, made.count, made.class_names, made.again) == (out, 6, ("a", "b"), False)
    wanted, found = ImageFolder(source, resolution, use_labels="folders"), open_dataset(out, resolution)
    assert same(pixels(found), pixels(wanted))
    assert found.labels.tolist() == wanted.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.class_names == ("a", "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", out.name]
    if kind == "zip":
        entries = zipfile.ZipFile(out).infolist()
        assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}
        assert [entry.filename for entry in entries][:2] == ["a/0.png", "a/2.png"]
    if kind == "shards":
        assert sorted(p.name for p in out.iterdir() if p.suffix == ".tar") == ["shard-0000.tar", "shard-0001.tar"]
    # what came out can go in
    again = prepare(out, tmp_path / "again.zip", resolution=resolution)
    assert again.class_names == ("a", "b")
    assert same(pixels(open_dataset(tmp_path / "again.zip", resolution)), pixels(wanted))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
@pytest.mark.parametrize("given", ["L", "RGB", "RGBA"])
def test_channels(tmp_path, channels, mode, given):
    (tmp_path / "in").mkdir()
    noise(mode=given).save(tmp_path / "in" / "a.png")
    prepare(tmp_path / "in", tmp_path / "out", resolution=8, channels=channels)
    assert Image.open(tmp_path / "out" / "a.png").mode == mode
    wanted = pixels(ImageFolder(tmp_path / "in", 8, channels))
    assert same(pixels(open_dataset(tmp_path / "out", 8, channels)), wanted)


def test_without_a_resolution_sizes_stay(tmp_path):
    source = photos(tmp_path / "in")
    prepare(source, tmp_path / "out")
    for name in ImageFolder(source, 8).names:
        before, after = Image.open(source / name), Image.open((tmp_path / "out" / name).with_suffix(".png"))
        assert before.size == after.size
        assert np.array_equal(np.asarray(before.convert("RGB")), np.asarray(after))


@pytest.mark.parametrize(("format", "kind"), [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")])
def test_formats(tmp_path, format, kind):
    (tmp_path / "in").mkdir()
    Image.linear_gradient("L").convert("RGB").save(tmp_path / "in" / "a.png")
    prepare(tmp_path / "in", tmp_path / "out", resolution=64, format=format)
    assert Image.open(tmp_path / "out" / f"a.{format}").format == kind
    a, b = (pixels(open_dataset(tmp_path / name, 64))[0].float() for name in ("in", "out"))
    assert (a - b).abs().mean() < (0.1 if format == "png" else 3)


def test_several_processes_make_the_same(tmp_path):
    source = photos(tmp_path / "in", 12)
    (source / "a" / "bad.png").write_bytes(b"no picture")
    for processes in 0, 2:
        made = prepare(source, tmp_path / f"{processes}.zip", processes, resolution=8, labels="folders")
        assert (made.count, list(made.refused)) == (12, ["a/bad.png"])
    assert (tmp_path / "0.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()


def test_names_that_would_be_one_are_told_apart(tmp_path):
    (tmp_path / "in").mkdir()
    for name in "a.png", "a.webp", "A.png", "a-2.png":
        noise().save(tmp_path / "in" / name)
    prepare(tmp_path / "in", tmp_path / "out", resolution=8)
    found = open_dataset(tmp_path / "out", 8)
    assert found.count == 4
    assert len({name.lower() for name in found.names}) == 4


@pytest.mark.parametrize(
    ("names", "files"),
    [
        # Windows knows devices by these names, takes none of these characters, and drops a dot or a space at the end
        (["aux.png", "x/COM1.tar.png", "auxiliary.png"], ["_aux.png", "x/_COM1.tar.png", "auxiliary.png"]),
        (['what? "a:b"|<*>.png', "dot./a .png", "C:\\d\\e.png"], ["what_ _a_b_____.png", "dot_/a_.png", "d/e.png"]),
        # one folder on file systems that do not tell case, and one name on those that compose letters
        (["A/x.png", "a/y.png", "a/X.jpg"], ["A/x.png", "A/y.png", "A/X-2.png"]),
        (["\u00e9.png", "e\u0301.png"], ["\u00e9.png", "e\u0301-2.png"]),
        # a folder is named as a result would be
        (["a.bmp", "a.png/b.png", "c.png/d.png", "c.bmp"], ["a.png", "a.png-2/b.png", "c.png/d.png", "c-2.png"]),
        (["..", "...", "/"], ["picture.png", "_.._.png", "picture-2.png"]),
        # bytes that are no UTF-8, of which nothing would be left, or a hidden file
        (["\udcff\udcfe.png", "\udcff.x.png", "\udcff/inner/x.png"], ["__.png", "_.x.png", "_/inner/x.png"]),
        ([f"{'a' * 199}.b.png", "\u00e9" * 150 + ".png"], [f"{'a' * 199}_.png", "\u00e9" * 100 + ".png"]),
    ],
)
def test_names_suit_every_file_system(names, files):
    made = FileNames("png")
    assert [made.of(name) for name in names] == files


@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_an_empty_folder_is_replaced_where_the_system_does_not_do_it(tmp_path, monkeypatch, kind):
    source, out, replace = photos(tmp_path / "in"), tmp_path / "out", os.replace
    out.mkdir()

    def of_windows(a, b):
        if os.path.isdir(b):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(a))
        replace(a, b)

    monkeypatch.setattr(os, "replace", of_windows)
    prepare(source, out, resolution=8, shard_size=2 if kind == "shards" else None)
    assert open_dataset(out, 8).count == 6


def test_places_that_cannot_be_replaced_are_told_before_the_work(tmp_path):
    source = photos(tmp_path / "in")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    (tmp_path / "out.zip").mkdir()
    with pytest.raises(DataError, match="link is a link or a mounted disk, which no dataset can replace; choose a"):
        prepare(source, tmp_path / "link", resolution=8)
    with pytest.raises(DataError, match=r"out\.zip is a folder, in whose place no zip can be put; choose another OUT"):
        prepare(source, tmp_path / "out.zip", resolution=8)
    assert not list(tmp_path.glob("*.parts"))


@pytest.mark.parametrize("name", ["made", "made/sub"])
def test_a_link_in_the_source_to_the_place_of_the_dataset(tmp_path, name):
    source = photos(tmp_path / "in")
    photos(tmp_path / name)
    (source / "link").symlink_to(tmp_path / name, target_is_directory=True)
    with pytest.raises(DataError, match=r"OUT .* lies in the source .*, to which .*in/link leads; choose"):
        prepare(source, tmp_path / name / "set", resolution=8)


def test_names_within_shards_lead_nowhere_else(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in "../../up.png", "/root.png", ".hidden/x.png", "n\nl.png", "y" * 90 + "/" + "z" * 240 + ".png":
            buffer = io.BytesIO()
            noise().save(buffer, "PNG")
            info = tarfile.TarInfo(name)
            info.size = buffer.tell()
            archive.addfile(info, io.BytesIO(buffer.getvalue()))
    made = prepare(tmp_path / "a.tar", tmp_path / "out", resolution=8)
    found = open_dataset(tmp_path / "out", 8)
    assert (made.count, found.count) == (5, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.tar.index.json", "a.tar", "out"]


def test_links_that_lead_back_end(tmp_path):
    source = photos(tmp_path / "in")
    (source / "a" / "back").symlink_to(source, target_is_directory=True)
    made = prepare(source, tmp_path / "out", resolution=8)
    assert (made.count, dict(made.left_out)) == (6, {"folder linked twice": 1})


def test_what_is_refused_is_named_with_its_reason(tmp_path):
    source = photos(tmp_path / "in", 2)
    (source / "a" / "text.png").write_bytes(b"hello")
    (source / "b" / "cut.png").write_bytes((source / "a" / "0.png").read_bytes()[:300])
    Image.fromarray(np.zeros([8, 8], np.float32)).save(source / "c.tiff")
    made = prepare(source, tmp_path / "out.zip", resolution=8)
    assert made.count == 2
    assert made.refused["a/text.png"] == "not a picture that Pillow can read"
    assert made.refused["b/cut.png"].startswith("damaged or truncated picture (")
    assert made.refused["c.tiff"].startswith("its pixels are floating-point numbers")
    head, *lines = (tmp_path / "out.zip-refused.txt").read_text().splitlines()
    assert head == "# imgops data: pictures that are not used, and why"
    assert lines == [f"{name}: {reason}" for name, reason in made.refused.items()]
    assert open_dataset(tmp_path / "out.zip", 8).count == 2


@pytest.mark.parametrize(("format", "side"), [("webp", 16500), ("jpg", 66000)])
def test_a_picture_that_is_too_large_for_the_format_is_refused(tmp_path, format, side):
    source = photos(tmp_path / "in", 2)
    Image.new("RGB", (side, 4)).save(source / "wide.png")
    made = prepare(source, tmp_path / "out", format=format)
    assert (made.count, list(made.refused)) == (2, ["wide.png"])
    assert made.refused["wide.png"].startswith(f"{'WEBP' if format == 'webp' else 'JPEG'} takes no picture of {side} x")


def test_what_is_to_be_said_of_pictures_is_told_once_for_all(tmp_path):
    source = photos(tmp_path / "in", 2)
    for name in "x.png", "y.png":
        noise().save(source / name, icc_profile=b"damaged" * 40)
    for name in "x.gif", "x.tiff", "x.webp", "y.png":
        noise().save(source / "b" / name, save_all=True, append_images=[noise(), noise()])
    # damage after the first frame
    (source / "b" / "cut.gif").write_bytes((source / "b" / "x.gif").read_bytes()[:-400])
    with pytest.warns(UserWarning, match="first of its frames") as told:
        prepare(source, tmp_path / "out", resolution=8)
    frames, profile = (str(warning.message) for warning in told)
    assert profile.startswith("x.png and 1 more: its color profile is ignored (")
    assert frames == "b/cut.gif and 4 more: the first of its frames or pages is taken"
    # and a run's look at its data says the second as well
    with pytest.warns(UserWarning, match="first of the frames") as told:
        ImageFolder(source, 8).check()
    assert str(told[-1].message) == f"{source}/b/cut.gif and 4 more: the first of the frames or pages is taken"


def test_reports_replace_reports_alone(tmp_path):
    source, report = photos(tmp_path / "in", 2), tmp_path / "out-refused.txt"
    (source / "bad.png").write_bytes(b"x")
    report.write_text("mine")
    with pytest.raises(DataError, match=r"out-refused\.txt is there already, and is no report of imgops data; move it"):
        prepare(source, tmp_path / "out", resolution=8)
    assert report.read_text() == "mine"
    # that of a zip is another file
    prepare(source, tmp_path / "out.zip", resolution=8)
    assert report.read_text() == "mine"
    report.unlink()
    prepare(source, tmp_path / "out", resolution=8)
    assert report.exists()
    (source / "bad.png").unlink()
    shutil.rmtree(tmp_path / "out")
    prepare(source, tmp_path / "out", resolution=8)
    assert not report.exists()


def test_a_class_that_lost_its_pictures_leaves_no_gap(tmp_path):
    for k, name in enumerate(["a", "b", "c"]):
        (tmp_path / "in" / name).mkdir(parents=True)
        noise().save(tmp_path / "in" / name / f"{k}.png")
    (tmp_path / "in" / "b" / "1.png").write_bytes(b"x")
    (tmp_path / "in" / "d").mkdir()
    made = prepare(tmp_path / "in", tmp_path / "out", resolution=8, labels="folders")
    assert (made.class_names, made.lost, made.left_out) == (("a", "c"), ("b",), {"empty folder": 1})
    found = open_dataset(tmp_path / "out", 8)
    assert (found.labels.tolist(), found.class_names) == ([0, 1], ("a", "c"))


@pytest.mark.parametrize("drop", [False, True])
def test_duplicates_are_told_and_may_be_dropped(tmp_path, drop):
    (tmp_path / "in").mkdir()
    one, other = noise(32, 32), Image.radial_gradient("L").resize((32, 32))
    one.save(tmp_path / "in" / "a.png")
    other.save(tmp_path / "in" / "b.png")
    # the same pixels in other files, and nearly the same
    one.save(tmp_path / "in" / "c.bmp")
    one.save(tmp_path / "in" / "d.tiff")
    other.point(lambda v: v // 2 + 3).save(tmp_path / "in" / "e.png")
    # all of one color, which looks like nothing
    for name, color in ("f", "red"), ("g", "blue"):
        Image.new("RGB", (32, 32), color).save(tmp_path / "in" / f"{name}.png")
    made = prepare(tmp_path / "in", tmp_path / "out", resolution=32, drop_duplicates=drop)
    assert made.duplicates == {"c.bmp": "a.png", "d.tiff": "a.png"}
    assert made.similar == {"e.png": "b.png"}
    assert (tmp_path / "out-duplicates.txt").read_text().partition("\n")[2] == (
        "c.bmp: the same as a.png\nd.tiff: the same as a.png\ne.png: looks like b.png\n"
    )
    assert made.count == open_dataset(tmp_path / "out", 32).count == (5 if drop else 7)
