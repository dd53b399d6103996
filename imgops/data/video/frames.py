"""Reads and writes videos and animations frame by frame; times and sound are kept."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._errors import DataError
from ..files import naming, scrap_of
from .animation import ANIMATIONS, GifEncoder, animation_comment, animation_frames, animation_info, is_animation

#: endings of the videos that are read, and of those that are written; GIF needs only Pillow, the others need PyAV
VIDEO_ENDINGS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif")
WRITTEN_ENDINGS = (".mp4", ".mov", ".mkv", ".webm", ".gif")


class VideoInfo(NamedTuple):
    """Facts about a video: size in pixels, upright; mean frames per second; approximate number of frames, if the file
    says; whether it has sound; and the fraction of a second that the times of its frames are multiples of."""

    width: int
    height: int
    fps: Fraction
    frames: int | None
    has_audio: bool
    time_base: Fraction


class Frame(NamedTuple):
    """A frame of a video: float32 [3, H, W], RGB in [0, 1]; and how long it is shown, in seconds."""

    pixels: Tensor
    duration: Fraction


def is_video(path: str | Path) -> bool:
    """Whether a file is a video or GIF by the ending of its name.

    >>> is_video("holiday.MP4"), is_video("holiday.jpg")
    (True, False)
    """
    return Path(path).suffix.lower() in VIDEO_ENDINGS


def is_moving(path: str | Path) -> bool:
    """Whether a file has frames that follow each other in time: a video by its ending, a GIF, WebP, PNG or AVIF by what
    is in it.

    Raises:
        OSError: the file cannot be read.
    """
    path = Path(path)
    return is_animation(path) if path.suffix.lower() in ANIMATIONS else is_video(path)


def probe_video(path: str | Path) -> VideoInfo:
    """What a video is, from its head and first frame, or from all of an animation.

    Raises:
        OSError: the file cannot be read.
        ValueError: its name has none of :data:`VIDEO_ENDINGS`, nor that of an animation: .webp, .png, .apng, .avif or
            .avifs.
        DataError: it is no video, or a damaged one.
        ImportError: it needs PyAV, which is not installed.
    """
    path = _check_source(path)
    if _by_pillow(path):
        width, height, fps, frames, time_base = animation_info(path)
        return VideoInfo(width, height, fps, frames, False, time_base)
    width, height, fps, count, time_base, has_audio = _pyav(path).av_info(path)
    return VideoInfo(width, height, fps, count, has_audio, time_base)


def read_frames(path: str | Path) -> Iterator[Tensor]:
    """The pixels of the frames of :func:`read_timed_frames`; each comes once, however long it is shown."""
    return (frame.pixels for frame in read_timed_frames(path))


def read_timed_frames(path: str | Path) -> Iterator[Frame]:
    """The frames of a video one by one with their times, a few of them in memory at a time.

    Transparent pixels are laid over white, and a frame that holds only what has changed over the frame before. Videos
    of 10 or more bits are reduced to 8; a turned video is read as a player shows it. Of a truncated video FFmpeg may
    read what there is without an error.

    Args:
        path: as of :func:`probe_video`.

    Returns:
        An iterator of :class:`Frame`.

    Raises:
        OSError, ValueError, DataError, ImportError: as :func:`probe_video`; for damage beyond the first frame when that
            place is reached.
    """
    path = _check_source(path)
    frames = animation_frames(path) if _by_pillow(path) else _pyav(path).av_frames(path)
    return (
        Frame(torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float() / 255, duration)
        for pixels, duration in frames
    )


def read_video_settings(path: str | Path) -> dict[str, Any] | None:
    """The settings that a :class:`VideoWriter` put into a video, or None if there are none.

    Raises:
        OSError, ValueError, DataError, ImportError: as :func:`probe_video`.
    """
    path = _check_source(path)
    comment = animation_comment(path) if _by_pillow(path) else _pyav(path).av_comment(path)
    try:
        settings = json.loads(comment)["imgops"]
    except (ValueError, TypeError, KeyError):
        return None
    return settings if isinstance(settings, dict) else None


class VideoWriter:
    """Writes frames to a video: an animated GIF, H.264 in MP4, MOV and MKV, or VP9 in WebM.

    The file is written under another name and renamed when the ``with`` block ends, so that it is whole or absent; if
    the block raises, nothing is left. A GIF has up to 256 colors per frame, repeats forever, and shows at most 50
    frames per second: further ones are left out, which keeps the duration, and frames that are equal are stored as one
    that is shown for longer. The other kinds need sides of even length: a last row or column is repeated.

    Args:
        path: ends in .gif, .mp4, .mov, .mkv or .webm; its folder is made.
        fps: frames per second, > 0; their mean where frames have durations of their own.
        time_base: the fraction of a second that such durations are rounded to, as of :class:`VideoInfo`; MKV and WebM
            round to milliseconds, a GIF to 1/100 s. Default ``1 / fps``.
        audio_from: a video or sound file whose sound is added, as far as the frames last. It is copied where the
            container can hold its codec, else encoded as AAC (in WebM as Opus) at 48 kHz in at most two channels. A
            source without sound adds none.
        settings: what made the video, stored as JSON in its metadata; :func:`read_video_settings` returns it.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: the path has another ending, fps is not positive, a GIF is given sound, a frame is no picture or has
            another size than the first, or there is no frame at the end.
        DataError: ``audio_from`` is damaged.
        ImportError: it needs PyAV, which is not installed.

    Example::

        info = probe_video("in.mp4")
        with VideoWriter("out.mp4", info.fps, time_base=info.time_base, audio_from="in.mp4") as video:
            for frame in read_timed_frames("in.mp4"):
                video.write(1 - frame.pixels, frame.duration)
    """

    def __init__(
        self,
        path: str | Path,
        fps: Fraction | float,
        *,
        time_base: Fraction | None = None,
        audio_from: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        suffix = self.path.suffix.lower()
        if suffix not in WRITTEN_ENDINGS:
            raise ValueError(
                f"{path}: videos are written as {', '.join(WRITTEN_ENDINGS)}; got {suffix or 'no ending'!r}"
            )
        if not 0 < fps < float("inf"):
            raise ValueError(f"VideoWriter: fps must be > 0; got {fps}")
        if audio_from is not None and suffix == ".gif":
            raise ValueError(f"{path}: a GIF has no sound; leave out audio_from, or write .mp4, .mov, .mkv or .webm")
        if suffix != ".gif":
            _pyav(self.path)
        self.fps = Fraction(fps).limit_denominator(1001)
        self.time_base = 1 / self.fps if time_base is None else Fraction(time_base)
        if not 0 < self.time_base < float("inf"):
            raise ValueError(f"VideoWriter: time_base must be > 0; got {time_base}")
        self.audio_from = None if audio_from is None else _check_file(audio_from)
        self.comment = None if settings is None else json.dumps({"imgops": dict(settings)}, ensure_ascii=True)
        self._scrap = scrap_of(self.path)
        self._size: tuple[int, ...] | None = None
        self._encoder: Any = None

    def __enter__(self) -> VideoWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with naming(self.path):
            try:
                # a folder that cannot be written to raises now, not after the work
                self._scrap.touch()
                if _by_pillow(self.path):
                    self._encoder = GifEncoder(self._scrap, self.comment)
                else:
                    encoder = _pyav(self.path).AvEncoder
                    self._encoder = encoder(self._scrap, self.fps, self.time_base, self.comment, self.audio_from)
            except BaseException:
                self._scrap.unlink(missing_ok=True)
                raise
        return self

    def write(self, frame: Tensor, duration: Fraction | float | None = None) -> None:
        """Add a frame.

        Args:
            frame: [3, H, W], RGB, of the size of the first; values beyond [0, 1] are clipped.
            duration: how long it is shown in seconds, > 0. Default ``1 / fps``.

        Raises:
            OSError: it cannot be written.
            ValueError: the frame has another shape, its duration is not positive, or there is no ``with`` block around.
        """
        if self._encoder is None:
            raise ValueError("VideoWriter.write: the writer is not open; use it in a with statement")
        if frame.ndim != 3 or frame.shape[0] != 3 or frame.numel() == 0:
            raise ValueError(f"VideoWriter.write: frame must be [3, H, W]; got {tuple(frame.shape)}")
        size = tuple(frame.shape[1:])
        if self._size not in (None, size):
            raise ValueError(f"VideoWriter.write: frame is {size} pixels high and wide, the first was {self._size}")
        shown = 1 / self.fps if duration is None else duration
        if not 0 < shown < float("inf"):
            raise ValueError(f"VideoWriter.write: duration must be > 0; got {duration}")
        self._size = size
        values = (frame.detach().float().cpu().clamp(0, 1) * 255).round().byte()
        with naming(self.path):
            self._encoder.write(values.permute(1, 2, 0).contiguous().numpy(), Fraction(shown))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        encoder, self._encoder = self._encoder, None
        with naming(self.path):
            try:
                if kind is None:
                    if self._size is None:
                        raise ValueError(f"{self.path}: a video needs at least one frame; got none")
                    encoder.finish()
                    with open(self._scrap, "rb+") as file:
                        os.fsync(file.fileno())
                    os.replace(self._scrap, self.path)
            finally:
                try:
                    encoder.close()
                finally:
                    self._scrap.unlink(missing_ok=True)


def _by_pillow(path: Path) -> bool:
    return path.suffix.lower() in ANIMATIONS


def _check_source(path: str | Path) -> Path:
    if not is_video(path) and not _by_pillow(Path(path)):
        raise ValueError(f"{path}: videos are read from {', '.join(VIDEO_ENDINGS)}")
    return _check_file(path)


def _check_file(path: str | Path) -> Path:
    with open(path, "rb") as file:
        if not file.read(1):
            raise DataError(f"{path}: the file is empty")
    return Path(path)


def _pyav(path: Path) -> ModuleType:
    try:
        from . import _av
    except ImportError as error:
        raise ImportError(
            f"{path}: videos other than GIF need PyAV ({error}); install it with pip install 'imgops[video]'"
        ) from None
    return _av
