"""GIFs and other animations in and out: frames, their times and colors; they need no PyAV."""

from __future__ import annotations

import json
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence, features

import imgops.data
from imgops.data import VideoInfo, VideoWriter, probe_video, read_frames, read_video_settings
from tests.videos import SETTINGS, difference, durations, moving, names, write


def test_gif_there_and_back(tmp_path):
    frames = moving(6, 47, 63)
    path = write(tmp_path / "made" / "a.gif", frames, 25, settings=SETTINGS)
    assert names(path.parent) == ["a.gif"]
    assert probe_video(path) == VideoInfo(63, 47, Fraction(25), 6, False, Fraction(1, 25))
    assert read_video_settings(path) == SETTINGS
    back = list(read_frames(path))
    assert len(back) == 6
    for old, new in zip(frames, back, strict=True):
        assert new.dtype == torch.float32
        assert new.shape == old.shape
        # 256 colors: about as far as a palette of them is from a photograph
        assert difference(old, new) < 4
    # two frames are further apart than that, so the order is right
    assert difference(frames[0], frames[1]) > 6
    with Image.open(path) as image:
        assert image.info["loop"] == 0


def test_colors_of_a_gif_are_kept_where_there_are_few(tmp_path):
    """Each frame has a palette of its own: 200 colors in each of 3, all kept to rounding."""
    generator = torch.Generator().manual_seed(0)
    palettes = torch.randint(0, 256, (3, 3, 200), generator=generator) / 255
    frames = [palette[:, torch.randint(0, 200, (20, 30), generator=generator)] for palette in palettes]
    for old, new in zip(frames, read_frames(write(tmp_path / "a.gif", frames)), strict=True):
        torch.testing.assert_close(old, new, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("fps", "count", "times"),
    [
        (25, 4, [40] * 4),
        (10.0, 3, [100] * 3),
        # 33 1/3 ms each
        (30, 6, [30, 40, 30, 30, 40, 30]),
        (Fraction(30000, 1001), 3, [30, 40, 30]),
        # a frame cannot be shorter than 20 ms: 12 frames in 0.1 s become 5
        (120, 12, [20] * 5),
        (0.5, 2, [2000, 2000]),
    ],
)
def test_times_of_a_gif(fps, count, times, tmp_path):
    frames = [torch.full((3, 8, 8), i / 20) for i in range(count)]
    path = write(tmp_path / "a.gif", frames, fps)
    with Image.open(path) as image:
        written = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
    assert sum(written) == sum(times) == round(100 * count / fps) * 10
    assert sorted(written) == sorted(times)
    assert probe_video(path).fps == Fraction(1000 * len(times), sum(times))


def test_frames_of_a_gif_are_laid_over_those_before(tmp_path):
    """Sprites on transparency: one kind stays, the other is taken away before the next; against sums by hand."""
    sprites = []
    for i, color in enumerate(((255, 0, 0), (0, 255, 0), (0, 0, 255))):
        sprite = np.zeros((12, 20, 4), np.uint8)
        sprite[3 + i : 9 + i, 4 * i : 4 * i + 8] = (*color, 255)
        sprites.append(sprite)
    for disposal, name in ((1, "stay.gif"), (2, "go.gif")):
        first, *rest = map(Image.fromarray, sprites)
        first.save(tmp_path / name, save_all=True, append_images=rest, duration=[50, 0, 250], disposal=disposal, loop=0)
        canvas = np.full((12, 20, 3), 255, np.uint8)
        for sprite, frame in zip(sprites, read_frames(tmp_path / name), strict=True):
            canvas = np.where(sprite[..., 3:] > 0, sprite[..., :3], canvas if disposal == 1 else 255)
            assert np.array_equal(canvas, (frame * 255).round().byte().permute(1, 2, 0).numpy())
        # the time of 0 is 100 ms in viewers
        assert probe_video(tmp_path / name) == VideoInfo(20, 12, Fraction(3000, 400), 3, False, Fraction(1, 20))


def test_still_and_gray_gifs(tmp_path):
    Image.fromarray(np.full((5, 7), 51, np.uint8)).save(tmp_path / "still.gif")
    (frame,) = read_frames(tmp_path / "still.gif")
    torch.testing.assert_close(frame, torch.full((3, 5, 7), 0.2))
    assert probe_video(tmp_path / "still.gif") == VideoInfo(7, 5, Fraction(10), 1, False, Fraction(1, 10))
    assert read_video_settings(tmp_path / "still.gif") is None


def test_a_gif_needs_no_pyav_and_the_others_say_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.delitem(sys.modules, "imgops.data.video._av", raising=False)
    monkeypatch.delattr(imgops.data.video, "_av", raising=False)
    assert len(list(read_frames(write(tmp_path / "a.gif", torch.rand(2, 3, 8, 8))))) == 2
    (tmp_path / "a.mp4").write_bytes(b"something")
    for call in (lambda p: VideoWriter(p, 25), read_frames, probe_video):
        with pytest.raises(ImportError, match=r"a\.mp4: .* PyAV .*; install it with pip install 'imgops\[video\]'"):
            call(tmp_path / "a.mp4")


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "avif"])
def test_animations_are_read_with_their_times(ending, tmp_path):
    if ending in ("webp", "avif") and not features.check(ending):
        pytest.skip(f"this Pillow has no {ending}")
    times = [50, 1200, 30, 250]
    first, *rest = (Image.new("RGB", (20, 12), (60 * i, 255 - 60 * i, 0)) for i in range(4))
    path = tmp_path / f"a.{ending}"
    first.save(path, save_all=True, append_images=rest, duration=times, loop=0)
    assert imgops.data.is_moving(path)
    assert durations(path) == [Fraction(time, 1000) for time in times]
    info = probe_video(path)
    assert (info.frames, info.fps) == (4, Fraction(4000, sum(times)))
    assert all((duration / info.time_base).denominator == 1 for duration in durations(path))
    for i, frame in enumerate(read_frames(path)):
        assert (frame[:, 6, 10] * 255 - torch.tensor([60.0 * i, 255 - 60 * i, 0])).abs().max() < 6


def test_what_does_not_move(tmp_path):
    from imgops.data.video.animation import count_frames

    first, *rest = (Image.new("RGB", (20, 12), (60 * i, 0, 0)) for i in range(3))
    first.save(tmp_path / "pages.tif", save_all=True, append_images=rest)
    first.save(tmp_path / "a.png")
    # the first picture of this one is for viewers that show no animation
    first.save(tmp_path / "b.png", save_all=True, append_images=rest, default_image=True, duration=[20, 30])
    assert [imgops.data.is_moving(tmp_path / name) for name in ("pages.tif", "a.png", "b.png")] == [False, False, True]
    assert [count_frames(tmp_path / name) for name in ("pages.tif", "a.png")] == [3, 1]
    assert durations(tmp_path / "b.png") == [Fraction(20, 1000), Fraction(30, 1000)]
    assert len(list(read_frames(tmp_path / "a.png"))) == 1


def test_comments_of_others_are_no_settings(tmp_path):
    for comment in (b"hello", b"[1]", json.dumps({"imgops": 5}).encode(), b'"text"'):
        Image.new("L", (4, 4)).save(tmp_path / "a.gif", comment=comment)
        assert read_video_settings(tmp_path / "a.gif") is None
