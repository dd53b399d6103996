"""``imgops data``: every source becomes a dataset that reads back as the same pictures, ended and begun at will."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import random
import signal
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import error, imgops

from imgops.data import DataError, ImageFolder, PrepareSettings, open_dataset, prepare_dataset
from imgops.data.preparing import _work

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


# crops


def quarters(width: int, height: int) -> Image.Image:
    """Rows of red, then blue; the left half darker than the right one."""
    image = Image.new("RGB", (width, height), (255, 0, 0))
    image.paste((0, 0, 255), (0, height // 2, width, height))
    return image


def test_tall_keeps_the_upper_part(tmp_path):
    (tmp_path / "in").mkdir()
    quarters(16, 32).save(tmp_path / "in" / "tall.png")
    quarters(32, 16).save(tmp_path / "in" / "wide.png")
    prepare(tmp_path / "in", tmp_path / "out", resolution=8, crop="tall")
    tall, wide = pixels(open_dataset(tmp_path / "out", 8))
    assert (tall[0] == 255).all()
    assert wide[2, -1].float().mean() > 200


BOXES = {"csv": "name,x,y,width,height\na.png,30,10,10,10\nb.png, 0, 0, 8, 8\nb.png,90,40,10,10\nc.png,500,0,9,9\n"}
BOXES["json"] = json.dumps(
    [
        dict(zip(("name", "x", "y", "width", "height"), (name, *map(int, rest)), strict=True))
        for name, *rest in (line.split(",") for line in BOXES["csv"].splitlines()[1:])
    ]
)


@pytest.mark.parametrize("kind", BOXES)
def test_boxes_are_kept_with_a_margin(tmp_path, kind):
    for name in "a", "b", "c", "d":
        (tmp_path / "in" / "sub").mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (100, 50), "white")
        image.paste((255, 0, 0), (30, 10, 40, 20))
        image.save(tmp_path / "in" / "sub" / f"{name}.png")
    (tmp_path / f"boxes.{kind}").write_text(BOXES[kind])
    boxes = str(tmp_path / f"boxes.{kind}")
    made = prepare(tmp_path / "in", tmp_path / "out", resolution=8, crop="boxes", boxes=boxes, margin=0.0)
    found = open_dataset(tmp_path / "out", 8)
    assert found.names == ["sub/a.png", "sub/b-2.png", "sub/b.png"]
    assert (found.picture(0)[1] == 0).all()
    assert made.refused == {
        "sub/c.png": "its box lies outside its 100 x 50 pixels",
        "sub/d.png": f"{boxes} has no box for it",
    }
    prepare(tmp_path / "in", tmp_path / "wide", resolution=8, crop="boxes", boxes=boxes, margin=1.0)
    share = (open_dataset(tmp_path / "wide", 8).picture(0)[1] < 128).float().mean()
    assert abs(share - 1 / 9) < 0.05


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("b.csv", "name,x,y\na.png,1,2\n", "line 2 has no width; it gives a name, x, y, width and height"),
        ("b.csv", "name,x,y,width,height\na.png,1,2,x,4\n", "line 2 must have numbers"),
        ("b.csv", "name,x,y,width,height\na.png,1,2\n", "line 2 must have numbers"),
        ("b.csv", "name,x,y,width,height\na.png,1,2,0,4\n", "line 2 must have a name, finite numbers"),
        ("b.csv", "name,x,y,width,height\na.png,1,2,nan,4\n", "line 2 must have a name, finite numbers"),
        ("b.csv", "", "it gives no boxes"),
        ("b.json", "{", "must be JSON, a list of objects"),
        ("b.json", '{"a.png": 1}', "must be a list of objects"),
        ("b.json", "[1]", "entry 0 must have numbers"),
        ("b.json", '[{"name": 1, "x": 1, "y": 1, "width": 1, "height": 1}]', "entry 0 must have a name"),
    ],
)
def test_boxes_that_cannot_be_read(tmp_path, name, text, message):
    source = photos(tmp_path / "in", 1)
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as found:
        prepare(source, tmp_path / "out", resolution=8, crop="boxes", boxes=str(tmp_path / name))
    assert str(found.value).startswith(str(tmp_path / name))


def test_two_boxes_of_one_picture_may_be_the_same(tmp_path):
    (tmp_path / "in").mkdir()
    noise(40, 40).save(tmp_path / "in" / "a.png")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("name,x,y,width,height\na.png,0,0,9,9\na.png,20,20,9,9\na.png,0,0,9,9\n")
    settings = {"resolution": 8, "crop": "boxes", "boxes": str(boxes), "drop_duplicates": True}
    made = prepare(tmp_path / "in", tmp_path / "out", **settings)
    assert (made.count, made.duplicates) == (2, {"a.png, box 3": "a.png"})
    assert open_dataset(tmp_path / "out", 8).names == ["a-2.png", "a.png"]


def test_links_that_lead_back_end(tmp_path):
    source = photos(tmp_path / "in")
    (source / "a" / "back").symlink_to(source, target_is_directory=True)
    made = prepare(source, tmp_path / "out", resolution=8)
    assert (made.count, dict(made.left_out)) == (6, {"folder linked twice": 1})


# refused and duplicate pictures


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
    lines = (tmp_path / "out-refused.txt").read_text().splitlines()
    assert lines == [f"{name}: {reason}" for name, reason in made.refused.items()]
    assert open_dataset(tmp_path / "out.zip", 8).count == 2


def test_a_class_that_lost_its_pictures_leaves_no_gap(tmp_path):
    for k, name in enumerate(["a", "b", "c"]):
        (tmp_path / "in" / name).mkdir(parents=True)
        noise().save(tmp_path / "in" / name / f"{k}.png")
    (tmp_path / "in" / "b" / "1.png").write_bytes(b"x")
    assert prepare(tmp_path / "in", tmp_path / "out", resolution=8, labels="folders").class_names == ("a", "c")
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
    assert (tmp_path / "out-duplicates.txt").read_text() == (
        "c.bmp: the same as a.png\nd.tiff: the same as a.png\ne.png: looks like b.png\n"
    )
    assert made.count == open_dataset(tmp_path / "out", 32).count == (5 if drop else 7)


# going on


def test_a_finished_dataset_is_not_made_anew(tmp_path, monkeypatch):
    source = photos(tmp_path / "in")
    for out in tmp_path / "out", tmp_path / "out.zip":
        prepare(source, out, resolution=8)
    monkeypatch.setattr(_work, "work", None)
    for out in tmp_path / "out", tmp_path / "out.zip":
        before = os.stat(out).st_mtime_ns
        assert prepare(source, out, resolution=8).again
        assert os.stat(out).st_mtime_ns == before
        with pytest.raises(DataError, match="is there already, and was not made of this with these settings"):
            prepare(source, out, resolution=16)
    noise().save(source / "new.png")
    with pytest.raises(DataError, match="is there already, and was not made of this"):
        prepare(source, tmp_path / "out", resolution=8)


def test_an_interrupted_preparation_makes_nothing_twice(tmp_path, monkeypatch):
    source = photos(tmp_path / "in", 9)
    (source / "bad.png").write_bytes(b"x")
    made, real = [], _work.work

    def until(count):
        def work(task, *rest):
            if len(made) == count:
                raise KeyboardInterrupt
            made.append(task.name)
            return real(task, *rest)

        monkeypatch.setattr(_work, "work", work)

    for count in 3, 7:
        until(count)
        with pytest.raises(KeyboardInterrupt):
            prepare(source, tmp_path / "out.zip", resolution=8)
        assert not (tmp_path / "out.zip").exists()
    until(-1)
    prepare(source, tmp_path / "out.zip", resolution=8)
    assert sorted(made) == sorted(ImageFolder(source, 8).names)
    monkeypatch.undo()
    prepare(source, tmp_path / "whole.zip", resolution=8)
    assert (tmp_path / "out.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()
    assert not (tmp_path / "out.zip.parts").exists()


def test_parts_of_another_preparation_are_not_continued(tmp_path, monkeypatch):
    source = photos(tmp_path / "in")
    real = _work.work

    def after(count):
        made = []

        def work(*arguments):
            if len(made) == count:
                raise KeyboardInterrupt
            made.append(real(*arguments))
            return made[-1]

        monkeypatch.setattr(_work, "work", work)

    # where nothing is made yet other settings may follow
    for count, resolution in (0, 32), (1, 8):
        after(count)
        with pytest.raises(KeyboardInterrupt):
            prepare(source, tmp_path / "out", resolution=resolution)
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"out\.parts holds the begin of a dataset that is made of other data or with"):
        prepare(source, tmp_path / "out", resolution=16)
    prepare(source, tmp_path / "out", resolution=8)
    assert open_dataset(tmp_path / "out", 8).count == 6


def test_two_do_not_make_the_same_at_once(tmp_path):
    source = photos(tmp_path / "in")
    said = []

    def tell(done, count, refused):
        with pytest.raises(DataError, match=r"out\.zip\.parts: another process is making this dataset"):
            prepare(source, tmp_path / "out.zip", resolution=8)
        said.append((done, count, refused))

    prepare_dataset(source, tmp_path / "out.zip", PrepareSettings(resolution=8), tell=tell)
    assert said == [(k + 1, 6, 0) for k in range(6)]


@pytest.mark.parametrize("kind", ["folder", "zip", "shards"])
def test_a_kill_at_any_moment_loses_nothing(tmp_path, kind):
    """Twelve kills at random moments; after each of them what is there is whole, or absent."""
    source = photos(tmp_path / "in", 40)
    (source / "bad.png").write_bytes(b"x")
    ending = ".zip" if kind == "zip" else ""
    settings = {"resolution": 64, "labels": "none", "shard_size": 7 if kind == "shards" else None}
    # the first time is slower
    for name in "first", "whole":
        began = time.monotonic()
        prepare(source, tmp_path / f"{name}{ending}", **settings)
        took = time.monotonic() - began
    out = tmp_path / f"out{ending}"
    rng = random.Random(3)
    context = multiprocessing.get_context("fork")
    kills = 0
    while kills < 12:
        process = context.Process(target=prepare, args=(source, out), kwargs=settings)
        process.start()
        time.sleep(rng.random() * took / 4)
        if process.is_alive():
            kills += 1
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        if out.exists():
            assert open_dataset(out, 64).count == 40
            break
        for path in (tmp_path / f"{out.name}.parts").rglob("*.png"):
            if not path.name.startswith("."):
                Image.open(path).load()
    prepare(source, out, **settings)
    assert kills
    assert same(pixels(open_dataset(out, 64)), pixels(open_dataset(tmp_path / f"whole{ending}", 64)))
    assert not list(tmp_path.glob("out*.parts"))
    if kind == "zip":
        assert out.read_bytes() == (tmp_path / "whole.zip").read_bytes()


def test_processes_end_with_the_one_that_started_them(tmp_path):
    source = photos(tmp_path / "in", 3)
    context = multiprocessing.get_context("fork")
    found = context.Queue()

    def run():
        real = _work.ProcessPoolExecutor.submit

        def submit(pool, *arguments):
            future = real(pool, *arguments)
            future.result()
            found.put(list(pool._processes))
            time.sleep(60)

        _work.ProcessPoolExecutor.submit = submit
        prepare(source, tmp_path / "out", 1, resolution=8)

    process = context.Process(target=run)
    process.start()
    (worker,) = found.get(timeout=60)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    deadline = time.monotonic() + 10
    while runs(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not runs(worker), "it goes on alone"


def runs(pid: int) -> bool:
    """Whether there is a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# videos and free sets


