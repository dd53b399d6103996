"""What the commands that make pictures have in common: progress, a preview, the device, and care for the sources."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from ..data.pictures import picture_format, write_picture

#: seconds between two writes of the preview
PREVIEW_SECONDS = 2.0


class Reporter:
    """A bar with the time that is left, on the terminal if there is one, and a preview file that follows the work.

    Args:
        what: the text beside the bar.
        preview: a file that shows the picture as it is, or None.
    """

    def __init__(self, what: str, preview: str | None = None) -> None:
        self.preview, self._written = preview, -PREVIEW_SECONDS
        if preview is not None:
            picture_format(preview)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[state]}"),
        )
        console = Console(stderr=True)
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task(what, total=1.0, state="")

    def __enter__(self) -> Reporter:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, share: float | None, picture: Tensor | None, state: str) -> None:
        """Show the share that is done (None: unknown) and the picture [3, H, W] as it is, if there is one."""
        self._progress.update(self._task, completed=share, total=None if share is None else 1.0, state=state)
        if self.preview is not None and picture is not None and time.monotonic() - self._written >= PREVIEW_SECONDS:
            write_picture(self.preview, picture)
            self._written = time.monotonic()


def say(text: str) -> None:
    """A line for the user, on stdout, as it is."""
    typer.echo(text)


def choose_device(name: str) -> str:
    """The device that ``auto`` stands for, or the one named.

    Raises:
        ValueError: there is no such device here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return name


def refuse_to_overwrite(out: Path, sources: Sequence[str]) -> None:
    """Raise ValueError if a result would take the place of what it is made from."""
    for source in sources:
        if out.exists() and Path(source).exists() and os.path.samefile(out, source):
            raise ValueError(f"--out {out} is one of the sources; choose another name")


def peak_memory() -> str:
    """The most memory that the process has had, in words; nothing on Windows, which does not say."""
    if sys.platform == "win32":
        return "peak memory unknown"
    import resource

    # kilobytes on Linux, bytes on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    return f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9:.2f} GB"
