"""Videos in and out: frames, their times and colors."""

from __future__ import annotations

import doctest
from fractions import Fraction

import numpy as np
import pytest
import torch

import imgops.data
import imgops.data.video.frames
from imgops.data import VideoInfo, VideoWriter, is_video, probe_video, read_frames, read_video_settings
from tests.videos import MOVIES, SETTINGS, difference, durations, moving, names, write, write_uneven


def test_endings():
    assert all(is_video(f"a{ending}") for ending in (".mp4", ".MOV", ".mkv", ".webm", ".avi", ".gif"))
    assert not any(is_video(name) for name in ("a.png", "a", "gif", "a.mp4.jpg"))


@pytest.mark.parametrize("name", MOVIES)
def test_movies_there_and_back(name, tmp_path):
    pytest.importorskip("av")
    frames = moving(7, 47, 63)
    path = write(tmp_path / "with: colon" / name, frames, Fraction(30000, 1001), settings=SETTINGS)
    assert names(path.parent) == [name]
    time_base = Fraction(1, 30000 if name in ("a.mp4", "a.mov") else 1000)
    assert probe_video(path) == VideoInfo(64, 48, Fraction(30000, 1001), 7, False, time_base)
    assert read_video_settings(path) == SETTINGS
    back = list(read_frames(path))
    assert len(back) == 7
    for old, new in zip(frames, back, strict=True):
        assert new.shape == (3, 48, 64)
        # the sides were odd: the last row and column twice
        even = torch.cat([old, old[:, -1:]], 1)
        even = torch.cat([even, even[..., -1:]], 2)
        assert difference(even, new) < 6
        # and no bias: a wrong range would shift a mean by 10 and more, the encoder by about 1, not the same every time
        assert ((even - new).mean((1, 2)).abs() * 255).max() < 2
    assert difference(frames[0], frames[1]) > 6


@pytest.mark.parametrize("name", MOVIES)
def test_colors_of_movies(name, tmp_path):
    """Saturated fields come back as they were: both ways take the same matrix and range."""
    av = pytest.importorskip("av")
    fields = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0], [0.8, 0.6, 0.4]])
    frame = fields.T[:, None, :].repeat_interleave(32, 2).expand(3, 32, -1)
    path = write(tmp_path / name, [frame] * 3)
    for back in read_frames(path):
        assert ((back[:, 16, 16::32] - fields.T).abs() * 255).max() < 4
    with av.open(str(path)) as container:
        shown = next(container.decode(video=0))
    # written down for players: BT.709, 16 to 235
    assert (shown.colorspace, shown.color_range, shown.format.name) == (1, 1, "yuv420p")


@pytest.mark.parametrize(("height", "matrix"), [(96, "ITU601"), (720, "ITU709")])
def test_a_video_that_names_no_matrix(height, matrix, tmp_path):
    av = pytest.importorskip("av")
    green = np.zeros((height, 64, 3), np.uint8)
    green[..., 1] = 200
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, width=64, height=height, pix_fmt="yuv420p")
        frame = av.VideoFrame.from_ndarray(green).reformat(format="yuv420p", dst_colorspace=matrix)
        # the frame forgets its matrix
        frame.colorspace = 2
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (frame,) = read_frames(tmp_path / "a.mp4")
    assert ((frame.mean((1, 2)) * 255) - torch.tensor([0.0, 200, 0])).abs().max() < 4


def test_turned_videos_are_upright(tmp_path):
    """A telephone's: the matrix in the track's head says a quarter turn clockwise (ISO 14496-12, 8.3.2)."""
    pytest.importorskip("av")
    path = write(tmp_path / "a.mp4", moving(2))
    plain = list(read_frames(path))
    content = path.read_bytes()
    at = content.index(b"tkhd") + 4 + 40
    one = 1 << 16
    assert content[at : at + 36] == np.array([one, 0, 0, 0, one, 0, 0, 0, 1 << 30], ">i4").tobytes()
    turned = np.array([0, one, 0, -one, 0, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(content[:at] + turned + content[at + 36 :])
    info = probe_video(path)
    assert (info.width, info.height) == (48, 64)
    for old, new in zip(plain, read_frames(path), strict=True):
        # the top row is now the right column
        assert torch.equal(new[:, :, -1], old[:, 0])
        assert torch.equal(new, old.transpose(1, 2).flip(2))


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv", "out.webm", "out.gif"])
@pytest.mark.parametrize(
    ("source", "codec", "ticks"),
    [("in.mp4", "libx264", 90000), ("in.mp4", "libx264", 15360), ("in.mkv", "libx264", 1000), ("in.webm", "vp9", 1000)],
)
def test_times_are_carried_over(source, codec, ticks, name, tmp_path):
    pytest.importorskip("av")
    codec = "libvpx-vp9" if codec == "vp9" else codec
    source = write_uneven(tmp_path / source, codec, ticks)
    info, frames = probe_video(source), list(imgops.data.read_timed_frames(source))
    assert [round(10 * frame.duration) for frame in frames[:5]] == [1, 1, 10, 1, 1]
    with VideoWriter(tmp_path / name, info.fps, time_base=info.time_base) as video:
        for frame in frames:
            video.write(frame.pixels, frame.duration)
    # a GIF has hundredths of a second, Matroska and WebM have thousandths
    coarsest = {".gif": 100, ".mkv": 1000, ".webm": 1000}.get(name[3:], ticks)
    for kept, given in zip(durations(tmp_path / name), (frame.duration for frame in frames), strict=True):
        assert kept == Fraction(round(given * coarsest), coarsest)


def test_examples_run():
    failed, tried = doctest.testmod(imgops.data.video.frames)
    assert tried
    assert failed == 0
