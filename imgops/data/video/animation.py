"""GIF, WebP, APNG and AVIF animations by Pillow: reads frames with their times, and writes frames to a GIF."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from .._errors import DataError, decoding
from ..pictures.conversion import to_channels
from ..pictures.decoding import VIEWS, open_image
from ..pictures.orientation import read_orientation, upright

#: Pillow's names of the formats whose frames follow each other in time, by the endings of their files
ANIMATIONS = {
    ".gif": "GIF",
    ".webp": "WEBP",
    ".png": "PNG",
    ".apng": "PNG",
    ".avif": "AVIF",
    ".avifs": "AVIF",
}
#: duration for which viewers show a frame of duration 0, and the shortest that they respect; in 1/100 s
_UNSAID, _SHORTEST = 10, 2
#: longest duration for which a GIF can show a frame, in 1/100 s
_LONGEST = 65535
#: times are rounded to 1/90000 s at the finest
_FINEST = 90000


def count_frames(path: Path) -> int:
    """How many frames or pages a file has if Pillow reads it; 1 for any other file.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        try:
            with decoding(str(path)):
                image = open_image(file)
                return 1 if image.format in VIEWS else int(getattr(image, "n_frames", 1))
        except DataError:
            return 1


def is_animation(path: Path) -> bool:
    """Whether a file has several frames that follow each other in time.

    Raises:
        OSError: the file cannot be read.
    """
    return path.suffix.lower() in ANIMATIONS and count_frames(path) > 1


def _walk(path: Path) -> Iterator[Image.Image]:
    """Yield the animation at each of its frames, laid over the frames before; one object, which moves on."""
    kind = ANIMATIONS[path.suffix.lower()]
    with open(path, "rb") as file:
        with decoding(str(path), kind):
            image = open_image(file)
            # skip the picture of an APNG for viewers that show no animation
            first = 1 if image.info.get("default_image") and getattr(image, "n_frames", 1) > 1 else 0
        for index in itertools.count(first):
            with decoding(str(path), f"{kind} at frame {index}"):
                try:
                    image.seek(index)
                except EOFError:
                    return
                image.load()
            yield image


def _upright(image: Image.Image) -> Image.Image:
    if image.mode == "P" and image.palette is None:
        # Pillow makes such an image of the second frame of a gray GIF
        image = image.convert("L")
    return upright(image, read_orientation(image))


def _duration(image: Image.Image) -> Fraction:
    """How long the frame is shown, s."""
    milliseconds = image.info.get("duration", 0) or 10 * _UNSAID
    if image.format == "GIF":
        return Fraction(round(milliseconds / 10) or _UNSAID, 100)
    # APNG has fractions of 16 bits, which Pillow turns into floats
    return Fraction(milliseconds / 1000).limit_denominator(65535)


def animation_info(path: Path) -> tuple[int, int, Fraction, int, Fraction]:
    """(width, height, mean frames per second, frames, the fraction of a second that their times are multiples of).

    Raises:
        OSError, DataError: as :func:`animation_frames`.
    """
    width = height = 0
    durations = []
    for image in _walk(path):
        width, height = _upright(image).size
        durations.append(_duration(image))
    ticks = math.lcm(*(duration.denominator for duration in durations))
    return width, height, len(durations) / sum(durations, Fraction()), len(durations), Fraction(1, min(ticks, _FINEST))


def animation_frames(path: Path) -> Iterator[tuple[np.ndarray, Fraction]]:
    """The frames, uint8 [H, W, 3], transparency over white, and how long each is shown, in seconds.

    Raises:
        OSError: the file cannot be read.
        DataError: it is no picture that Pillow reads, or a damaged one.
    """
    for image in _walk(path):
        yield np.asarray(to_channels(_upright(image), 3, str(path))), _duration(image)


def animation_comment(path: Path) -> str:
    """The comment of a GIF, or an empty string.

    Raises:
        OSError, DataError: as :func:`animation_frames`.
    """
    comment = next(_walk(path)).info.get("comment", b"")
    return comment.decode("utf-8", "replace") if isinstance(comment, bytes) else str(comment)


class GifEncoder:
    """Writes frames to a GIF that repeats forever; they are held in memory, one byte per pixel, until the end.

    Frames begin and end at hundredths of a second; the rounding does not accumulate, so the total duration is right.
    Above 50 frames per second some are left out, as viewers show no frame for less than 1/50 s. No frame is shown for
    more than 655 s.

    Args:
        path: the file to write.
        comment: the comment to store in the file, if any.
    """

    def __init__(self, path: Path, comment: str | None) -> None:
        self.path, self.comment = path, comment
        self.frames: list[Image.Image] = []
        self.starts: list[int] = []
        self.end = Fraction()

    def write(self, pixels: np.ndarray, duration: Fraction) -> None:
        """Add a frame, uint8 [H, W, 3], in the 256 colors that suit it best; the duration is in seconds."""
        start = round(100 * self.end)
        self.end += duration
        if not self.starts or start - self.starts[-1] >= _SHORTEST:
            self.starts.append(start)
            self.frames.append(Image.fromarray(pixels).quantize(256, dither=Image.Dither.NONE))

    def finish(self) -> None:
        """Write the file."""
        ends = [*self.starts[1:], round(100 * self.end)]
        shown = [min(max(end - start, _SHORTEST), _LONGEST) for start, end in zip(self.starts, ends, strict=True)]
        options = {} if self.comment is None else {"comment": self.comment.encode()}
        first, *rest = self.frames
        times = [10 * time for time in shown]
        first.save(self.path, "GIF", save_all=True, append_images=rest, duration=times, loop=0, **options)

    def close(self) -> None:
        """Release the frames."""
        self.frames.clear()
