"""``imgops generate``: pictures from a checkpoint."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from .._settings import MACHINE, Bounds, Choice, same_as, setting
from ..training.config import RunConfig
from ._options import Given, options
from ._quiet import say

_OPTIONS = "Options"
#: what the noise inputs of the generator get
NOISE_MODES = ("random", "const", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to make, as the command line says it."""

    checkpoint: Annotated[str, typer.Argument(help="A checkpoint, or the folder of a run (takes its newest).")]
    seeds: str = setting("0-15", _OPTIONS, "Which samples: 0-15, or 3,7,20-29.")
    trunc: float = setting(
        1.0,
        _OPTIONS,
        "Truncation: 1 is the full variety, less is nearer to the average.",
        allowed=Bounds(0, most=1000),
    )
    interpolate: int | None = setting(
        None,
        _OPTIONS,
        "Pictures on the way from each seed to the next, too; grid.png has a row for each way.",
        "none",
        allowed=Bounds(1, most=1000),
    )
    class_: str | None = setting(None, _OPTIONS, "Class, by name or number.", "every class", flag="--class")
    out: str = setting("generated", _OPTIONS, "Folder for the pictures.")
    noise: str = setting(
        "random",
        _OPTIONS,
        "Fine detail: random, by the seed; const, the same in each picture; none.",
        allowed=Choice(NOISE_MODES),
    )
    batch: int = setting(16, _OPTIONS, "Pictures at once.", allowed=Bounds(1, most=65536))
    device: str = same_as(RunConfig, "device", panel=MACHINE)


@options()
def generate(job: Job, given: Given) -> None:
    """Make pictures with a trained network: a PNG for each seed and class, and grid.png of them all.

    Example: imgops generate runs/textures --seeds 0-15 --trunc 0.7 --class brick --out pictures
    """
    from ._generate import generate as run

    say(run(job))
