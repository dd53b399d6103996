"""Videos and GIFs in and out: frames, their times and colours, sound, and files that are whole or absent."""

from __future__ import annotations

import doctest
import errno
import itertools
import json
import os
import resource
import signal
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence, features

import imgops.data
import imgops.data.video
from imgops.data import (
    DataError,
    VideoInfo,
    VideoWriter,
    is_video,
    probe_video,
    read_frames,
    read_picture,
    read_video_settings,
    resize_picture,
    write_picture,
)

SETTINGS = {"method": "optimize", "seed": 3, "style": "Größe.png", "note": "x" * 700}
MOVIES = ("a.mp4", "a.mov", "a.mkv", "a.webm")


@pytest.fixture(scope="module")
def photograph():
    return resize_picture(read_picture("samples:coffee").pixels, 96)


def moving(photograph, count, height=48, width=64):
    """Frames of a window that wanders over a photograph."""
    return [photograph[:, i : i + height, 2 * i : 2 * i + width] for i in range(count)]


def write(path, frames, fps=25, **options):
    with VideoWriter(path, fps, **options) as video:
        for frame in frames:
            video.write(frame)
    return path


def difference(a, b):
    """The mean over all pixels, in levels of 255."""
    return (a - b).abs().mean().item() * 255


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_endings():
    assert all(is_video(f"a{ending}") for ending in (".mp4", ".MOV", ".mkv", ".webm", ".avi", ".gif"))
    assert not any(is_video(name) for name in ("a.png", "a", "gif", "a.mp4.jpg"))


def test_gif_there_and_back(photograph, tmp_path):
    frames = moving(photograph, 6, 47, 63)
    path = write(tmp_path / "made" / "a.gif", frames, 25, settings=SETTINGS)
    assert names(path.parent) == ["a.gif"]
    assert probe_video(path) == VideoInfo(63, 47, Fraction(25), 6, False, Fraction(1, 25))
    assert read_video_settings(path) == SETTINGS
    back = list(read_frames(path))
    assert len(back) == 6
    for old, new in zip(frames, back, strict=True):
        assert new.dtype == torch.float32
        assert new.shape == old.shape
        # 256 colours: about as far as a palette of them is from a photograph
        assert difference(old, new) < 4
    # two frames are further apart than that, so the order is right
    assert difference(frames[0], frames[1]) > 6
    with Image.open(path) as image:
        assert image.info["loop"] == 0


def test_colours_of_a_gif_are_kept_where_there_are_few(tmp_path):
    """Each frame has a palette of its own: 200 colours in each of 3, all kept to rounding."""
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
    for i, colour in enumerate(((255, 0, 0), (0, 255, 0), (0, 0, 255))):
        sprite = np.zeros((12, 20, 4), np.uint8)
        sprite[3 + i : 9 + i, 4 * i : 4 * i + 8] = (*colour, 255)
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


def test_still_and_grey_gifs(tmp_path):
    Image.fromarray(np.full((5, 7), 51, np.uint8)).save(tmp_path / "still.gif")
    (frame,) = read_frames(tmp_path / "still.gif")
    torch.testing.assert_close(frame, torch.full((3, 5, 7), 0.2))
    assert probe_video(tmp_path / "still.gif") == VideoInfo(7, 5, Fraction(10), 1, False, Fraction(1, 10))
    assert read_video_settings(tmp_path / "still.gif") is None


def test_a_gif_needs_no_pyav_and_the_others_say_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.delitem(sys.modules, "imgops.data._av", raising=False)
    monkeypatch.delattr(imgops.data, "_av", raising=False)
    assert len(list(read_frames(write(tmp_path / "a.gif", torch.rand(2, 3, 8, 8))))) == 2
    (tmp_path / "a.mp4").write_bytes(b"something")
    for call in (lambda p: VideoWriter(p, 25), read_frames, probe_video):
        with pytest.raises(ImportError, match=r"a\.mp4: .* PyAV .*; install it with pip install 'imgops\[video\]'"):
            call(tmp_path / "a.mp4")


