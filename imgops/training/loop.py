"""A whole run: data, steps, reports, sample grids, checkpoints; stopped and continued at will."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shlex
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from .._device import choose_device
from .._interrupts import interruptible
from ..data import DataError
from ..data.files import alone, write_file
from . import checkpoint as files
from ._data import DataRecord, RunData
from ._opening import forecast, made_by, opening
from ._page import write_page
from ._progress import Bar
from ._report import BOARD, NoReport, Report
from ._wandb import ID, WandB, load_wandb
from .config import MADE_BY, RunConfig
from .ema import SNAPSHOTS, snapshots, write_snapshot
from .grid import png_bytes
from .processes import Processes, asked_for, device_of_process, joined, restarted
from .recipes import recipe_class
from .recipes._base import Recipe
from .trainer import DivergenceError, Trainer

#: signals that end a run after the current step and a save, and the text that is shown then
SIGNALS = signal.SIGINT, signal.SIGTERM
STOPPING = "\nfinishing the step, then saving; once more to stop at once\n"
#: the file in a run's folder that the process that writes there holds; and the seconds after which the processes that
#: read pictures for it have noticed that it was killed
LOCK, LINGERING = ".lock", 10.0
#: the value of ``resume`` that continues a run where there is one
AUTO = "auto"
#: called after each step with what was measured, scalar tensors; a true answer stops the run, saved
OnStep = Callable[[Trainer, dict[str, Tensor]], bool | None]


def train(
    config: RunConfig,
    *,
    resume: bool | str = False,
    check_data: bool = True,
    max_seconds: float | None = None,
    quiet: bool = False,
    on_step: OnStep | None = None,
    recipe: type[Recipe] | None = None,
) -> Path:
    """Train until ``config.kimg`` thousand real images were shown, and return the last checkpoint.

    Started by ``torchrun``, the processes share each step's batch, and do what one process does with all of it, to
    rounding; the first one writes the files.

    The run's folder gets ``config.json``, ``data-<hash>.json`` (the names of the pictures), ``stats.jsonl`` (a record a
    line), ``tensorboard/``, ``report.html``, ``reals.png``, ``samples/<images>.png`` (fixed latents, one class per row)
    and ``checkpoint-<images>/``. An interrupt (Ctrl-C) or a termination signal finishes the step and saves.

    Args:
        config: the settings of a recipe; left open where None.
        resume: True continues from the newest checkpoint in ``config.out``, bit by bit as if never stopped (on the same
            machine, backend of the ops and number of processes). A run that is finished says so, and is left as it is.
            Data that has changed since is told by a warning. "auto" does so where there is a checkpoint, and begins a
            run where there is none. Default False, a new run.
        check_data: before a new run, decode every picture of a folder or zip once, so that none fails hours later.
        max_seconds: stop by then, or by ``config.minutes``, with a checkpoint; None: no limit.
        quiet: print nothing.
        on_step: called after each step with the trainer and what was measured, scalar tensors; a true answer ends the
            run, with a checkpoint.
        recipe: its class, which may be one of your own; None: the one that the settings are of.

    Raises:
        TypeError: a setting of another type.
        ValueError: a setting out of range; data or a checkpoint that cannot be used; a folder that holds another run,
            or in which another process trains, or that lies inside the data, or around it.
        DivergenceError: a loss or weight became NaN or infinite; the last good checkpoint stays.
        OSError: a picture has vanished, after a checkpoint was saved; or nothing more can be written, as on a full
            disk: the last good checkpoint stays, and nothing is left half written.
        KeyboardInterrupt: after an interrupt, with the checkpoint saved.
    """
    if resume not in (True, False, AUTO):
        raise ValueError(f"resume must be true, false or {AUTO!r}; got {resume!r}")
    started = time.monotonic()
    # settings that cannot be are told before the processes wait for one another
    config.resolve(asked_for())
    config = dataclasses.replace(config, device=device_of_process(choose_device(config.device)))
    if config.wandb is not None:
        # it may be missing, which must not be found after the data has been looked through
        load_wandb()
    if config.minutes is not None:
        max_seconds = min(60 * config.minutes, math.inf if max_seconds is None else max_seconds)
    deadline = None if max_seconds is None else started + max_seconds
    chosen = recipe or recipe_class(config.recipe)
    with joined(config.device) as processes:
        return _run(config, chosen, resume, check_data, deadline, quiet or not processes.first, on_step, processes)


def _run(
    config: RunConfig,
    recipe: type[Recipe],
    resume: bool | str,
    check_data: bool,
    deadline: float | None,
    quiet: bool,
    on_step: OnStep | None,
    processes: Processes,
) -> Path:
    # the first process decides for all, as another machine may not see its newest files yet
    config = dataclasses.replace(processes.share(config), device=config.device)
    out = Path(config.out)
    # after a failure torchrun repeats the command as it was
    present, resume = processes.share((files.checkpoints(out), AUTO if restarted() else resume))
    if resume == AUTO:
        resume = bool(present)
    if (present or files.bests(out)) and not resume:
        raise ValueError(f"{out} already holds a run; --resume continues it, another --out starts a new one")
    if resume and not present:
        raise files.CheckpointError(f"{out}: no checkpoint to resume from")
    meta = files.read_meta(present[-1]) if resume else {}
    config = (meta["config"].continued(config) if resume else config).resolve(processes.count)
    total = config.total
    if resume and (seen := meta["seen"]) >= total:
        if processes.first:
            recipe.deliver(config, present[-1])
        if not quiet:
            _say_finished(config, seen)
        return present[-1]
    data = recipe.open_data(config)
    if processes.first:
        recipe.check_results(config, bool(resume))
    record = data.record()
    trainer = Trainer(config, data.labels, data.class_names, processes, recipe)
    trainer.recipe.take(data)
    if resume:
        # loading comes first, so that data that does not fit raises before the run is said to continue
        trainer.load(present[-1])
        if processes.first:
            _tell_of_changes(record, present[-1])
    elif check_data and data.checked and processes.first:
        _check(data, quiet)
    processes.wait()
    begun_with = "" if resume or config.init is None else _begin_with(trainer, config.init)
    networks = trainer.recipe.networks.values()
    processes.share_([tensor for network in networks for tensor in network.state_dict().values()])
    trainer.data = record.summary()
    told = None if quiet else STOPPING
    with (
        _held(trainer, record, out, present) if processes.first else nullcontext(),
        _report(trainer, out, quiet, deadline) as report,
        interruptible(SIGNALS, told) as stopped,
    ):
        report.say(opening(trainer, data, out))
        if resume:
            report.say(f"{'resumed':<9} {present[-1]}, {trainer.seen:,} of {total:,} images")
        elif processes.first:
            if begun_with:
                report.say(begun_with)
            write_file(out / "reals.png", png_bytes(data.sheet()))
        loop = _Loop(trainer, data, report, out, total, deadline, stopped, on_step)
        try:
            last = loop.run()
        except (OSError, ValueError, RuntimeError) as error:
            # of the disk, the data or memory, which the caller tells; a run that diverges must not just go on
            newest = files.checkpoints(out)
            if newest and not isinstance(error, DivergenceError):
                report.say(f"stopped; the newest checkpoint is {newest[-1]}\n{_to_continue(out)}")
            raise
        if loop.interrupted:
            report.say(f"interrupted; saved {last}\n{_to_continue(out)}")
            raise KeyboardInterrupt
        report.say(f"trained on {trainer.seen:,} images; saved {last}")
    return last


def _report(trainer: Trainer, out: Path, quiet: bool, deadline: float | None) -> Report | NoReport:
    if not trainer.processes.first:
        return NoReport()
    config = trainer.config
    online = None if config.wandb is None else WandB(config.wandb, out, config.as_json())
    return Report(out, config.total, trainer.seen, quiet, deadline, online)


def _begin_with(trainer: Trainer, init: str) -> str:
    """Take over the weights of a checkpoint, and say how many of them fit.

    Raises:
        CheckpointError: there is none, or it is damaged, or nothing of it fits.
    """
    checkpoint = files.find_checkpoint(init)
    files.read_meta(checkpoint)
    names = [name for name in trainer.recipe.networks if (checkpoint / f"{name}.safetensors").is_file()]
    taken = trainer.recipe.start_from({name: files.read_tensors(checkpoint, name) for name in names})
    if not taken:
        raise files.CheckpointError(f"{checkpoint}: no tensor of it fits the networks of this run")
    return f"{'begun':<9} with {taken} of {trainer.recipe.tensors} tensors from {checkpoint}"


@contextmanager
def _held(trainer: Trainer, record: DataRecord, out: Path, present: list[Path]) -> Iterator[None]:
    """Hold a run's folder, so that no other process trains there, with what it has from its beginning.

    Args:
        trainer, record: what is trained, and on what.
        out: the folder.
        present: the checkpoints that were found there.

    Raises:
        ValueError: another process trains there, or has done so since.
    """
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(alone(out / LOCK, wait=LINGERING))
        except BlockingIOError:
            raise ValueError(f"{out}: another process trains there; let it end, or take another --out") from None
        if files.checkpoints(out) != present:
            raise ValueError(f"{out}: another process has trained there meanwhile; give the command again")
        files.sweep(out)
        if not present:
            _clear(out)
        (out / "samples").mkdir(exist_ok=True)
        record.write(out)
        about = {**trainer.config.as_json(), MADE_BY: made_by(trainer.device.type)}
        write_file(out / "config.json", json.dumps(about, indent=2).encode())
        yield


def _clear(out: Path) -> None:
    """Remove what an earlier run left that ended before its first checkpoint: it would be taken for this one's."""
    patterns = "samples/" + "[0-9]" * 10 + ".png", f"{BOARD}/events.out.tfevents.*", ID
    for path in [*snapshots(out / SNAPSHOTS), *(path for pattern in patterns for path in out.glob(pattern))]:
        path.unlink()


