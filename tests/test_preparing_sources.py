"""``imgops data`` on videos and free sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imgops.data import PrepareSettings, open_dataset
from imgops.data.preparing._journal import Journal
from imgops.data.preparing._making import make_all
from imgops.data.preparing.items import Item, Source
from tests.test_preparing import photos, pixels, prepare, same


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


def test_videos_that_differ_in_their_ending_alone(tmp_path, monkeypatch):
    frames = {"a.mkv": torch.rand(3, 3, 8, 8), "a.mp4": torch.ones(3, 3, 8, 8), "b.mp4": torch.zeros(1, 3, 8, 8)}
    (tmp_path / "in").mkdir()
    for name in [*frames, "c.flv", ".hidden"]:
        (tmp_path / "in" / name).touch()
    monkeypatch.setattr("imgops.data.preparing.sources.read_frames", lambda path: frames[path.name])
    made = prepare(tmp_path / "in", tmp_path / "out", drop_duplicates=True)
    first, *rest = (f"a.mp4-00000{k}.png" for k in range(3))
    assert made.left_out == {".flv": 1, "hidden": 1}
    assert made.duplicates == dict.fromkeys(rest, first)
    wanted = [*(f"a.mkv-00000{k}.png" for k in range(3)), first, "b-000000.png"]
    assert open_dataset(tmp_path / "out", 8).names == wanted


def test_pictures_of_one_name_are_told_apart(tmp_path):
    one, other = (np.full((8, 8, 3), k, np.uint8) for k in (30, 90))
    source = Source([Item("a.png", lambda p=p: p) for p in (one, other, other)])
    with Journal(tmp_path / "out.parts", {}) as journal:
        results = make_all(source, PrepareSettings(), journal, 0, lambda *_: None)
    assert [wanted.name for wanted, _ in results] == ["a.png", "a.png (a-2.png)", "a.png (a-3.png)"]


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
