"""A whole run: data, steps, reports, sample grids, checkpoints; stopped and continued at will."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shlex
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader

from .._interrupts import interruptible
from ..data import DataError, EndlessSampler, ImageDataset, PictureFiles
from ..data.files import write_file
from ..metrics import Evaluator
from ..metrics.names import parse_metrics
from . import checkpoint as files
from ._data import DataRecord, open_data
from ._opening import forecast, made_by, opening
from ._page import write_page
from ._progress import Bar
from ._report import NoReport, Report
from ._wandb import WandB, load_wandb
from .config import MADE_BY, RunConfig
from .ema import SNAPSHOTS, write_snapshot
from .grid import image_grid, png_bytes
from .processes import Processes, asked_for, device_of_process, joined, restarted
from .trainer import DivergenceError, Trainer

#: signals that end a run after the current step and a save, and the text that is shown then
SIGNALS = signal.SIGINT, signal.SIGTERM
STOPPING = "\nfinishing the step, then saving; once more to stop at once\n"
#: the value of ``resume`` that continues a run where there is one
AUTO = "auto"
#: samples in a row of the sample grid, and rows where there are no classes
GRID_COLUMNS, GRID_ROWS = 8, 4
#: number of rows of the sample grid if there are more classes than that
GRID_CLASSES = 16


def train(
    config: RunConfig,
    *,
    resume: bool | str = False,
    check_data: bool = True,
    max_seconds: float | None = None,
    quiet: bool = False,
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
        max_seconds: stop by then, with a checkpoint; None: no limit.
        quiet: print nothing.

    Raises:
        TypeError: a setting of another type.
        ValueError: a setting out of range; data or a checkpoint that cannot be used; a folder that holds another run,
            or lies inside the data, or around it.
        DivergenceError: a loss or weight became NaN or infinite; the last good checkpoint stays.
        OSError: a picture has vanished, after a checkpoint was saved; or nothing more can be written, as on a full
            disk: the last good checkpoint stays, and nothing is left half written.
        KeyboardInterrupt: after an interrupt, with the checkpoint saved.
    """
    if resume not in (True, False, AUTO):
        raise ValueError(f"resume must be true, false or {AUTO!r}; got {resume!r}")
    started = time.monotonic()
    config = config.resolve(asked_for())
    config = dataclasses.replace(config, device=device_of_process(config.device))
    if config.wandb is not None:
        # it may be missing, which must not be found after the data has been looked through
        load_wandb()
    with joined(config.device) as processes:
        return _run(config, resume, check_data, started, max_seconds, quiet or not processes.first, processes)


def _run(
    config: RunConfig,
    resume: bool | str,
    check_data: bool,
    started: float,
    max_seconds: float | None,
    quiet: bool,
    processes: Processes,
) -> Path:
    out = Path(config.out)
    # after a failure torchrun repeats the command as it was
    present, again = processes.share((files.checkpoints(out), resume == AUTO or restarted()))
    if again:
        resume = bool(present)
    if present and not resume:
        raise ValueError(f"{out} already holds a run; --resume continues it, another --out starts a new one")
    if resume and not present:
        raise files.CheckpointError(f"{out}: no checkpoint to resume from")
    total = config.total
    if resume and (seen := files.read_meta(present[-1])["seen"]) >= total:
        if not quiet:
            _say_finished(out, seen, total)
        return present[-1]
    dataset = open_data(config)
    record = DataRecord.of(dataset)
    trainer = Trainer(config, dataset.labels, dataset.class_names, processes)
    if resume:
        # loading comes first, so that data that does not fit raises before the run is said to continue
        trainer.load(present[-1])
        _tell_of_changes(record, present[-1])
    elif check_data and isinstance(dataset, PictureFiles) and processes.first:
        _check(dataset, quiet)
    begun_with = "" if resume or config.init is None else _begin_with(trainer, config.init)
    networks = trainer.recipe.networks.values()
    processes.share_([tensor for network in networks for tensor in network.state_dict().values()])
    trainer.data = record.summary()
    if processes.first:
        _prepare(trainer, record, out)
    deadline = None if max_seconds is None else started + max_seconds
    told = None if quiet else STOPPING
    with _report(trainer, out, quiet, deadline) as report, interruptible(SIGNALS, told) as stopped:
        report.say(opening(trainer, dataset, out))
        if resume:
            report.say(f"{'resumed':<9} {present[-1]}, {trainer.seen:,} of {total:,} images")
        elif processes.first:
            if begun_with:
                report.say(begun_with)
            write_file(out / "reals.png", png_bytes(real_grid(dataset)))
        batches = _batches(dataset, config, trainer.seen, processes)
        loop = _Loop(trainer, batches, report, out, total, deadline, stopped, _evaluator(config, dataset))
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