@pytest.mark.parametrize("name", MOVIES)
def test_movies_there_and_back(name, photograph, tmp_path):
    pytest.importorskip("av")
    frames = moving(photograph, 7, 47, 63)
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
        # and no bias
        assert ((even - new).mean((1, 2)).abs() * 255).max() < 1
    assert difference(frames[0], frames[1]) > 6


@pytest.mark.parametrize("name", MOVIES)
def test_colours_of_movies(name, tmp_path):
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


def test_turned_videos_are_upright(photograph, tmp_path):
    """A telephone's: the matrix in the track's head says a quarter turn clockwise (ISO 14496-12, 8.3.2)."""
    pytest.importorskip("av")
    path = write(tmp_path / "a.mp4", moving(photograph, 2))
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


#: where frames of a variable rate begin and the last one ends, s
UNEVEN = [Fraction(tenths, 10) for tenths in (0, 1, 2, 12, 13, 14, 16)]


def durations(path):
    return [frame.duration for frame in imgops.data.read_timed_frames(path)]


def write_uneven(path, codec="libx264", ticks=90000, sound=None):
    """A clip of a variable frame rate, made by PyAV alone, of grey frames; with a tone in the time of its third."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, width=32, height=32, pix_fmt="yuv420p")
        stream.codec_context.time_base = Fraction(1, ticks)
        tone = None if sound is None else container.add_stream(sound, rate=48000, layout="mono")
        for i, start in enumerate(UNEVEN[:-1]):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 40 * i, np.uint8)).reformat(format="yuv420p")
            frame.pts, frame.time_base = round(start * ticks), Fraction(1, ticks)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            # the last frame's, which x264 leaves out
            packet.duration = round((UNEVEN[-1] - UNEVEN[-2]) * ticks)
            container.mux(packet)
        if tone is not None:
            time = np.arange(round(48000 * UNEVEN[-1])) / 48000
            samples = np.sin(2 * np.pi * 440 * time) * ((time >= 0.2) & (time < 1.2))
            frame = av.AudioFrame.from_ndarray(samples.astype(np.float32)[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
            container.mux(tone.encode(frame))
            container.mux(tone.encode(None))
    return path


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


def test_sound_stays_in_step_with_frames_of_a_variable_rate(tmp_path):
    pytest.importorskip("av")
    source = write_uneven(tmp_path / "in.mkv", ticks=1000, sound="aac")
    info = probe_video(source)
    path = tmp_path / "out.mp4"
    with VideoWriter(path, info.fps, time_base=info.time_base, audio_from=source) as video:
        for frame in imgops.data.read_timed_frames(source):
            video.write(frame.pixels, frame.duration)
    assert durations(path) == [end - start for start, end in itertools.pairwise(UNEVEN)]
    ((_, before, *_),) = read_sound(source)
    ((_, after, samples, rate),) = read_sound(path)
    assert after == before
    # the tone begins and ends with the third frame
    loud = np.flatnonzero(np.abs(samples) > 0.2) / rate
    assert (abs(loud[0] - 0.2), abs(loud[-1] - 1.2)) < (0.03, 0.03)


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
    from imgops.data._animation import count_frames

    first, *rest = (Image.new("RGB", (20, 12), (60 * i, 0, 0)) for i in range(3))
    first.save(tmp_path / "pages.tif", save_all=True, append_images=rest)
    first.save(tmp_path / "a.png")
    # the first picture of this one is for viewers that show no animation
    first.save(tmp_path / "b.png", save_all=True, append_images=rest, default_image=True, duration=[20, 30])
    assert [imgops.data.is_moving(tmp_path / name) for name in ("pages.tif", "a.png", "b.png")] == [False, False, True]
    assert [count_frames(tmp_path / name) for name in ("pages.tif", "a.png")] == [3, 1]
    assert durations(tmp_path / "b.png") == [Fraction(20, 1000), Fraction(30, 1000)]
    assert len(list(read_frames(tmp_path / "a.png"))) == 1


def write_sound(path, codec, seconds=0.5, streams=1, pictures=None, start=0):
    """A tone of 440 Hz (880 Hz in the second stream), with pictures where asked for, that begin at ``start``, s."""
    import av

    rate = 48000
    with av.open(str(path), "w") as container:
        video = None
        if pictures is not None:
            video = container.add_stream("libx264", rate=25, width=32, height=32, pix_fmt="yuv420p")
        sounds = [container.add_stream(codec, rate=rate, layout="mono") for _ in range(streams)]
        for i in range(pictures or 0):
            grey = np.full((32, 32, 3), 100, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey).reformat(format="yuv420p")
            frame.pts, frame.time_base = i + 25 * start, Fraction(1, 25)
            container.mux(video.encode(frame))
        if video is not None:
            container.mux(video.encode(None))
        time = np.arange(round(rate * seconds)) / rate
        for number, sound in enumerate(sounds, 1):
            samples = (0.5 * np.sin(2 * np.pi * 440 * number * time)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, rate * start, Fraction(1, rate)
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


def read_sound(path):
    """[(codec, packets, samples, rate)] of each of a file's sounds."""
    import av

    found = []
    with av.open(str(path)) as container:
        count = len(container.streams.audio)
    for index in range(count):
        with av.open(str(path)) as container:
            stream = container.streams.audio[index]
            packets = [p for p in container.demux(stream) if p.dts is not None]
            parts = [f.to_ndarray().mean(0) for p in packets for f in p.decode()]
            found.append((stream.codec.canonical_name, [bytes(p) for p in packets], np.concatenate(parts), stream.rate))
    return found


