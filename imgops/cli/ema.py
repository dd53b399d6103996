"""``imgops ema``: a generator whose weights are averaged over another length of its training."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from .._settings import COUNT, Bounds, setting
from ._options import Given, options
from ._quiet import say

_OPTIONS = "Options"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to average, as the command line says it."""

    run: Annotated[
        str, typer.Argument(help="The folder of a run that kept snapshots: imgops train --ema-snapshot-kimg 50.")
    ]
    length: float = setting(
        0.1,
        _OPTIONS,
        "Length of the average: the standard deviation of its weight over time, as a share of the training so far.",
        allowed=Bounds(0, 0.288, above=True),
    )
    images: int | None = setting(None, _OPTIONS, "When: after so many images.", "at the newest snapshot", allowed=COUNT)
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="Folder of the checkpoint that is made.", rich_help_panel=_OPTIONS),
    ] = None


@options()
def ema(job: Job, given: Given) -> None:
    """Average a generator's weights anew, over any length, from the snapshots of a run (post-hoc EMA).

    Example: imgops ema runs/photos --length 0.05 -o runs/photos-ema

    A short average has details, a long one is calmer; which is best is seen only afterwards, by imgops metrics. The
    checkpoint that it makes is one for imgops generate.
    """
    from ._ema import average

    say(average(job))
