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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader

from .._interrupts import interruptible
from ..data import EndlessSampler, ImageDataset, ImageFolder
from ..data.files import write_file
from . import checkpoint as files
from ._data import DataRecord, open_data
from ._opening import forecast, made_by, opening
from ._progress import Bar
from ._report import Report
from .config import MADE_BY, TrainingConfig
from .grid import image_grid, png_bytes, seeded_samples
from .trainer import Trainer

#: signals that end a run after the current step and a save, and the text that is shown then
SIGNALS = signal.SIGINT, signal.SIGTERM
STOPPING = "\nfinishing the step, then saving; once more to stop at once\n"
#: samples in a row of the sample grid, and rows where there are no classes
GRID_COLUMNS, GRID_ROWS = 8, 4
#: number of rows of the sample grid if there are more classes than that
GRID_CLASSES = 16


def train(
    config: TrainingConfig,
    *,
    resume: bool = False,
    check_data: bool = True,
    max_seconds: float | None = None,
    quiet: bool = False,
) -> Path:
    """Train until ``config.kimg`` thousand real images were shown, and return the last checkpoint.

    The run's folder gets ``config.json``, ``data-<hash>.json`` (the names of the pictures), ``stats.jsonl`` (a record a
    line), ``tensorboard/``, ``reals.png``, ``samples/<images>.png`` (fixed latents, one class per row) and
    ``checkpoint-<images>/``. An interrupt (Ctrl-C) or a
    termination signal finishes the step and saves a checkpoint.

    Args:
        config: the settings; left open where None.
        resume: continue from the newest checkpoint in ``config.out``, bit by bit as if never stopped (on the same
            machine and backend of the ops). A run that is finished says so, and is left as it is. Data that has changed
            since is told by a warning.
        check_data: before a new run, decode every picture of a folder or zip once, so that none fails hours later.
        max_seconds: stop by then, with a checkpoint; None: no limit.
        quiet: print nothing.

    Raises:
        TypeError: a setting of another type.
        ValueError: a setting out of range; data or a checkpoint that cannot be used; a folder that holds another run,
            or lies inside the data, or around it.
        DivergenceError: a loss or weight became NaN or infinite; the last good checkpoint stays.
        KeyboardInterrupt: after an interrupt, with the checkpoint saved.
    """
    started = time.monotonic()
    config = config.resolve()
    out = Path(config.out)
    present = files.checkpoints(out)
    if present and not resume:
        raise ValueError(f"{out} already holds a run; --resume continues it, another --out starts a new one")
    if resume and not present:
        raise files.CheckpointError(f"{out}: no checkpoint to resume from")
    # rounded up to whole batches
    total = math.ceil(max(1, round(config.kimg * 1000)) / config.batch) * config.batch
    if resume and (seen := files.read_meta(present[-1])["seen"]) >= total:
        if not quiet:
            _say_finished(out, seen, total)
        return present[-1]
    dataset = open_data(config)
    record = DataRecord.of(dataset)
    trainer = Trainer(config, dataset.labels, dataset.class_names)
    if resume:
        # loading comes first, so that data that does not fit raises before the run is said to continue
        trainer.load(present[-1])
        _tell_of_changes(record, present[-1])
    elif check_data and isinstance(dataset, ImageFolder):
        _check(dataset, quiet)
    out.mkdir(parents=True, exist_ok=True)
    files.sweep(out)
    (out / "samples").mkdir(exist_ok=True)
    record.write(out)
    trainer.data = record.summary()
    about = {**dataclasses.asdict(config), MADE_BY: made_by(trainer.device.type)}
    write_file(out / "config.json", json.dumps(about, indent=2).encode())
    deadline = None if max_seconds is None else started + max_seconds
    told = None if quiet else STOPPING
    with Report(out, total, trainer.seen, quiet, deadline) as report, interruptible(SIGNALS, told) as stopped:
        report.say(opening(trainer, dataset, out))
        if resume:
            report.say(f"{'resumed':<9} {present[-1]}, {trainer.seen:,} of {total:,} images")
        else:
            write_file(out / "reals.png", png_bytes(real_grid(dataset)))
        last = _loop(trainer, _batches(dataset, config, trainer.seen), report, out, total, deadline, stopped)
        if stopped():
            report.say(f"interrupted; saved {last}\nto continue: imgops train --out {out} --resume")
            raise KeyboardInterrupt
        report.say(f"trained on {trainer.seen:,} images; saved {last}")
    return last


