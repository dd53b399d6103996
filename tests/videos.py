"""Videos for tests: moving pictures, frames of uneven times, and what is compared of them."""

from __future__ import annotations

import functools
from fractions import Fraction

import numpy as np

import imgops.data
from imgops.data import VideoWriter, read_picture, resize_picture

SETTINGS = {"method": "optimize", "seed": 3, "style": "Größe.png", "note": "x" * 700}
MOVIES = ("a.mp4", "a.mov", "a.mkv", "a.webm")


@functools.cache
def photograph():
    return resize_picture(read_picture("samples:coffee").pixels, 96)


def moving(count, height=48, width=64):
    """Frames of a window that wanders over a photograph."""
    return [photograph()[:, i : i + height, 2 * i : 2 * i + width] for i in range(count)]


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


#: where frames of a variable rate begin and the last one ends, s
UNEVEN = [Fraction(tenths, 10) for tenths in (0, 1, 2, 12, 13, 14, 16)]


def durations(path):
    return [frame.duration for frame in imgops.data.read_timed_frames(path)]


def write_uneven(path, codec="libx264", ticks=90000, sound=None):
    """A clip of a variable frame rate, made by PyAV alone, of gray frames; with a tone in the time of its third."""
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
