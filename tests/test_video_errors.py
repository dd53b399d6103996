"""Files that are no videos, and writing that fails: one line, and files that are whole or absent."""

from __future__ import annotations

import errno
import os
import resource
import signal
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from imgops.data import DataError, VideoWriter, probe_video, read_frames, write_picture
from tests.videos import MOVIES, moving, names, write


@pytest.mark.parametrize("name", ["a.gif", *MOVIES])
def test_files_that_are_no_videos(name, tmp_path):
    if name != "a.gif":
        pytest.importorskip("av")
    path = write(tmp_path / name, moving(3))
    whole = path.read_bytes()
    for content, message in (
        (b"", "the file is empty"),
        (b"hello, this is text\n" * 30, "not a (GIF|video) that"),
        (whole[: len(whole) // 5], "not a|damaged"),
    ):
        path.write_bytes(content)
        for read in (lambda p: list(read_frames(p)), probe_video):
            with pytest.raises(DataError, match=message) as raised:
                read(path)
            assert str(raised.value).startswith(f"{path}: ")
            assert "\n" not in str(raised.value)


def test_frames_before_a_damage_are_given(tmp_path):
    """Reading is lazy: the first frames of a truncated GIF, then the error."""
    path = write(tmp_path / "a.gif", moving(6))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    frames = read_frames(path)
    assert next(frames).shape == (3, 48, 64)
    with pytest.raises(DataError, match=r"damaged or truncated GIF at frame [1-5]"):
        list(frames)


def test_bad_input(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    for call, message in (
        (lambda: read_frames(tmp_path / "a.txt"), r"a\.txt: videos are read from \.mp4, "),
        (lambda: VideoWriter(tmp_path / "a.avi", 25), r"written as \.mp4, .*; got '\.avi'"),
        (lambda: VideoWriter(tmp_path / "a", 25), "got 'no ending'"),
        (lambda: VideoWriter(tmp_path / "a.gif", 0), "fps must be > 0; got 0"),
        (lambda: VideoWriter(tmp_path / "a.gif", float("nan")), "fps must be > 0; got nan"),
        (lambda: VideoWriter(tmp_path / "a.gif", 5, time_base=Fraction(0)), "time_base must be > 0; got 0"),
        (lambda: VideoWriter(tmp_path / "a.gif", 5, audio_from="b.mp4"), r"a\.gif: a GIF has no sound"),
        (lambda: VideoWriter(tmp_path / "a.gif", 5).write(torch.zeros(3, 8, 8)), "use it in a with statement"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(FileNotFoundError):
        read_frames(tmp_path / "missing.gif")
    assert names(tmp_path) == ["a.txt"]


@pytest.fixture(params=["a.gif", "a.mp4", "a.webm"])
def earlier(request, tmp_path):
    """What is there where a video will be written."""
    if request.param != "a.gif":
        pytest.importorskip("av")
    path = tmp_path / request.param
    path.write_bytes(b"before")
    return path


def test_what_fails_leaves_what_was_there(earlier):
    frames = [torch.rand(3, 16, 16)] * 3
    for bad, message in (
        ([], rf"{earlier.name}: a video needs at least one frame; got none"),
        ([*frames, torch.rand(3, 16, 18)], r"frame is \(16, 18\) pixels high and wide, the first was \(16, 16\)"),
        ([*frames, torch.rand(1, 16, 16)], r"frame must be \[3, H, W\]; got \(1, 16, 16\)"),
    ):
        with pytest.raises(ValueError, match=message):
            write(earlier, bad)
        assert names(earlier.parent) == [earlier.name]
    with pytest.raises(KeyboardInterrupt), VideoWriter(earlier, 25) as video:  # noqa: PT012
        video.write(frames[0])
        raise KeyboardInterrupt
    assert names(earlier.parent) == [earlier.name]
    assert earlier.read_bytes() == b"before"


def test_a_disk_that_is_full(earlier):
    """A limit on the size of files stands in for the disk."""
    frames = torch.rand(8, 3, 96, 96)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write(earlier, frames)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(earlier.parent) == [earlier.name]
    assert earlier.read_bytes() == b"before"


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.mp4", "a.webm"])
@pytest.mark.parametrize("where", ["opened", "synced", "renamed"])
def test_errors_of_writing_name_the_file_that_was_asked_for(name, where, tmp_path, monkeypatch):
    """Not the one that is written beside its place, whether the system names that or none."""
    if name in ("a.mp4", "a.webm"):
        pytest.importorskip("av")
    path = tmp_path / name

    def refuse(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *map(str, arguments[:1] if where == "opened" else ()))

    monkeypatch.setattr(*{"opened": (Path, "touch"), "renamed": (os, "replace")}.get(where, (os, "fsync")), refuse)
    if (name, where) == ("a.png", "opened"):
        monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(OSError, match="No space left on device") as raised:
        write_picture(path, torch.rand(3, 8, 8)) if name == "a.png" else write(path, torch.rand(2, 3, 8, 8))
    monkeypatch.undo()
    assert raised.value.filename == str(path)
    assert raised.value.errno == errno.ENOSPC
    assert names(tmp_path) == []


def test_a_name_as_long_as_the_system_allows(tmp_path):
    for name in ("x" * 251 + ".png", "ä" * 125 + ".gif"):
        path = tmp_path / name
        write_picture(path, torch.rand(3, 8, 8)) if name.endswith("png") else write(path, torch.rand(2, 3, 8, 8))
        assert names(tmp_path) == [name]
        path.unlink()


def test_what_is_known_before_the_work_is_said_before_it(tmp_path):
    """A source of sound that is missing or none: when the writer is made or opened, without a trace."""
    pytest.importorskip("av")
    with pytest.raises(FileNotFoundError):
        VideoWriter(tmp_path / "a.mp4", 25, audio_from=tmp_path / "missing.mp4")
    (tmp_path / "text.mp4").write_text("this is no video\n" * 9)
    writer = VideoWriter(tmp_path / "a.mp4", 25, audio_from=tmp_path / "text.mp4")
    with pytest.raises(DataError, match=r"text\.mp4: not a video"), writer:
        pytest.fail("the block must not begin")
    assert names(tmp_path) == ["text.mp4"]