def _tell_of_changes(record: DataRecord, checkpoint: Path) -> None:
    then = files.read_meta(checkpoint).get("data")
    changes = "" if then is None else record.changes(then, checkpoint.parent)
    if changes:
        warnings.warn(
            f"the data is not what {checkpoint} was trained on: {changes}; the run goes on with what is there now",
            stacklevel=3,
        )


def _say_finished(out: Path, seen: int, total: int) -> None:
    more = f"imgops train --out {shlex.quote(str(out))} --resume --kimg {2 * seen / 1000:g}"
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"{out} is finished: it was shown {seen:,} images, and --kimg asks for {total:,}; nothing was trained\n"
        f"to go on, with a larger --kimg: {more}",
        markup=False,
    )


def _loop(
    trainer: Trainer,
    batches: Iterator[tuple[Tensor, Tensor]],
    report: Report,
    out: Path,
    total: int,
    deadline: float | None,
    stopped: Callable[[], bool],
) -> Path:
    config = trainer.config
    sums: dict[str, tuple[Tensor, int]] = {}
    first = _FirstSteps(trainer, total, deadline is not None)
    begun = ticked = time.monotonic()
    begun_at = ticked_at = trainer.seen
    before = trainer.seconds
    while True:
        trainer.seconds = before + time.monotonic() - begun
        done = trainer.seen >= total or stopped() or (deadline is not None and time.monotonic() >= deadline)
        if trainer.seen > ticked_at and (done or _due(config.log_kimg, ticked_at, trainer.seen)):
            # the values are copied from the device only here, so that the steps between need not wait for it
            measured = {name: float(value) / count for name, (value, count) in sums.items()}
            trainer.check_finite(measured)
            now = time.monotonic()
            speed = (trainer.seen - ticked_at) / (now - ticked)
            record = {"images": trainer.seen, "seconds": trainer.seconds, "images_per_second": speed, **measured}
            report.record(record)
            for name, kimg in ("grid", config.grid_kimg), ("checkpoint", config.checkpoint_kimg):
                if done or _due(kimg, ticked_at, trainer.seen):
                    if name == "grid":
                        sheet = sample_grid(trainer)
                        write_file(out / "samples" / f"{trainer.seen:010d}.png", png_bytes(sheet))
                        report.picture("samples", sheet, trainer.seen)
                    else:
                        trainer.save(out)
            sums, ticked, ticked_at = {}, time.monotonic(), trainer.seen
        if done:
            return trainer.save(out)
        for name, value in trainer.step(*next(batches)).items():
            so_far, count = sums.get(name, (torch.zeros_like(value), 0))
            sums[name] = so_far + value, count + 1
        if text := first.tell():
            report.say(text)
        report.advance(trainer.seen, (trainer.seen - begun_at) / (time.monotonic() - begun))


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


def _due(kimg: float, before: int, now: int) -> bool:
    """Whether a multiple of ``kimg`` thousand images (at least one image) lies between the two counts."""
    every = max(kimg * 1000, 1.0)
    return int(now / every) > int(before / every)


def _batches(dataset: ImageDataset, config: TrainingConfig, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=config.batch,
        sampler=EndlessSampler(len(dataset), config.seed, start),
        num_workers=config.workers,
        pin_memory=torch.device(config.device).type == "cuda",
        # the loader has a generator of its own: drawing from torch's would make a resumed run differ
        generator=torch.Generator(),
    )
    return iter(loader)


def _check(dataset: ImageFolder, quiet: bool) -> None:
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
    """Samples of the averaged generator for fixed latents and noise: one latent per column, one class per row."""
    classes = grid_classes(trainer.c_dim)
    seeds = list(range(GRID_COLUMNS if classes else GRID_COLUMNS * GRID_ROWS))
    rows = [seeded_samples(trainer.G_ema, seeds, k) for k in classes] or [seeded_samples(trainer.G_ema, seeds)]
    return image_grid(torch.cat(rows), GRID_COLUMNS, [trainer.class_names[k] for k in classes])
