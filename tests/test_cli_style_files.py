"""What ``imgops style`` reads and writes: folders, names, videos that stop and go on, and nothing half written."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageSequence

from imgops.cli._pictures import Reporter
from imgops.data.pictures import write_picture
from imgops.data.pictures.formats import picture_suffixes
from imgops.data.video import VideoWriter, probe_video, read_frames
from imgops.style.prepared import PreparedTransfer
from tests.style_sources import options, write_sources
from tests.test_cli import error, imgops
from tests.videos import UNEVEN, write_uneven

SUFFIXES = picture_suffixes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_sources(tmp_path_factory.mktemp("style"))


def test_folders_by_folders(folder, tmp_path):
    contents, styles = tmp_path / "contents", tmp_path / "styles"
    for place, names in ((contents, ("cat", "dog")), (styles, ("sea", "dog"))):
        place.mkdir()
        for name in names:
            (place / f"{name}.png").write_bytes((folder / f"{name}.png").read_bytes())
    (contents / "notes.txt").write_text("no picture")
    imgops("style", contents, styles, "-o", tmp_path / "out", *options(folder, "adain"))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"cat-sea.png", "cat-dog.png", "dog-sea.png", "dog-dog.png"}


def test_a_name_is_made_from_those_of_the_sources(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    imgops("style", folder / "cat.png", folder / "sea.png", *options(folder, "adain"))
    assert (tmp_path / "cat-sea.png").exists()


@pytest.mark.parametrize("method", ["optimize", "adain"])
def test_a_gif(folder, tmp_path, method):
    with VideoWriter(tmp_path / "in.gif", 10) as video:
        picture = torch.rand(3, 40, 60)
        for shift in range(3):
            video.write(picture.roll(4 * shift, 2))
    out = tmp_path / "out.gif"
    arguments = ("style", tmp_path / "in.gif", folder / "sea.png", "-o", out, "--frame-steps", "1")
    stdout, _ = imgops(*arguments, *options(folder, method))
    assert f"{out}: 3 frames" in stdout
    assert probe_video(out).fps == 10
    assert [frame.shape for frame in read_frames(out)] == [(3, 32, 48)] * 3


@pytest.mark.parametrize(("source", "result"), [("in.gif", "out.gif"), ("in.gif", "out.mp4"), ("in.mp4", "out.mp4")])
def test_times_of_a_video_are_kept(folder, tmp_path, source, result):
    """Read by Pillow and PyAV themselves."""
    if result == "out.mp4":
        av = pytest.importorskip("av")
    if source == "in.gif":
        first, *rest = (Image.new("RGB", (60, 40), (50 * i, 90, 0)) for i in range(6))
        first.save(tmp_path / source, save_all=True, append_images=rest, duration=[100, 100, 1000, 100, 100, 200])
    else:
        write_uneven(tmp_path / source)
    style = folder / "net.safetensors"
    imgops("style", tmp_path / source, style, "-o", tmp_path / result, *options(folder, "fast"))
    if result == "out.gif":
        with Image.open(tmp_path / result) as image:
            shown = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
        assert shown == [100, 100, 1000, 100, 100, 200]
    else:
        with av.open(str(tmp_path / result)) as container:
            starts = [frame.pts * frame.time_base for frame in container.decode(video=0)]
            assert starts == UNEVEN[:-1]
            assert container.duration == 1_600_000


def test_two_results_of_one_name_get_names_of_their_own(folder, tmp_path):
    for name in ("cat.png", "cat.jpg", "CAT.tif", "cat-jpg.png", "dog.png"):
        write_picture(tmp_path / name, torch.rand(3, 20, 30))
    imgops("style", tmp_path, folder / "sea.png", "-o", tmp_path / "out", *options(folder, "adain"))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert len({name.lower() for name in names}) == 5
    assert {"cat-png-sea.png", "CAT-tif-sea.png", "dog-sea.png"} <= names


def test_every_picture_of_a_folder_is_taken_and_the_rest_is_counted(folder, tmp_path):
    """Whatever can be read by itself; not what only looks like a picture, is hidden, or lies deeper."""
    kept = [ending for ending in ("png", "webp", "avif", "jp2", "tga", "pgm", "bmp", "ico") if f".{ending}" in SUFFIXES]
    for ending in kept:
        Image.open(folder / "cat.png").convert("L" if ending == "pgm" else "RGB").save(tmp_path / f"{ending}.{ending}")
    for name in ("a.pdf", "b.txt", "none", ".hidden.png"):
        (tmp_path / name).write_text("no picture")
    (tmp_path / "deeper").mkdir()
    write_picture(tmp_path / "deeper" / "more.png", torch.rand(3, 20, 30))
    (tmp_path / "empty").mkdir()
    _, stderr = imgops("style", tmp_path, folder / "sea.png", "-o", tmp_path / "out", *options(folder, "adain"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{ending}-sea.png" for ending in kept}
    assert "left out: folder (2), .pdf (1), .txt (1), hidden (1), no ending (1)" in stderr
    # once more: results inside the folder are in a folder of their own
    imgops("style", tmp_path, folder / "sea.png", "-o", tmp_path / "out", *options(folder, "adain"))
    assert len(list((tmp_path / "out").iterdir())) == len(kept)
    message = error("style", tmp_path / "empty", folder / "sea.png", *options(folder, "adain"))
    assert "there is nothing in this folder that ends in .png" in message


def test_results_of_an_earlier_run_are_no_contents(folder, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / f"{name}.png").write_bytes((folder / f"{name}.png").read_bytes())
    for run in range(2):
        _, stderr = imgops("style", tmp_path, folder / "sea.png", "-o", tmp_path, *options(folder, "adain"))
        assert {path.name for path in tmp_path.iterdir()} == {"cat.png", "dog.png", "cat-sea.png", "dog-sea.png"}
        assert ("2 of the files are results of an earlier run" in stderr) == (run == 1)


def test_a_name_that_nobody_chose_overwrites_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        imgops("style", folder / "cat.png", folder / "sea.png", *options(folder, "adain"))
    assert {path.name for path in tmp_path.iterdir()} == {"cat-sea.png", "cat-sea-2.png"}


@pytest.mark.parametrize("ending", ["png", "gif"])
def test_a_folder_of_results_keeps_what_others_made(folder, tmp_path, ending):
    """A result of an earlier run is made anew; a file of its name that is none stays, and the result gets a number."""
    out, own = tmp_path / "out", tmp_path / "out" / f"cat-sea.{ending}"
    out.mkdir()
    Image.new("RGB", (8, 8), "red").save(own)
    source = folder / "cat.png"
    if ending == "gif":
        source = tmp_path / "cat.gif"
        with VideoWriter(source, 10) as video:
            for _ in range(2):
                video.write(torch.rand(3, 20, 30))
    before = own.read_bytes()
    for _ in range(2):
        imgops("style", source, folder / "sea.png", "-o", f"{out}/", *options(folder, "adain"))
        assert own.read_bytes() == before
        assert sorted(path.name for path in out.iterdir()) == [f"cat-sea-2.{ending}", f"cat-sea.{ending}"]


def test_a_bad_file_does_not_keep_the_others_from_it(folder, tmp_path):
    contents = tmp_path / "contents"
    contents.mkdir()
    write_picture(contents / "b.png", torch.rand(3, 8, 8))
    (contents / "c.png").write_bytes((folder / "cat.png").read_bytes())
    first, *rest = (Image.effect_noise((60, 40), 90) for _ in range(5))
    first.save(contents / "d.gif", save_all=True, append_images=rest)
    # a picture, a video and an animation that are none, and halves of them
    for name in ("a.png", "e.mp4", "f.webp"):
        (contents / name).write_text("no picture")
    for name, half in (("c.png", "g.png"), ("d.gif", "h.gif")):
        whole = (contents / name).read_bytes()
        (contents / half).write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "out"
    stdout, stderr = imgops("style", contents, folder / "sea.png", "-o", out, *options(folder, "adain"), code=1)
    assert {path.name for path in out.iterdir()} == {"b-sea.png", "c-sea.png", "d-sea.gif"}
    assert len(stdout.splitlines()) == 3
    for name in ("a.png", "e.mp4", "f.webp", "g.png", "h.gif"):
        assert (
            sum(line.startswith(f"imgops: warning: {contents / name} is left out: ") for line in stderr.splitlines())
            == 1
        )
    assert stderr.splitlines()[-1] == "imgops: error: 5 of 8 results could not be made"


def test_a_bad_style_does_not_keep_the_others_from_it(folder, tmp_path):
    (tmp_path / "styles").mkdir()
    (tmp_path / "styles" / "a.png").write_text("no picture")
    (tmp_path / "styles" / "b.png").write_bytes((folder / "sea.png").read_bytes())
    out = tmp_path / "out"
    _, stderr = imgops("style", folder / "cat.png", tmp_path / "styles", "-o", out, *options(folder, "adain"), code=1)
    assert [path.name for path in out.iterdir()] == ["cat-b.png"]
    style = tmp_path / "styles" / "a.png"
    assert f"{folder / 'cat.png'} in the style of {style} is left out: {style}: not a picture" in stderr


@pytest.mark.parametrize("ending", ["webp", "png", "avif", "gif"])
def test_animations_move_where_the_result_can(folder, tmp_path, ending):
    if f".{ending}" not in SUFFIXES:
        pytest.skip(f"this Pillow has no {ending}")
    first, *rest = (Image.new("RGB", (60, 40), (60 * i, 255 - 60 * i, 0)) for i in range(4))
    source = tmp_path / f"a.{ending}"
    first.save(source, save_all=True, append_images=rest, duration=[50, 1200, 30, 250])
    arguments = ("style", source, folder / "net.safetensors", *options(folder, "fast"))
    imgops(*arguments, "-o", tmp_path / "out/")
    (result,) = (tmp_path / "out").iterdir()
    assert result.name == "a-net.gif"
    with Image.open(result) as image:
        assert [frame.info["duration"] for frame in ImageSequence.Iterator(image)] == [50, 1200, 30, 250]
    _, stderr = imgops(*arguments, "-o", tmp_path / "still.png")
    assert f"{source}: the first of 4 frames is taken" in stderr


def test_the_first_of_several_pages(folder, tmp_path):
    first, *rest = (Image.new("RGB", (60, 40), (60 * i, 0, 0)) for i in range(3))
    first.save(tmp_path / "pages.tif", save_all=True, append_images=rest)
    arguments = ("style", tmp_path / "pages.tif", tmp_path / "pages.tif", "-o", tmp_path / "out.png")
    _, stderr = imgops(*arguments, *options(folder, "adain"))
    assert "pages.tif: the first of 3 frames is taken" in stderr


@pytest.mark.parametrize(("method", "result"), [("optimize", "out.gif"), ("adain", "out.gif"), ("fast", "out.mp4")])
def test_a_stopped_video_goes_on(folder, tmp_path, monkeypatch, method, result):
    """To the same bytes as if it had not been stopped."""
    if result == "out.mp4":
        pytest.importorskip("av")
    picture = torch.rand(3, 40, 60)
    with VideoWriter(tmp_path / "in.gif", 10) as video:
        for shift in range(5):
            video.write(picture.roll(3 * shift, 2), 0.1 + 0.05 * shift)
    style = folder / ("net.safetensors" if method == "fast" else "sea.png")
    arguments = ("style", tmp_path / "in.gif", style, *options(folder, method), "--frame-steps", "2")
    imgops(*arguments, "-o", tmp_path / "whole" / result)
    out, update = tmp_path / result, Reporter.update

    def pressed(self, share, picture, state):
        update(self, share, picture, state)
        if state == "frame 2":
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "update", pressed)
        stdout, _ = imgops(*arguments, "-o", out, code=130)
    assert "2 frames of 48 x 32 pixels, stopped (the same command goes on)" in stdout
    assert len(list(read_frames(out))) == 2
    calls, call = [], PreparedTransfer.__call__
    monkeypatch.setattr(PreparedTransfer, "__call__", lambda *given, **named: calls.append(1) or call(*given, **named))
    _, stderr = imgops(*arguments, "-o", out)
    assert "goes on after 2 frames of a stopped job" in stderr
    assert len(calls) == 3
    assert out.read_bytes() == (tmp_path / "whole" / result).read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"in.gif", "whole", result}


def test_a_stopped_video_with_other_settings_begins_anew(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = [Image.new("RGB", (60, 40), (60 * i, 0, 0)) for i in range(3)]
    frames[0].save("in.gif", save_all=True, append_images=frames[1:])
    arguments = ("style", "in.gif", folder / "net.safetensors", *options(folder, "fast"))
    write = VideoWriter.write

    def full(self, *given):
        write(self, *given)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    with monkeypatch.context() as patch:
        patch.setattr(VideoWriter, "write", full)
        assert "in-net.gif: No space left on device" in error(*arguments)
    assert {path.name for path in tmp_path.iterdir()} == {"in.gif", "in-net.gif.frames"}
    _, stderr = imgops(*arguments, "--size", "40")
    assert "in-net.gif.frames: frames of a stopped job with other size are thrown away" in stderr
    assert {path.name for path in tmp_path.iterdir()} == {"in.gif", "in-net.gif"}
    assert [frame.shape for frame in read_frames("in-net.gif")] == [(3, 27, 40)] * 3
    (tmp_path / "in-net-2.gif.frames").mkdir()
    (tmp_path / "in-net-2.gif.frames" / "mine.txt").write_text("mine")
    assert "in-net-2.gif.frames: is in the way of the frames" in error(*arguments)


def test_a_folder_of_networks(folder, tmp_path):
    networks = tmp_path / "networks"
    networks.mkdir()
    for name in ("one", "two"):
        (networks / f"{name}.safetensors").write_bytes((folder / "net.safetensors").read_bytes())
    imgops("style", folder / "cat.png", networks, "-o", tmp_path / "out", *options(folder, "fast"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"cat-one.png", "cat-two.png"}


def test_a_gif_of_one_frame_is_a_picture(folder, tmp_path):
    Image.open(folder / "cat.png").save(tmp_path / "cat.gif")
    imgops("style", tmp_path / "cat.gif", folder / "sea.png", "-o", tmp_path / "out.png", *options(folder, "adain"))
    assert Image.open(tmp_path / "out.png").size == (48, 32)


def test_ctrl_c_keeps_the_picture_as_it_is(folder, tmp_path, monkeypatch):
    out, update, before = tmp_path / "out.png", Reporter.update, signal.getsignal(signal.SIGINT)

    def pressed(self, share, picture, state):
        update(self, share, picture, state)
        if share == pytest.approx(1 / 30, abs=0.03):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Reporter, "update", pressed)
    arguments = ("style", folder / "cat.png", folder / "sea.png", "-o", out, *options(folder), "--steps", "30")
    stdout, _ = imgops(*arguments, code=130)
    assert "48 x 32 pixels, stopped, " in stdout
    assert Image.open(out).size == (48, 32)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_full_disk_leaves_what_was_there(folder, tmp_path, monkeypatch):
    out = tmp_path / "out.png"
    out.write_bytes(b"older")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    message = error("style", folder / "cat.png", folder / "sea.png", "-o", out, *options(folder, "adain"))
    assert "No space left on device" in message
    assert out.read_bytes() == b"older"
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
