"""``imgops data`` goes on where it was ended, at any moment, and makes nothing twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import time

import pytest
from PIL import Image

from imgops.data import DataError, ImageFolder, PrepareSettings, open_dataset, prepare_dataset
from imgops.data.preparing import _work
from tests.test_preparing import noise, photos, pixels, prepare, same


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


@pytest.mark.parametrize("file", ["mine.txt", "pictures/mine.png"])
def test_what_is_not_ours_stays(tmp_path, file):
    source, mine = photos(tmp_path / "in"), tmp_path / "out.parts" / file
    mine.parent.mkdir(parents=True)
    mine.write_text("dear")
    with pytest.raises(DataError, match=r"out\.parts is there already, and holds no begun dataset; move it, or choose"):
        prepare(source, tmp_path / "out", resolution=8)
    assert mine.read_text() == "dear"
    # what is put in later, while it grows and when it is finished
    shutil.rmtree(tmp_path / "out.parts")
    mine = tmp_path / "out.parts" / "mine.txt"
    tell = lambda *_: mine.write_text("dear")  # noqa: E731
    prepare_dataset(source, tmp_path / "out", PrepareSettings(resolution=8), tell=tell)
    assert prepare(source, tmp_path / "out", resolution=8).again
    assert os.listdir(tmp_path / "out.parts") == ["mine.txt"]


@pytest.mark.parametrize("left", [b"\0\0\0\n", b'["x.png", "0', b"\xff\n[1]\n"])
def test_what_a_power_cut_leaves_of_the_record_is_made_again(tmp_path, monkeypatch, left):
    source, real, made = photos(tmp_path / "in"), _work.work, []

    def work(task, *rest):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(task.name)
        return real(task, *rest)

    monkeypatch.setattr(_work, "work", work)
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "out", resolution=8)
    record = tmp_path / "out.parts" / "done.jsonl"
    lines = record.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    record.write_bytes(b"".join(lines[:3]) + left)
    # and of a result that is recorded
    (tmp_path / "out.parts" / "pictures" / json.loads(lines[1])[0]).write_bytes(b"")
    made.clear()
    monkeypatch.setattr(_work, "work", lambda task, *rest: made.append(task.name) or real(task, *rest))
    assert prepare(source, tmp_path / "out", resolution=8).count == 6
    assert len(made) == 5
    assert same(pixels(open_dataset(tmp_path / "out", 8)), pixels(ImageFolder(source, 8)))


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