def _prepare(trainer: Trainer, record: DataRecord, out: Path) -> None:
    """Write what a run's folder has from its beginning."""
    out.mkdir(parents=True, exist_ok=True)
    files.sweep(out)
    (out / "samples").mkdir(exist_ok=True)
    record.write(out)
    about = {**trainer.config.as_json(), MADE_BY: made_by(trainer.device.type)}
    write_file(out / "config.json", json.dumps(about, indent=2).encode())


def _tell_of_changes(record: DataRecord, checkpoint: Path) -> None:
    then = files.read_meta(checkpoint).get("data")
    changes = "" if then is None else record.changes(then, checkpoint.parent)
    if changes:
        warnings.warn(
            f"the data is not what {checkpoint} was trained on: {changes}; the run goes on with what is there now",
            stacklevel=3,
        )


def _to_continue(out: Path) -> str:
    return f"to continue: imgops train --out {shlex.quote(str(out))} --resume"


def _say_finished(out: Path, seen: int, total: int) -> None:
    more = f"imgops train --out {shlex.quote(str(out))} --resume --kimg {2 * seen / 1000:g}"
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"{out} is finished: it was shown {seen:,} images, and --kimg asks for {total:,}; nothing was trained\n"
        f"to go on, with a larger --kimg: {more}",
        markup=False,
    )


class _Loop:
    """Steps until the run is over, and what is due between them: records, sheets, checkpoints.

    Attributes:
        interrupted: whether a signal ended the run, in whichever process it arrived.
    """

    def __init__(
        self,
        trainer: Trainer,
        batches: Iterator[tuple[Tensor, Tensor]],
        report: Report | NoReport,
        out: Path,
        total: int,
        deadline: float | None,
        stopped: Callable[[], bool],
        evaluator: Evaluator | None = None,
    ) -> None:
        self.trainer, self.batches, self.report, self.out = trainer, batches, report, out
        self.total, self.deadline, self.stopped, self.evaluator = total, deadline, stopped, evaluator
        self.interrupted = False
        self._sums: dict[str, tuple[Tensor, int]] = {}
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
            late = self.deadline is not None and time.monotonic() >= self.deadline
            self.interrupted, late, failed = trainer.processes.any(self.stopped(), late, error is not None)
            ended = self.interrupted or late or failed
            if trainer.seen > self._ticked_at:
                self._tick(ended)
            if failed:
                raise error or DataError("the data could not be read in another process")
            if ended or batch is None:
                return self._save()
            for name, value in trainer.step(*batch).items():
                so_far, count = self._sums.get(name, (torch.zeros_like(value), 0))
                self._sums[name] = so_far + value, count + 1
            if text := first.tell():
                self.report.say(text)
            self.report.advance(trainer.seen, (trainer.seen - begun_at) / (time.monotonic() - begun))

    def _next_batch(self) -> tuple[tuple[Tensor, Tensor] | None, Exception | None]:
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
                a scheduler soon kills what it has asked to end.
        """
        config = self.trainer.config
        measuring = self.evaluator is not None and not ended and self._due(config.metrics_kimg)
        showing, saving = ended or self._due(config.grid_kimg), ended or self._due(config.checkpoint_kimg)
        kimg = config.ema_snapshot_kimg
        averaging = kimg is not None and (ended or self._due(kimg))
        if not (measuring or showing or saving or averaging or self._due(config.log_kimg)):
            return
        figures = self._record(measuring)
        if ended:
            self._save()
        trainer = self.trainer
        if trainer.processes.first and showing:
            sheet = sample_grid(trainer)
            write_file(self.out / "samples" / f"{trainer.seen:010d}.png", png_bytes(sheet))
            self.report.picture("samples", sheet, trainer.seen)
        if trainer.recipe.averages is not None and trainer.processes.first and averaging:
            write_snapshot(self.out / SNAPSHOTS, trainer.recipe.averages)
        if saving:
            self._save()
        self._keep_best(figures)
        if trainer.processes.first and (showing or saving):
            write_page(trainer, self.out, self.total)
        self._sums, self._ticked, self._ticked_at = {}, time.monotonic(), trainer.seen

    def _record(self, measuring: bool) -> dict[str, float]:
        """Record the means since the last time, and the distances, which are returned."""
        trainer = self.trainer
        # the values are copied from the device only here, so that the steps between need not wait for it
        means = trainer.processes.means([float(value) / count for value, count in self._sums.values()])
        measured = dict(zip(self._sums, means, strict=True))
        if not trainer.recipe.half_precision:
            self.report.warn(measured)
        trainer.check_finite(measured)
        speed = (trainer.seen - self._ticked_at) / (time.monotonic() - self._ticked)
        record = {"images": trainer.seen, "seconds": trainer.seconds, "images_per_second": speed, **measured}
        figures: dict[str, float] = {}
        if measuring and self.evaluator is not None:
            figures = self.evaluator(trainer.recipe.drawn)
        self.report.record(record | figures)
        return figures

    def _keep_best(self, figures: Mapping[str, float]) -> None:
        """Keep the checkpoint of now as the best, if the first of the figures, where it is among them, says so."""
        if self.evaluator is None or not self.trainer.processes.first:
            return
        name = self.evaluator.figures[0]
        if name in figures and files.is_best(self.out, name, figures[name]):
            files.keep_best(self._save(), name, figures[name])

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
        self.told = seconds >= self.SLOW if steps == 1 else seconds >= self.SECONDS or steps > self.STEPS
        if not self.told:
            return ""
        speed = max(steps - 1, 1) * self.trainer.config.batch / max(seconds, 1e-9)
        return forecast(self.trainer.device.type, speed, self.total - self.trainer.seen, steps, self.limited)


def _evaluator(config: RunConfig, dataset: ImageDataset) -> Evaluator | None:
    """What measures the samples, if the settings ask for it."""
    if config.metrics is None:
        return None
    chosen = parse_metrics(config.metrics)
    samples, weights = config.metrics_samples, config.metrics_weights
    return Evaluator(dataset, chosen, weights=weights, samples=samples, device=config.device)


def _due(kimg: float, before: int, now: int) -> bool:
    """Whether a multiple of ``kimg`` thousand images (at least one image) lies between the two counts."""
    every = max(kimg * 1000, 1.0)
    return int(now / every) > int(before / every)


def _batches(
    dataset: ImageDataset, config: RunConfig, start: int, processes: Processes
) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's share of each batch: every n-th image, from that of its number on."""
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=config.share(processes.count),
        sampler=EndlessSampler(len(dataset), config.seed, start, processes.rank, processes.count),
        num_workers=config.workers,
        pin_memory=torch.device(config.device).type == "cuda",
        worker_init_fn=_leave_signals,
        # the loader has a generator of its own: drawing from torch's would make a resumed run differ
        generator=torch.Generator(),
    )
    return iter(loader)


