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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from rich.console import Console

from .._device import choose_device
from .._interrupts import interruptible
from ..data.files import alone, write_file
from . import checkpoint as files
from ._data import DataRecord, RunData
from ._opening import made_by, opening
from ._progress import Bar
from ._report import BOARD, NoReport, Report
from ._steps import Loop, OnStep
from ._wandb import ID, WandB, load_wandb
from .config import MADE_BY, RunConfig
from .ema import SNAPSHOTS, snapshots
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
        loop = Loop(trainer, data, report, out, total, deadline, stopped, on_step)
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


def _check(data: RunData, quiet: bool) -> None:
    console = Console(stderr=True)
    checked = itertools.count(1)
    with Bar("checking the pictures", console, disable=quiet or not console.is_terminal, transient=True) as bar:

        def tell() -> None:
            done = next(checked)
            bar.show(done / data.checked, f"{done:,} of {data.checked:,}")

        data.check(tell)
