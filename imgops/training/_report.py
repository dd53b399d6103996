"""What a run tells: a progress bar or lines, stats.jsonl, TensorBoard."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..data.files import write_file

STATS = "stats.jsonl"
#: how the bar names what is measured, in this order
_SHOWN = {"loss_g": "G", "loss_d": "D", "r1": "R1"}


class Report:
    """Shows and records a run; a context manager.

    Args:
        out: the run's folder.
        total: real images that the run will show.
        seen: images shown before; what an earlier, interrupted run recorded beyond them is dropped.
        quiet: show nothing, record all the same.
    """

    def __init__(self, out: Path, total: int, seen: int, quiet: bool = False) -> None:
        self.out, self.total = out, total
        self.console = Console(file=sys.stderr, quiet=quiet, soft_wrap=True, highlight=False)
        self._keep_stats(seen)
        self._board = _tensorboard(out / "tensorboard", seen)
        if self._board is None:
            self.console.print(
                f"TensorBoard is not installed (pip install tensorboard): scalars go to {out / STATS} alone"
            )
        self._bar = Progress(
            TextColumn("[bold]{task.completed:,.0f}[/] of {task.total:,.0f} images"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[speed]}"),
            TextColumn("{task.fields[losses]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, completed=seen, speed="", losses="")

    def _keep_stats(self, seen: int) -> None:
        path = self.out / STATS
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        # a kill may have cut the last line
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["images"] <= seen]
        write_file(path, "".join(kept).encode())

    def __enter__(self) -> Report:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self._board is not None:
            self._board.close()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(text, markup=False)

    def advance(self, seen: int, images_per_second: float) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=seen, speed=f"{images_per_second:.1f} images/s")

    def record(self, measured: dict[str, float]) -> None:
        """Keep a record: ``images``, ``seconds``, ``images_per_second`` and the means since the last one."""
        with open(self.out / STATS, "a") as file:
            file.write(json.dumps(measured) + "\n")
        images = int(measured["images"])
        if self._board is not None:
            for name, value in measured.items():
                if name != "images":
                    self._board.add_scalar(name, value, images)
            self._board.flush()
        losses = "  ".join(f"{short} {measured[name]:.3g}" for name, short in _SHOWN.items() if name in measured)
        self._bar.update(self._task, losses=losses)
        if self._bar.disable:
            left = (self.total - images) / measured["images_per_second"]
            speed = f"{measured['images_per_second']:.1f} images/s"
            self.say(f"{images:,} of {self.total:,} images  {speed}  {losses}  {_duration(left)} left")

    def picture(self, name: str, image: Image.Image, images: int) -> None:
        """Show a picture in TensorBoard."""
        if self._board is not None:
            import numpy as np

            self._board.add_image(name, np.asarray(image.convert("RGB")), images, dataformats="HWC")


def _tensorboard(folder: Path, seen: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=seen or None)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