def _leave_signals(worker: int) -> None:
    """Reading processes leave Ctrl-C to the one that trains, and end at a termination signal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _check(dataset: PictureFiles, quiet: bool) -> None:
    console = Console(stderr=True)
    checked = itertools.count(1)
    with Bar("checking the pictures", console, disable=quiet or not console.is_terminal, transient=True) as bar:

        def tell() -> None:
            done = next(checked)
            bar.show(done / dataset.count, f"{done:,} of {dataset.count:,}")

        dataset.check(tell)


def grid_classes(c_dim: int) -> list[int]:
    """The class of each row of a sample grid: each class once, the first few of many; [] without classes."""
    return list(range(min(c_dim, GRID_CLASSES)))


def real_grid(dataset: ImageDataset) -> Image.Image:
    """Pictures of the dataset laid out like the samples, with one class per row."""
    classes = grid_classes(len(dataset.class_names))
    rows = [dataset.first_of_class(k, GRID_COLUMNS) for k in classes] or [
        dataset.first_of_class(0, GRID_COLUMNS * GRID_ROWS)
    ]
    return image_grid(torch.cat(rows), GRID_COLUMNS, [dataset.class_names[k] for k in classes])


def sample_grid(trainer: Trainer) -> Image.Image:
    """What the recipe makes of fixed seeds: one seed per column, one class per row."""
    classes = grid_classes(trainer.c_dim)
    seeds = list(range(GRID_COLUMNS if classes else GRID_COLUMNS * GRID_ROWS))
    rows = [trainer.recipe.samples(seeds, k) for k in classes] or [trainer.recipe.samples(seeds)]
    return image_grid(torch.cat(rows), GRID_COLUMNS, [trainer.class_names[k] for k in classes])
