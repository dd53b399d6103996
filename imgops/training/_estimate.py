"""What a run will take of the machine at hand: memory and time, measured by a few steps on random pictures."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch

from .._memory import naming_remedy, peak_memory, room_on
from ._data import RunData
from ._opening import facts_of, forecast, lines_of, megabytes
from .config import RunConfig
from .processes import device_of_process, joined
from .trainer import Trainer

#: seconds after which no further step is begun, and how often each kind of step is measured before that
BUDGET, REPEATS = 20.0, 2
#: steps over which kinds of steps are counted, where their intervals have a longer period
_LONGEST = 10_000


def estimate(config: RunConfig, data: RunData, seen: int = 0) -> str:
    """Take a few steps on random pictures, and say what the run would take; nothing is written.

    Args:
        config: resolved settings.
        data: of the run, whose classes are taken, and none of its pictures.
        seen: real images that it has shown already.

    Returns:
        Lines on device, networks, disk, memory and speed; empty in all processes but the first.

    Raises:
        OutOfMemory: the steps need more memory than there is.
    """
    config = dataclasses.replace(config, device=device_of_process(config.device))
    with joined(config.device) as processes:
        trainer = Trainer(config, data.labels, data.class_names, processes)
        trainer.recipe.take(data)
        facts = facts_of(trainer, data, Path(config.out))
        # the command has told of the data
        del facts["data"]
        room = room_on(trainer.device)
        with naming_remedy(f"a smaller {config.for_memory} needs less"):
            seconds, steps = measured(trainer, data)
        facts["memory"] = f"{_peak(trainer.device)} at most{'' if room == math.inf else f', of {megabytes(room)}'}"
        speed = forecast(trainer.device.type, config.batch / seconds, config.total - seen, steps, False, config.for_cpu)
        return f"{lines_of(facts)}\n{speed}" if processes.first else ""


def measured(trainer: Trainer, data: RunData) -> tuple[float, int]:
    """Take steps: (seconds of a step on average over a run, how many steps were taken).

    What is not done in every step counts by how often it is done.
    """
    shares = kinds_of(trainer.recipe.intervals)
    trainer.seen = trainer.recipe.measured_at
    begun = time.monotonic()
    # the first step is slower than others, and counts only where there is no time for another one
    first, taken = _timed(trainer, data, 0), 1
    if trainer.recipe.slow_start:
        begun = time.monotonic()
    seconds = dict.fromkeys(shares, first)
    for at in sorted(shares, key=lambda step: -shares[step]):
        times: list[float] = []
        while len(times) < REPEATS and not trainer.processes.any(time.monotonic() - begun > BUDGET)[0]:
            times.append(_timed(trainer, data, at))
        if times:
            seconds[at] = min(times)
            taken += len(times)
    return sum(shares[at] * seconds[at] for at in shares), taken


def kinds_of(intervals: Mapping[str, int]) -> dict[int, float]:
    """{a step's number: the share of all steps that do what that one does}, one step for each kind.

    >>> kinds_of({"r1": 4, "path_length": 2})
    {0: 0.25, 1: 0.5, 2: 0.25}
    """
    period = min(math.lcm(*intervals.values()), _LONGEST)
    doing = [frozenset(name for name, every in intervals.items() if step % every == 0) for step in range(period)]
    return {doing.index(kind): count / period for kind, count in Counter(doing).items()}


def _timed(trainer: Trainer, data: RunData, step: int) -> float:
    batch = data.imagined(trainer.config.share(trainer.processes.count))
    trainer.steps = step
    _wait(trainer.device)
    begun = time.monotonic()
    trainer.step(*batch)
    _wait(trainer.device)
    return time.monotonic() - begun


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(device: torch.device) -> str:
    peak = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else peak_memory()
    return "not known" if peak is None else megabytes(peak)
