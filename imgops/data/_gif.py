"""Animated GIFs by Pillow: the frames of one, and frames into one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from ._images import DAMAGE, DataError, to_channels

#: how long viewers show a frame that says 0, and the shortest time that they keep to; hundredths of a second
_UNSAID, _SHORTEST = 10, 2


def _walk(path: Path) -> Iterator[Image.Image]:
    """The animation at each of its frames, laid over the frames before; one object, which moves on."""
    with open(path, "rb") as file:
        try:
            image = Image.open(file)
        except Image.UnidentifiedImageError:
            raise DataError(f"{path}: not a GIF that Pillow can read") from None
        except DAMAGE as error:
            raise DataError(f"{path}: damaged GIF ({error})") from None
        for index in itertools.count():
            try:
                image.seek(index)
            except EOFError:
                return
            except DAMAGE as error:
                raise DataError(f"{path}: damaged GIF at frame {index} ({error})") from None
            try:
                image.load()
            except DAMAGE as error:
                raise DataError(f"{path}: damaged or truncated GIF at frame {index} ({error})") from None
            yield image


def gif_info(path: Path) -> tuple[int, int, Fraction, int]:
    """(width, height, mean frames a second, frames).

    Raises:
        OSError, DataError: as :func:`gif_frames`.
    """
    width = height = frames = total = 0
    for image in _walk(path):
        width, height = image.size
        frames += 1
        total += round(image.info.get("duration", 0) / 10) or _UNSAID
    return width, height, Fraction(100 * frames, total), frames


def gif_frames(path: Path) -> Iterator[np.ndarray]:
    """Its frames, uint8 [H, W, 3], transparency over white.

    Raises:
        OSError: the file cannot be read.
        DataError: it is no picture that Pillow reads, or a damaged one.
    """
    for image in _walk(path):
        yield np.asarray(to_channels(image, 3, str(path)))


def gif_comment(path: Path) -> str:
    """Its comment, or nothing.

    Raises:
        OSError, DataError: as :func:`gif_frames`.
    """
    comment = next(_walk(path)).info.get("comment", b"")
    return comment.decode("utf-8", "replace") if isinstance(comment, bytes) else str(comment)


class GifEncoder:
    """Frames into a GIF that repeats for ever; they are held, a byte a pixel, until the end.

    A frame is shown for hundredths of a second, so they differ where the rate does not divide 100, and the whole lasts
    as long as it should; above 50 frames a second some are left out, as viewers show none shorter than 1/50 s.

    Args:
        path: the file to write.
        fps: frames a second, > 0.
        comment: what to keep as its comment, if anything.
    """

    def __init__(self, path: Path, fps: Fraction, comment: str | None) -> None:
        self.path, self.fps, self.comment = path, fps, comment
        self.frames: list[Image.Image] = []
        self.starts: list[int] = []
        self.count = 0

    def write(self, pixels: np.ndarray) -> None:
        """Add a frame, uint8 [H, W, 3], in the 256 colours that suit it best."""
        start = round(100 * self.count / self.fps)
        self.count += 1
        if not self.starts or start - self.starts[-1] >= _SHORTEST:
            self.starts.append(start)
            self.frames.append(Image.fromarray(pixels).quantize(256, dither=Image.Dither.NONE))

    def finish(self) -> None:
        """Write the file."""
        ends = [*self.starts[1:], round(100 * self.count / self.fps)]
        times = [10 * max(end - start, _SHORTEST) for start, end in zip(self.starts, ends, strict=True)]
        options = {} if self.comment is None else {"comment": self.comment.encode()}
        first, *rest = self.frames
        first.save(self.path, "GIF", save_all=True, append_images=rest, duration=times, loop=0, **options)

    def close(self) -> None:
        """Let go of the frames."""
        self.frames.clear()