def pitch(samples, rate):
    """The strongest frequency, Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return spectrum.argmax() * rate / len(samples)


@pytest.mark.parametrize(
    ("source", "codec", "name", "kept"),
    [
        ("in.mp4", "aac", "a.mp4", "aac"),
        ("in.mp4", "aac", "a.mov", "aac"),
        ("in.mp4", "aac", "a.mkv", "aac"),
        ("in.mkv", "libopus", "a.webm", "opus"),
        ("in.mkv", "libmp3lame", "a.mp4", "mp3"),
        ("in.mov", "pcm_s16le", "a.mkv", "pcm_s16le"),
    ],
)
def test_sound_is_copied(source, codec, name, kept, tmp_path):
    pytest.importorskip("av")
    source = write_sound(tmp_path / source, codec, pictures=15)
    frames = torch.rand(15, 3, 32, 32)
    path = write(tmp_path / name, frames, audio_from=source)
    assert probe_video(path).has_audio
    ((before_codec, before, *_),) = read_sound(source)
    ((after_codec, after, *_),) = read_sound(path)
    assert before_codec == after_codec == kept
    # to the byte
    assert after == before


@pytest.mark.parametrize(
    ("source", "codec", "name", "kept"),
    [
        ("in.mp4", "aac", "a.webm", "opus"),
        ("in.mov", "pcm_s16le", "a.mp4", "aac"),
        ("in.wav", "pcm_s16le", "a.mp4", "aac"),
    ],
)
def test_sound_that_the_container_does_not_hold_is_encoded(source, codec, name, kept, tmp_path):
    pytest.importorskip("av")
    source = write_sound(tmp_path / source, codec, seconds=0.5, pictures=None if source.endswith("wav") else 15)
    path = write(tmp_path / name, torch.rand(15, 3, 32, 32), audio_from=source)
    ((codec, _, samples, rate),) = read_sound(path)
    assert codec == kept
    assert abs(pitch(samples, rate) - 440) < 4
    assert abs(len(samples) / rate - 0.5) < 0.06
    # as loud as it was
    assert abs(samples[rate // 10 : -rate // 10].std() * 2**0.5 - 0.5) < 0.05


def test_sound_lasts_as_long_as_the_frames_and_every_stream_is_kept(tmp_path):
    pytest.importorskip("av")
    source = write_sound(tmp_path / "in.mkv", "aac", seconds=2, streams=2, pictures=50)
    path = write(tmp_path / "a.mp4", torch.rand(25, 3, 32, 32), audio_from=source)
    sounds = read_sound(path)
    assert len(sounds) == 2
    for number, (_, _, samples, rate) in enumerate(sounds, 1):
        assert abs(pitch(samples, rate) - 440 * number) < 4
        # 1 s and less than a packet of 1024 samples
        assert 0.95 < len(samples) / rate < 1.05


@pytest.mark.parametrize("name", ["a.mkv", "a.webm"])
def test_time_begins_with_the_first_picture(name, tmp_path):
    """Of a recording that begins at 3 s the sound is at its pictures, not 3 s behind the end."""
    av = pytest.importorskip("av")
    source = write_sound(tmp_path / "in.mkv", "aac", pictures=15, start=3)
    with av.open(str(source)) as container:
        assert container.streams.video[0].start_time == 3000
    path = write(tmp_path / name, torch.rand(15, 3, 32, 32), audio_from=source)
    ((_, _, samples, rate),) = read_sound(path)
    assert abs(len(samples) / rate - 0.5) < 0.06
    with av.open(str(path)) as container:
        assert abs(container.streams.audio[0].start_time or 0) < 50


def test_silent_sources_give_no_sound(tmp_path):
    pytest.importorskip("av")
    frames = [torch.rand(3, 8, 8)] * 2
    source = write(tmp_path / "in.gif", frames)
    assert not probe_video(write(tmp_path / "a.mp4", frames, audio_from=source)).has_audio


@pytest.mark.parametrize("name", ["a.gif", *MOVIES])
def test_files_that_are_no_videos(name, photograph, tmp_path):
    if name != "a.gif":
        pytest.importorskip("av")
    path = write(tmp_path / name, moving(photograph, 3))
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


def test_frames_before_a_damage_are_given(photograph, tmp_path):
    """Reading is lazy: the first frames of a truncated GIF, then the error."""
    path = write(tmp_path / "a.gif", moving(photograph, 6))
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


@pytest.mark.parametrize("name", ["a.gif", "a.mp4", "a.webm"])
def test_what_fails_leaves_what_was_there(name, tmp_path):
    if name != "a.gif":
        pytest.importorskip("av")
    path = tmp_path / name
    path.write_bytes(b"before")
    frames = [torch.rand(3, 16, 16)] * 3
    for bad, message in (
        ([], rf"{name}: a video needs at least one frame; got none"),
        ([*frames, torch.rand(3, 16, 18)], r"frame is \(16, 18\) pixels high and wide, the first was \(16, 16\)"),
        ([*frames, torch.rand(1, 16, 16)], r"frame must be \[3, H, W\]; got \(1, 16, 16\)"),
    ):
        with pytest.raises(ValueError, match=message):
            write(path, bad)
        assert names(tmp_path) == [name]
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, 25) as video:  # noqa: PT012
        video.write(frames[0])
        raise KeyboardInterrupt
    assert names(tmp_path) == [name]
    assert path.read_bytes() == b"before"


@pytest.mark.parametrize("name", ["a.gif", "a.mp4", "a.webm"])
def test_a_disk_that_is_full(name, tmp_path):
    """A limit on the size of files stands in for the disk."""
    if name != "a.gif":
        pytest.importorskip("av")
    path = tmp_path / name
    path.write_bytes(b"before")
    frames = torch.rand(8, 3, 96, 96)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write(path, frames)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) == [name]
    assert path.read_bytes() == b"before"


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


def test_comments_of_others_are_no_settings(tmp_path):
    for comment in (b"hello", b"[1]", json.dumps({"imgops": 5}).encode(), b'"text"'):
        Image.new("L", (4, 4)).save(tmp_path / "a.gif", comment=comment)
        assert read_video_settings(tmp_path / "a.gif") is None


def test_examples_run():
    failed, tried = doctest.testmod(imgops.data.video)
    assert tried
    assert failed == 0
