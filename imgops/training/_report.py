"""What a run reports: a progress bar or lines, stats.jsonl, TensorBoard, Weights & Biases."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from rich.console import Console

from ..data.files import naming, write_file
from ..metrics.names import METRICS
from ._curves import number
from ._progress import Bar, duration
from ._wandb import WandB

STATS, BOARD = "stats.jsonl", "tensorboard"
#: the bar's names for the measured values, in this order; those of distances are without the encoder's, fd and swd
_SHOWN = {"augment_p": "p", "pseudo_p": "APA p", "fd": "fd", "swd": "swd", "loss_g": "G", "loss_d": "D", "r1": "R1"} | {
    "loss_total": "loss",
    "loss_content": "content",
    "loss_style": "style",
    "psnr": "PSNR",
    "kl": "KL",
}
#: the number of images from which on the bar counts in thousands
_MANY = 10_000_000
#: the share of gradients that half precision may lose without a word
_MOST = 0.5


class Report:
    """Shows and records a run; a context manager.

    Args:
        out: the run's folder.
        total: real images that the run will show.
        seen: images shown before; records of an interrupted run beyond this count are dropped.
        quiet: show nothing, but still record.
        deadline: when the run stops by :func:`time.monotonic`, wherever it is then; None: never.
        online: gets the records and pictures as well; None: nothing does.

    Attributes:
        last: the last record, of a run that is continued too; empty before the first.
    """

    def __init__(
        self,
        out: Path,
        total: int,
        seen: int,
        quiet: bool = False,
        deadline: float | None = None,
        online: WandB | None = None,
    ) -> None:
        self.out, self.total, self.begun, self.deadline = out, total, time.monotonic(), deadline
        self.console = Console(file=sys.stderr, quiet=quiet, soft_wrap=True, highlight=False)
        self._keep_stats(seen)
        self._board = _tensorboard(out / BOARD, seen)
        if self._board is None:
            self.console.print(
                f"TensorBoard is not installed (pip install tensorboard): scalars go to {out / STATS} alone"
            )
        self._bar = Bar("", self.console, disable=quiet or not self.console.is_terminal)
        self._online = online
        self._values: dict[str, float] = {}
        self._warned = False

    def _keep_stats(self, seen: int) -> None:
        path = self.out / STATS
        lines = path.read_text(errors="replace").splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if _images(line) <= seen]
        write_file(path, "".join(kept).encode())
        self.last: dict[str, float] = json.loads(kept[-1]) if kept else {}

    def __enter__(self) -> Report:
        self._excepthook, threading.excepthook = threading.excepthook, self._of_thread
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._bar.stop()
        threading.excepthook = self._excepthook
        # where a disk is full closing fails as well, which would hide the first error
        with contextlib.suppress(OSError) if kind else contextlib.nullcontext():
            if self._board is not None:
                self._board.close()
        if self._online is not None:
            self._online.close(failed=kind is not None and issubclass(kind, Exception))

    def _of_thread(self, failed: Any) -> None:
        # an error of the thread that writes for TensorBoard is raised here, too, by the next call
        if not (isinstance(failed.exc_value, OSError) and type(failed.thread).__module__.startswith("tensorboard.")):
            self._excepthook(failed)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(text, markup=False)

    def advance(self, seen: int, images_per_second: float) -> None:
        """Move the bar."""
        done, left = self._count(seen, images_per_second)
        share = seen / self.total
        if self.deadline is not None:
            share = max(share, (time.monotonic() - self.begun) / max(self.deadline - self.begun, 1e-3))
        self._bar.show(share, done, self._state(images_per_second), duration(left))

    def _state(self, images_per_second: float) -> str:
        shown = (f"{short} {number(self._values[name])}" for name, short in _SHOWN.items() if name in self._values)
        return "  ".join((f"{images_per_second:.1f} images/s", *shown))

    def _count(self, seen: int, images_per_second: float) -> tuple[str, float]:
        """Text on the images shown (with the total, if the time allows all of them), and the seconds left."""
        left = (self.total - seen) / images_per_second
        limit = math.inf if self.deadline is None else self.deadline - time.monotonic()
        unit, counted = (1000, "kimg") if self.total >= _MANY else (1, "images")
        done = f"{seen // unit:,} of {self.total // unit:,}" if left <= limit else f"{seen // unit:,}"
        return f"{done} {counted}", max(min(left, limit), 0)

    def warn(self, measured: dict[str, float], half_precision: bool = False) -> None:
        """Say once, when it is first so, that gradients were not finite.

        Half precision overflows now and then, which its steps leave out; there it is said where most are lost.
        """
        share = measured.get("bad_gradients", 0)
        if share <= (_MOST if half_precision else 0) or self._warned:
            return
        self._warned = True
        why = "the learning rate is too high, or --gamma too low"
        if half_precision:
            why += ", or half precision too narrow (--num-fp16-res 0)"
        self.say(f"{share:.2g} of the gradients were not finite: {why}")

    def record(self, measured: dict[str, float]) -> None:
        """Keep a record: ``images``, ``seconds``, ``images_per_second`` and the means since the last one.

        Raises:
            OSError: it cannot be written, for want of space or of a right; nothing of it stays.
        """
        _append(self.out / STATS, f"{json.dumps(measured)}\n".encode())
        self.last, images = measured, int(measured["images"])
        if self._board is not None:
            with naming(self.out / BOARD):
                for name, value in measured.items():
                    if name != "images":
                        self._board.add_scalar(name, value, images)
                self._board.flush()
        if self._online is not None:
            self._online.record(measured)
        # a distance is not in every record, and stays until the next
        self._values |= {_short(name): value for name, value in measured.items()}
        if self._bar.disable:
            speed = measured["images_per_second"]
            done, left = self._count(images, speed)
            self.say(f"{done}  {self._state(speed)}  {duration(left)} left")

    def picture(self, name: str, image: Image.Image, images: int) -> None:
        """Show a picture in TensorBoard and online."""
        if self._online is not None:
            self._online.picture(name, image, images)
        if self._board is not None:
            import numpy as np

            self._board.add_image(name, np.asarray(image.convert("RGB")), images, dataformats="HWC")


class NoReport:
    """The report of a process that reports nothing."""

    last: ClassVar[dict[str, float]] = {}

    def __enter__(self) -> NoReport:
        return self

    def __exit__(self, *error: object) -> None: ...

    def say(self, text: str) -> None: ...

    def advance(self, seen: int, images_per_second: float) -> None: ...

    def warn(self, measured: dict[str, float], half_precision: bool = False) -> None: ...

    def record(self, measured: dict[str, float]) -> None: ...

    def picture(self, name: str, image: Image.Image, images: int) -> None: ...


def _images(line: str) -> float:
    """The images of a record; infinitely many where a kill or a power cut has left a part of a line, or none of it."""
    try:
        return float(json.loads(line)["images"]) if line.endswith("\n") else math.inf
    except (ValueError, TypeError, KeyError):
        return math.inf


def _short(name: str) -> str:
    """The name of a distance without its encoder's; any other as it is."""
    metric = name.partition("_")[0]
    return metric if metric in METRICS else name


def _append(path: Path, content: bytes) -> None:
    """Append to a file, all or nothing."""
    with naming(path), open(path, "ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            while content:
                content = content[file.write(content) :]
        except OSError:
            file.truncate(before)
            raise


def _tensorboard(folder: Path, seen: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    # TensorBoard drops points from purge_step on; the points at the checkpoint itself are still valid
    return SummaryWriter(str(folder), purge_step=seen + 1 if seen else None)
