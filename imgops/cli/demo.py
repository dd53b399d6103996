"""``imgops demo``: a bit of everything within minutes."""

from __future__ import annotations

import dataclasses

from .._settings import SEED, Bounds, setting
from ._options import Given, options

_OPTIONS = "Options"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to show, as the command line says it."""

    out: str = setting("demo", _OPTIONS, "Folder for the results.")
    minutes: float = setting(5.0, _OPTIONS, "Time limit of the whole demo.", allowed=Bounds(0.1, most=1440))
    seed: int = setting(0, _OPTIONS, "Seed of everything random.", allowed=SEED)


@options()
def demo(job: Job, given: Given) -> None:
    """Paint, dream, train a small network on free textures, and time the fused ops, all within minutes.

    Writes style.png and dream.png; samples.png (real and generated pictures, one class per row) and losses.png of the
    training in run-1; and speed.md, the fused ops against plain PyTorch.
    """
    from ._demo import run

    run(job.out, 60 * job.minutes, job.seed)
