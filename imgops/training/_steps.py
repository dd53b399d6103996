"""The steps of a run, and what is due between them: measurements, records, sheets, averages, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..data import DataError
from ..data.files import write_file
from . import checkpoint as files
from ._data import RunData
from ._opening import forecast
from ._page import write_page
from ._report import NoReport, Report
from .ema import SNAPSHOTS, write_snapshot
from .grid import png_bytes
from .trainer import DivergenceError, Trainer

#: called after each step with what was measured, scalar tensors; a true answer stops the run, saved
OnStep = Callable[[Trainer, dict[str, Tensor]], bool | None]


class _Ended(Exception):
    """A signal has come within a measurement, or the time is over."""


class Loop:
    """Steps until the run is over, and what is due between them: records, sheets, checkpoints.

    Attributes:
        interrupted: whether a signal ended the run, in whichever process it arrived.
    """

    def __init__(
        self,
        trainer: Trainer,
        data: RunData,
        report: Report | NoReport,
        out: Path,
        total: int,
        deadline: float | None,
        stopped: Callable[[], bool],
        on_step: OnStep | None = None,
    ) -> None:
        self.trainer, self.data, self.report, self.out = trainer, data, report, out
        self.batches = data.batches(trainer.seen, trainer.processes)
        self.measurement = trainer.recipe.measurement(data)
        self.total, self.deadline, self.stopped = total, deadline, stopped
        self.on_step = on_step
        if self.measurement is not None:
            self.measurement.evaluator.progress = self._go_on
        self.interrupted = False
        self._enough = False
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}
        self._ticked, self._ticked_at = time.monotonic(), trainer.seen

    def run(self) -> Path:
        """Train, and return the last checkpoint."""
        trainer = self.trainer
        first = _FirstSteps(trainer, self.total, self.deadline is not None)
        begun, begun_at, before = time.monotonic(), trainer.seen, trainer.seconds
        if self.report.last.get("images") == trainer.seen:
            # a kill may have come between the checkpoint and its copy as the best
            self._keep_best(self.report.last)
        while True:
            trainer.seconds = before + time.monotonic() - begun
            batch, error = self._next_batch()
            late = self._enough or self._late()
            self.interrupted, late, failed = trainer.processes.any(self.stopped(), late, error is not None)
            ended = self.interrupted or late or failed
            if trainer.seen > self._ticked_at:
                self._tick(ended)
            if failed and not self.interrupted:
                # torchrun soon ends all processes where one ends with an error; until then the first one may save
                trainer.processes.wait()
                raise error or DataError("the data could not be read in another process")
            if ended or self.interrupted or self._enough or batch is None:
                last = self._save()
                trainer.processes.wait()
                return last
            measured = trainer.step(*batch)
            for name, value in measured.items():
                so_far, count = self._sums.get(name, (torch.zeros_like(value), torch.zeros_like(value)))
                # in half precision a penalty overflows now and then, and its gradients are left out of the step
                counts = value.isfinite() if trainer.recipe.half_precision else torch.ones_like(value)
                self._sums[name] = so_far + torch.where(counts > 0, value, 0), count + counts
            if text := first.tell():
                self.report.say(text)
            self.report.advance(trainer.seen, (trainer.seen - begun_at) / (time.monotonic() - begun))
            if self.on_step is not None:
                self._enough = bool(self.on_step(trainer, measured))

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _next_batch(self) -> tuple[tuple[Tensor, ...] | None, Exception | None]:
        """The next batch, None at the end of the run; and what went wrong in its place.

        A picture that has vanished, or a reading process, must not cost the steps since the last checkpoint.
        """
        if self.trainer.seen >= self.total:
            return None, None
        try:
            return next(self.batches), None
        except (OSError, ValueError, RuntimeError) as error:
            return None, _of_worker(error)

    def _due(self, kimg: float) -> bool:
        """Whether the run is over, or a multiple of so many thousand images has been passed."""
        return self.trainer.seen >= self.total or _due(kimg, self._ticked_at, self.trainer.seen)

    def _tick(self, ended: bool) -> None:
        """Do what is due after a step: a measurement, the record, the sheet, averages, the checkpoint.

        Args:
            ended: whether something has stopped the run: it is not measured then, and saved before what takes time, as
                a scheduler soon kills what it has asked to end. A signal ends a measurement, too.
        """
        config = self.trainer.config
        measuring = self.measurement is not None and not ended and self._due(self.measurement.kimg)
        showing, saving = ended or self._due(config.grid_kimg), ended or self._due(config.checkpoint_kimg)
        kimg = self.trainer.recipe.averages_kimg
        averaging = kimg is not None and (ended or self._due(kimg))
        if not (measuring or showing or saving or averaging or self._due(config.log_kimg)):
            return
        try:
            figures = self._record(measuring)
        except (OSError, ValueError, RuntimeError) as error:
            # a measurement reads pictures and runs a network that no step has; a run that diverges must not be saved
            if not isinstance(error, DivergenceError):
                self._save()
            raise
        if ended or self.interrupted or self._enough:
            self._save()
        trainer = self.trainer
        if trainer.processes.first and showing and (sheet := trainer.recipe.sheet(self.data)) is not None:
            write_file(self.out / "samples" / f"{trainer.seen:010d}.png", png_bytes(sheet))
            self.report.picture("samples", sheet, trainer.seen)
        if trainer.recipe.averages is not None and trainer.processes.first and averaging:
            write_snapshot(self.out / SNAPSHOTS, trainer.recipe.averages)
        if saving:
            self._save()
        self._keep_best(figures)
        if trainer.processes.first and (showing or saving):
            write_page(trainer, self.out, self.total)
        # what the first process has written may have taken it longer than an exchange of GPUs waits
        trainer.processes.wait()
        self._sums, self._ticked, self._ticked_at = {}, time.monotonic(), trainer.seen

    def _record(self, measuring: bool) -> dict[str, float]:
        """Record the means since the last time, and the distances, which are returned."""
        trainer = self.trainer
        # the values are copied from the device only here, so that the steps between need not wait for it
        means = trainer.processes.means([float(value / count) for value, count in self._sums.values()])
        measured = dict(zip(self._sums, means, strict=True))
        self.report.warn(measured, trainer.recipe.half_precision)
        trainer.check_finite(measured)
        speed = (trainer.seen - self._ticked_at) / (time.monotonic() - self._ticked)
        record = {"images": trainer.seen, "seconds": trainer.seconds, "images_per_second": speed, **measured}
        figures = self._distances() if measuring else {}
        self.report.record(record | figures)
        return figures

    def _distances(self) -> dict[str, float]:
        """The distances of samples from the data; none where a signal, or the limit in time, ends their measurement."""
        assert self.measurement is not None
        try:
            return self.measurement.evaluator(self.measurement.draw)
        except _Ended:
            return {}

    def _go_on(self, what: str, done: int, share: int) -> None:
        """Called within a measurement, which may take minutes: raise _Ended in all processes where the time is over, or
        one of them was asked to end, and would be killed before it has saved."""
        assert self.measurement is not None
        processes, evaluator = self.trainer.processes, self.measurement.evaluator
        # shares differ by one picture, and all processes must ask as often
        common = (evaluator.samples if what == "samples" else evaluator.reals) // processes.count
        if done >= common:
            return
        interrupted, late = processes.any(self.stopped(), self._late())
        self.interrupted, self._enough = self.interrupted or interrupted, self._enough or late
        if interrupted or late:
            raise _Ended

    def _keep_best(self, figures: Mapping[str, float]) -> None:
        """Keep the checkpoint of now as the best, if the first of the figures, where it is among them, says so."""
        if self.measurement is None or not self.trainer.processes.first:
            return
        evaluator = self.measurement.evaluator
        name, of = evaluator.figures[0], f"{evaluator.samples} samples, {evaluator.reals} pictures"
        if name in figures and files.is_best(self.out, name, figures[name], of):
            files.keep_best(self._save(), name, figures[name], of)

    def _save(self) -> Path:
        """The checkpoint of now, which the first process writes."""
        if self.trainer.processes.first:
            self.trainer.save(self.out)
        return files.checkpoint_path(self.out, self.trainer.seen)


def _of_worker(error: Exception) -> Exception:
    """The error that a process that reads pictures had; what the loader makes of it has the whole traceback as text."""
    text = str(error)
    if not text.startswith("Caught "):
        return error
    return type(error)(text.strip().rpartition("\n")[2].partition(": ")[2])


class _FirstSteps:
    """The speed of a run's first steps, reported once and soon, from as many steps as fit into that time."""

    #: seconds and steps to wait for, and the seconds of a first step beyond which no other step is waited for
    SECONDS, STEPS, SLOW = 3.0, 8, 10.0

    def __init__(self, trainer: Trainer, total: int, limited: bool) -> None:
        self.trainer, self.total, self.limited = trainer, total, limited
        self.times, self.told = [time.monotonic()], False

    def tell(self) -> str:
        """Called after each step: returns the forecast when it is due, else nothing."""
        if self.told:
            return ""
        if self.trainer.device.type == "cuda":
            torch.cuda.synchronize(self.trainer.device)
        self.times.append(time.monotonic())
        steps = len(self.times) - 1
        # the first step is slower, so it counts only if it is the only one
        seconds = self.times[-1] - self.times[min(1, steps - 1)]
        slow = seconds >= self.SLOW and not self.trainer.recipe.slow_start
        self.told = slow if steps == 1 else seconds >= self.SECONDS or steps > self.STEPS
        if not self.told:
            return ""
        config = self.trainer.config
        speed = max(steps - 1, 1) * config.batch / max(seconds, 1e-9)
        return forecast(
            self.trainer.device.type, speed, self.total - self.trainer.seen, steps, self.limited, config.for_cpu
        )


def _due(kimg: float, before: int, now: int) -> bool:
    """Whether a multiple of ``kimg`` thousand images (at least one image) lies between the two counts."""
    every = max(round(kimg * 1000), 1)
    return now // every > before // every