def gif(path: Path, count: int = 7) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [Image.new("P", (16, 16), k) for k in range(count)]
    for frame in frames:
        frame.putpalette([v for k in range(count) for v in (30 * k, 0, 255 - 30 * k)])
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    return path


@pytest.mark.parametrize(("every", "numbers"), [(1, range(7)), (3, [0, 3, 6])])
def test_frames_of_a_video(tmp_path, every, numbers):
    prepare(gif(tmp_path / "a.gif"), tmp_path / "out", resolution=8, every=every)
    found = open_dataset(tmp_path / "out", 8)
    assert found.names == [f"a-{k:06d}.png" for k in numbers]
    assert [int(picture[0, 0, 0]) for picture in pixels(found)] == [30 * k for k in numbers]


def test_a_folder_of_videos(tmp_path):
    av = pytest.importorskip("av")
    for name in "x/a.mp4", "y/b.mp4":
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        with av.open(str(tmp_path / "in" / name), "w") as container:
            stream = container.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
            for k in range(5):
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 50 * k, np.uint8))
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    (tmp_path / "in" / "y" / "c.mp4").write_bytes(b"no video")
    made = prepare(tmp_path / "in", tmp_path / "out", resolution=8, every=2, labels="folders")
    assert (made.count, list(made.refused)) == (6, ["y/c.mp4"])
    found = open_dataset(tmp_path / "out", 8)
    assert (found.labels.tolist(), found.class_names) == ([0, 0, 0, 1, 1, 1], ("x", "y"))
    assert all(abs(int(p.float().mean()) - 100 * (k % 3)) < 8 for k, p in enumerate(pixels(found)))


