"""The sound of a video: copied where the container holds it, else encoded; in step with the frames."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch

import imgops.data
from imgops.data import VideoWriter, probe_video
from tests.videos import UNEVEN, durations, write, write_uneven


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
            gray = np.full((32, 32, 3), 100, np.uint8)
            frame = av.VideoFrame.from_ndarray(gray).reformat(format="yuv420p")
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
            parts = [in_unit(f.to_ndarray()).mean(0) for p in packets for f in p.decode()]
            found.append((stream.codec.canonical_name, [bytes(p) for p in packets], np.concatenate(parts), stream.rate))
    return found


def in_unit(samples):
    """Samples of any type in [-1, 1]."""
    return samples / -float(np.iinfo(samples.dtype).min) if samples.dtype.kind == "i" else samples


def pitch(samples, rate):
    """The strongest frequency, Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return spectrum.argmax() * rate / len(samples)


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


@pytest.mark.parametrize(
    ("source", "codec", "name", "kept"),
    [
        ("in.mp4", "aac", "a.mp4", "aac"),
        ("in.mp4", "aac", "a.mov", "aac"),
        ("in.mp4", "aac", "a.mkv", "aac"),
        ("in.mkv", "libopus", "a.webm", "opus"),
        ("in.mkv", "libmp3lame", "a.mp4", "mp3"),
        ("in.mov", "pcm_s16le", "a.mkv", "pcm_s16le"),
        # what the container does not hold
        ("in.mp4", "aac", "a.webm", "opus"),
        ("in.mov", "pcm_s16le", "a.mp4", "aac"),
        ("in.wav", "pcm_s16le", "a.mp4", "aac"),
    ],
)
def test_sound_is_copied_or_encoded_where_the_container_does_not_hold_it(source, codec, name, kept, tmp_path):
    pytest.importorskip("av")
    source = write_sound(tmp_path / source, codec, seconds=0.5, pictures=None if source.endswith("wav") else 15)
    path = write(tmp_path / name, torch.rand(15, 3, 32, 32), audio_from=source)
    assert probe_video(path).has_audio
    ((before_codec, before, *_),) = read_sound(source)
    ((after_codec, after, samples, rate),) = read_sound(path)
    assert after_codec == kept
    # what is copied is so to the byte
    assert (after == before) == (before_codec == kept)
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
