"""Makes one result: decodes, crops, resizes, encodes and writes a picture. Runs in this process or in several."""

from __future__ import annotations

import contextlib
import hashlib
import io
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..._settings import shape_of
from .._errors import DataError, printable
from ..files import write_file
from ..pictures.conversion import to_channels
from ..pictures.cropping import box_around, center_box, cut, tall_box
from ..pictures.decoding import SEVERAL, load_image
from ..pictures.writing import png_info
from ._boxes import Part
from .settings import FORMATS, PrepareSettings


class Task(NamedTuple):
    """A picture to make: its name for messages, the file of the result, what it is made of, and the part to keep."""

    name: str
    file: str
    content: bytes | np.ndarray
    part: Part | None


class Done(NamedTuple):
    """A result: a hash of its pixels, and one that pictures that look alike share; or why it was refused; and what
    else is to be said of it."""

    pixels: str = ""
    look: int = 0
    refused: str = ""
    notes: Sequence[str] = ()


def work(task: Task, folder: Path, settings: PrepareSettings) -> Done:
    """Write a picture into a folder, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            image = _image(task, settings)
            content = _encoded(image, task.name, settings)
    except DataError as error:
        return Done(refused=str(error).removeprefix(f"{printable(task.name)}: "))
    path = folder / task.file
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, content, sync=False)
    digest = hashlib.blake2b(f"{image.mode} {image.size}".encode() + image.tobytes(), digest_size=16)
    return Done(digest.hexdigest(), _look(image), notes=_notes(told, task.name))


def _notes(told: Sequence[warnings.WarningMessage], name: str) -> list[str]:
    """Our warnings about a picture; Pillow's, of odd metadata, do not name it."""
    texts = [str(warning.message) for warning in told]
    return [text.removeprefix(f"{name}: ") for text in texts if text.startswith(f"{name}: ")]


def _image(task: Task, settings: PrepareSettings) -> Image.Image:
    """The picture as it is written."""
    shape = None if settings.resolution is None else shape_of(settings.resolution)
    if isinstance(task.content, np.ndarray):
        image = Image.fromarray(task.content)
    else:
        # the pixels of a part are those of the whole picture
        image = load_image(io.BytesIO(task.content), task.name, at_least=None if task.part else shape)
        if SEVERAL in image.info:
            warnings.warn(f"{task.name}: the first of its frames or pages is taken", stacklevel=1)
    image = to_channels(image, settings.channels, task.name)
    if shape is None:
        return image
    if task.part is not None:
        box = box_around(image.size, task.part, settings.margin, *shape)
        if box is None:
            raise DataError(f"its box lies outside its {image.width} x {image.height} pixels")
    else:
        box = (tall_box if settings.crop == "tall" else center_box)(image.size, *shape)
    return cut(image, box, *shape)


def _encoded(image: Image.Image, name: str, settings: PrepareSettings) -> bytes:
    """The content of the file of a picture."""
    buffer, format = io.BytesIO(), FORMATS[settings.format]
    try:
        image.save(buffer, format, **_options(settings))
    except (OSError, ValueError) as error:
        # formats have a largest side
        size = f"{image.width} x {image.height} pixels"
        raise DataError(f"{name}: {format} takes no picture of {size} ({error})") from None
    return buffer.getvalue()


def _options(settings: PrepareSettings) -> dict[str, Any]:
    if settings.format == "png":
        return {"pnginfo": png_info(None)}
    return {"quality": settings.quality} | ({"subsampling": 0} if settings.format == "jpg" else {})


def _look(image: Image.Image) -> int:
    """The difference hash of Krawetz (2013): whether each of 8 x 8 places is lighter than the one beside it."""
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    small = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX)).astype(int)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


@contextlib.contextmanager
def workers(count: int) -> Iterator[Callable[..., Future[Done]]]:
    """What starts :func:`work` in one of ``count`` processes, or at once in this one if there are none."""
    if count == 0:
        yield _at_once
        return
    # not forked: torch's threads do not live on in a forked process
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _start)
    try:
        yield lambda *arguments: pool.submit(work, *arguments)
    finally:
        # after an interrupt what has not begun is left
        pool.shutdown(cancel_futures=True)


def _at_once(*arguments: Any) -> Future[Done]:
    future: Future[Done] = Future()
    future.set_result(work(*arguments))
    return future


def _start() -> None:
    """In a new process: Ctrl-C is left to the one that started it, and this one ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