def test_free_sets(tmp_path):
    made = prepare("samples:textures", tmp_path / "out", resolution=(8, 12), limit=9)
    wanted = open_dataset("samples:textures", (8, 12))
    found = open_dataset(tmp_path / "out", (8, 12))
    assert (made.count, made.class_names) == (9, ("brick", "gravel", "retina", "wood"))
    by_class = sorted(range(9), key=lambda k: (k % 4, k))
    assert same(pixels(found), [wanted.picture(k) for k in by_class])
    assert found.labels.tolist() == [k % 4 for k in by_class]


def test_limit(tmp_path):
    source = photos(tmp_path / "in")
    assert prepare(source, tmp_path / "out", resolution=8, limit=4).count == 4
    assert prepare(source, tmp_path / "all", resolution=8, limit=400).count == 6


# the command


def test_the_command(tmp_path):
    source = photos(tmp_path / "in")
    (source / "bad.png").write_bytes(b"x")
    (source / "notes.txt").write_text("left out")
    (source / "a" / "again.png").write_bytes((source / "a" / "0.png").read_bytes())
    out = tmp_path / "out.zip"
    arguments = ("data", source, out, "--resolution", "12x8", "--labels", "none", "--workers", 0)
    stdout, _ = imgops(*arguments)
    assert stdout == (
        f"{out}: 7 pictures, 1 refused ({tmp_path}/out-refused.txt), "
        f"1 the same as another ({tmp_path}/out-duplicates.txt); left out: .txt (1)\n"
    )
    assert open_dataset(out, (8, 12)).count == 7
    assert imgops(*arguments)[0] == f"{out} is finished already\n"
    assert imgops("data", out, tmp_path / "shards", "--shard-size", 3, "--workers", 0, "-q")[0] == ""
    assert open_dataset(tmp_path / "shards", 8).count == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "out"], "nowhere: no such folder or zip"),
        (["in", "in/out"], "OUT in/out lies in the source in; choose another place (see imgops data --help)"),
        (["in", "in"], "OUT in lies in the source in; choose another place (see imgops data --help)"),
        (["in", "."], ".: OUT must be the name of a folder or zip"),
        (["in", ".."], "..: OUT must be the name of a folder or zip"),
        (["in", "out.tar"], "out.tar: OUT is a folder or NAME.zip, or with --shard-size a folder of shards"),
        (
            ["in", "out.zip", "--shard-size", "5"],
            "out.zip: --shard-size makes a folder of shards; OUT must be",
        ),
        (["in", "in.txt"], "in.txt is there already, and was not made of this with these settings"),
        (["in", "out", "--resolution", "wide"], "--resolution takes a side in pixels like 64, or WIDTHxHEIGHT like"),
        (["in", "out", "--resolution", "33"], "--resolution must be a side, or height and width, of 4 to 4096 pixels"),
        (["in", "out", "--crop", "faces"], "--crop must be center, tall or boxes; got 'faces'"),
        (["in", "out", "--crop", "boxes"], "--boxes must be given with crop boxes, and only"),
        (["in", "out", "--crop", "tall"], "--crop must be center where no resolution gives"),
        (["in", "out", "--crop", "boxes", "--boxes", "no.csv", "--resolution", "8"], "no.csv: cannot be read"),
        (["in", "out", "--channels", "4", "--format", "jpg"], "--format must be png or webp for 4 channels"),
        (["in", "out", "--labels", "tags"], "--labels must be file, folders or none; got 'tags'"),
        (["in", "out", "--every", "0"], "--every must be 1 or more; got 0"),
        (["in.txt", "out"], "in.txt: neither a folder nor a zip"),
        (["samples:textures", "out"], "samples:textures: crops of a free set have the size of --resolution"),
        (["samples:nothing", "out", "--resolution", "8"], "samples:nothing: no such sample set"),
        (["a.gif", "out", "--labels", "folders"], "a.gif: this source has no folders"),
        (["broken", "out", "--resolution", "8"], "no picture can be used; all 1 are refused, out-refused.txt says why"),
        (["in"], "OUT is missing: the dataset: a folder, or NAME.zip (see imgops data --help)"),
    ],
)
def test_wrong_input_ends_in_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "in", 1)
    (tmp_path / "in.txt").write_text("x")
    gif(tmp_path / "a.gif")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"x")
    said = error("data", *arguments, *(["--workers", 0] if len(arguments) > 1 else []))
    assert said.startswith(f"imgops: error: {message}")
    assert "\n" not in said
    assert not (tmp_path / "out").exists()
