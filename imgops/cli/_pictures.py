"""What the commands that make pictures have in common: progress, a preview, and checks of where results go."""

from __future__ import annotations

import errno
import os
import time
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from .. import _memory
from ..data.files import naming, scrap_of
from ..data.pictures import picture_format, write_picture
from ..training._progress import Bar
from ._options import Given

#: seconds between two writes of the preview
PREVIEW_SECONDS = 2.0


class Reporter:
    """A progress bar with the time that is left, if stderr is a terminal, and a preview file that follows the work.

    Args:
        what: the text beside the bar.
        preview: a file that shows the picture as it is, or None.
    """

    def __init__(self, what: str, preview: str | None = None) -> None:
        self.preview, self._written = preview, -PREVIEW_SECONDS
        if preview is not None:
            picture_format(preview)
        console = Console(stderr=True)
        self._bar = Bar(what, console, disable=not console.is_terminal, transient=True)

    def __enter__(self) -> Reporter:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def finish(self, picture: Tensor) -> None:
        """Show the finished picture in the preview."""
        self._written = -PREVIEW_SECONDS
        self.update(1.0, picture, "")

    def update(self, share: float | None, picture: Tensor | None, state: str) -> None:
        """Show the share that is done (None: unknown) and the picture [3, H, W] as it is, if there is one."""
        self._bar.show(share, "" if share is None else f"{share:.0%}", state)
        if self.preview is not None and picture is not None and time.monotonic() - self._written >= PREVIEW_SECONDS:
            write_picture(self.preview, picture)
            self._written = time.monotonic()


def warn_of_idle(given: Given, idle: Collection[str], why: str) -> None:
    """Warn of given options that do nothing here: those of the fields ``idle``. ``why`` ends the sentence."""
    flags = [flag for name, flag in given.items() if name in idle]
    if flags:
        warnings.warn(f"{', '.join(flags)} {'does' if len(flags) == 1 else 'do'} nothing {why}", stacklevel=1)


def warn_of_quality(given: Given, out: str | None) -> None:
    """Warn of a given --quality if the result is no JPEG."""
    if out is None or not out.lower().endswith((".jpg", ".jpeg")):
        warn_of_idle(given, ("quality",), "as only JPEG has one")


class Stopped(Exception):
    """Ctrl-C, with the picture as it was, [3, H, W]."""

    def __init__(self, picture: Tensor) -> None:
        super().__init__("stopped")
        self.picture = picture


def check_results(outputs: Sequence[Path], preview: str | None, sources: Sequence[str]) -> None:
    """Before the work, make the folders of the results and check that each result can be written.

    Raises:
        OSError: one cannot be written.
        ValueError: two results, or a result and the preview, have one name, or one of them is a source.
    """
    if preview is not None:
        picture_format(preview)
    seen: set[str] = set()
    originals = {os.path.realpath(source) for source in sources if Path(source).exists()}
    for option, path in [*(("--out", path) for path in outputs), *([("--preview", Path(preview))] if preview else [])]:
        # some file systems do not tell case
        if (name := os.path.realpath(path).lower()) in seen:
            raise ValueError(f"{option} {path}: two results would have this name; give them a folder or name each")
        seen.add(name)
        if os.path.realpath(path) in originals:
            raise ValueError(f"{option} {path} is one of the sources; choose another name")
        check_writable(path)


def is_folder(out: str) -> bool:
    """Whether --out names a folder: one that exists, a name that ends in a slash, or one without an ending."""
    return out.endswith(("/", os.sep)) or Path(out).is_dir() or not Path(out).suffix


def check_picture_ending(out: Path) -> None:
    """Raise ValueError unless pictures are written in files with this name's ending."""
    try:
        picture_format(out)
    except ValueError as error:
        raise ValueError(f"{error}; the name of a new folder ends in /") from None


def make_folder(path: Path) -> None:
    """Make a folder, and those that it lies in, unless it is there.

    Raises:
        OSError: it cannot be made; a file in its way is named as no directory.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from None


def check_writable(path: Path) -> None:
    """Make the folder of a file, and raise OSError if the file cannot be written there."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    make_folder(path.parent)
    trial = scrap_of(path)
    with naming(path):
        trial.touch()
        trial.unlink()


def peak_memory() -> str:
    """The peak memory of the process, in words."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return f"peak memory {torch.cuda.max_memory_allocated() / 1e9:.2f} GB on the GPU"
    peak = _memory.peak_memory()
    return "peak memory unknown" if peak is None else f"peak memory {peak / 1e9:.2f} GB"