def _tell_of_changes(record: DataRecord, checkpoint: Path) -> None:
    then = files.read_meta(checkpoint).get("data")
    changes = "" if then is None else record.changes(then, checkpoint.parent)
    if changes:
        warnings.warn(
            f"the data is not what {checkpoint} was trained on: {changes}; the run goes on with what is there now",
            stacklevel=3,
        )


def _to_continue(out: Path) -> str:
    return f"to continue: {_to_go_on(str(out))}"


def _to_go_on(out: str) -> str:
    return f"imgops train --out {shlex.quote(out)} --resume"


def _say_finished(config: RunConfig, seen: int) -> None:
    shown = f"it was shown {seen:,} images, and --kimg asks for {config.total:,}"
    text = f"{config.out} is finished: {shown}; nothing was trained"
    if "kimg" in config.changeable:
        text += f"\nto go on, with a larger --kimg: {_to_go_on(config.out)} --kimg {2 * seen / 1000:g}"
    Console(stderr=True, soft_wrap=True, highlight=False).print(text, markup=False)


class _Ended(Exception):
    """A signal has come within a measurement, or the time is over."""


class _Loop:
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
        if not trainer.recipe.half_precision:
            self.report.warn(measured)
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


def _check(data: RunData, quiet: bool) -> None:
    console = Console(stderr=True)
    checked = itertools.count(1)
    with Bar("checking the pictures", console, disable=quiet or not console.is_terminal, transient=True) as bar:

        def tell() -> None:
            done = next(checked)
            bar.show(done / data.checked, f"{done:,} of {data.checked:,}")

        data.check(tell)
