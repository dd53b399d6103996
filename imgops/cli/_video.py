"""Videos made frame by frame. A stopped job goes on where it was, as the frames are kept beside the video."""

from __future__ import annotations

import itertools
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
from torch import Tensor

from .._settings import present_names
from ..data.files import naming, write_file
from ..data.pictures import read_picture, read_settings, write_picture
from ..data.video import Frame, VideoWriter, read_timed_frames
from ._batch import frames_folder, is_file
from ._pictures import Reporter

#: settings that change no pixel, so that a job may go on with others
_FREE = ("device", "preview", "quality")


class Kept(NamedTuple):
    """What is kept of a video: how many frames, and the first and the last of them, [3, H, W], unrounded."""

    frames: int
    first: Tensor
    last: Tensor


class FrameStore:
    """The frames of an unfinished video, in a folder beside it.

    Args:
        out: the video.
        record: what must be the same for the frames to be used again, JSON.
    """

    def __init__(self, out: Path, record: Mapping[str, Any]) -> None:
        self.folder = frames_folder(out)
        self.record = {key: value for key, value in json.loads(json.dumps(record)).items() if key not in _FREE}
        self.count = 0

    def open(self) -> Kept | None:
        """What is kept of the same job. A warning tells of frames of another job, which are thrown away.

        Raises:
            OSError: the folder cannot be made or read.
            ValueError: it holds something else.
        """
        job = self.folder / "job.json"
        if self.folder.exists() and not (self.folder.is_dir() and not any(self.folder.iterdir())):
            try:
                before = dict(json.loads(job.read_text(), object_hook=present_names)["imgops"])
            except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
                raise ValueError(
                    f"{self.folder}: is in the way of the frames; move it, or choose another name"
                ) from None
            changed = sorted(key for key in {*before, *self.record} if before.get(key) != self.record.get(key))
            if not changed and (kept := self._load()) is not None:
                self.count = kept.frames
                return kept
            if changed:
                why = f"frames of a stopped job with other {', '.join(changed)} are thrown away"
                warnings.warn(f"{self.folder}: {why}", stacklevel=1)
            self.remove()
        with naming(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_file(job, json.dumps({"imgops": self.record}, indent=2).encode())
        return None

    def _load(self) -> Kept | None:
        try:
            with safetensors.safe_open(self.folder / "last.safetensors", framework="pt") as file:
                count, last = int(file.metadata()["count"]), file.get_tensor("frame")
            first = safetensors.torch.load_file(self.folder / "first.safetensors")["frame"]
        except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError):
            # the job was stopped before its first frame was written
            return None
        return Kept(count, first, last)

    def add(self, frame: Frame) -> None:
        """Keep a frame: as a picture for the video, and unrounded for the next frame.

        Raises:
            OSError: it cannot be written.
        """
        self.count += 1
        write_picture(self._path(self.count), frame.pixels, settings={"duration": str(frame.duration)})
        content = {"frame": frame.pixels.detach().cpu().contiguous()}
        if self.count == 1:
            write_file(self.folder / "first.safetensors", safetensors.torch.save(content))
        # written last, so that all frames that it counts exist
        write_file(self.folder / "last.safetensors", safetensors.torch.save(content, {"count": str(self.count)}))

    def frames(self) -> Iterator[Frame]:
        """The frames that are kept."""
        for number in range(1, self.count + 1):
            path = self._path(number)
            yield Frame(read_picture(path).pixels, Fraction((read_settings(path) or {})["duration"]))

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.png"


class Video(NamedTuple):
    """What a video is made into, and with what.

    Attributes:
        out: its file.
        fps: mean frames per second.
        time_base: the fraction of a second that times are multiples of; None: 1 / fps.
        audio_from: a video whose sound it gets, or None.
        record: what its metadata tell.
        sources: the files that it is made from.
        total: how many frames, about, or None.
    """

    out: Path
    fps: Fraction | float
    time_base: Fraction | None
    audio_from: str | None
    record: Mapping[str, Any]
    sources: Sequence[str]
    total: int | None


def make_video(
    video: Video,
    results: Callable[[Kept | None], Iterator[Frame]],
    reporter: Reporter,
    stopped: Callable[[], bool],
) -> str:
    """Write a video, after the frames that a stopped job of the same kind has left. Ctrl-C ends it after a frame; the
    frames are then kept for the next time.

    Args:
        video: what to write.
        results: the frames that follow what is kept.
        reporter: shows how far it is.
        stopped: whether to stop after this frame.

    Returns:
        How many frames it has, of what size, and whether it was stopped, in words.

    Raises:
        OSError, ValueError, ImportError: what ``results`` and the writer raise.
    """
    store = FrameStore(video.out, {**video.record, "files": [_identity(source) for source in video.sources]})
    kept = store.open()
    if kept is not None:
        warnings.warn(f"{video.out}: goes on after {kept.frames} frames of a stopped job", stacklevel=1)
    count, whole = 0, True
    try:
        with VideoWriter(
            video.out, video.fps, time_base=video.time_base, audio_from=video.audio_from, settings=video.record
        ) as writer:
            for frame in itertools.chain(store.frames(), _added(store, results(kept))):
                writer.write(frame.pixels, frame.duration)
                count += 1
                share = min(count / video.total, 1.0) if video.total else None
                reporter.update(share, frame.pixels, f"frame {count}")
                if count >= store.count and stopped():
                    whole = False
                    break
        reporter.finish(frame.pixels)
    except ValueError:
        # a source or a setting that cannot be used: the job could never go on
        store.remove()
        raise
    height, width = frame.pixels.shape[1:]
    said = f"{count} frames of {width} x {height} pixels"
    if not whole:
        return f"{said}, stopped (the same command goes on)"
    store.remove()
    return said


def timed_frames(
    source: str, kept: Kept | None, make: Callable[[Iterator[Tensor], tuple[Tensor, Tensor] | None], Iterator[Tensor]]
) -> Iterator[Frame]:
    """The results of the frames of a video that follow what is kept, each shown as long as its frame.

    Args:
        source: the video.
        kept: what is there.
        make: gives the results of frames, after the frame before and its result, if something is kept.
    """
    frames = read_timed_frames(source)
    before = None
    for _ in range(0 if kept is None else kept.frames):
        before = next(frames, None)
    pixels, durations = itertools.tee(frames)
    results = make(
        (frame.pixels for frame in pixels), None if before is None or kept is None else (before.pixels, kept.last)
    )
    return (Frame(result, frame.duration) for result, frame in zip(results, durations, strict=True))


def _added(store: FrameStore, frames: Iterator[Frame]) -> Iterator[Frame]:
    for frame in frames:
        store.add(frame)
        yield frame


def _identity(source: str) -> list[Any]:
    """What tells that a source is the same: its name, size and time of change."""
    if not is_file(source) or not Path(source).exists():
        return [source]
    about = Path(source).stat()
    return [source, about.st_size, about.st_mtime_ns]
