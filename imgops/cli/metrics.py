"""``imgops metrics``: how far generated pictures are from real ones."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from .._settings import MACHINE, NETWORKS, SEED, Bounds, Shapes, same_as, setting
from ..training.config import RunConfig
from ._options import Given, options

_OPTIONS = "Options"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to compare, as the command line says it."""

    real: Annotated[
        str, typer.Argument(help="Pictures: a folder, a zip, shards, or a free set such as samples:textures.")
    ]
    fake: Annotated[str, typer.Argument(help="The same; or a checkpoint, or the folder of a run (takes its newest).")]
    metrics: str = setting(
        "fd,swd", _OPTIONS, "fd, the Fréchet distance, and swd, the sliced Wasserstein distance, of features."
    )
    resolution: int | tuple[int, int] | None = setting(
        None,
        _OPTIONS,
        "Side in pixels, or WIDTHxHEIGHT, to which all pictures are cropped and resized.",
        "the generator's; else by the first picture of FAKE",
        allowed=Shapes(8),
    )
    samples: int = setting(
        10_000,
        _OPTIONS,
        "Pictures that a checkpoint makes; given for another set, most pictures of FAKE, evenly spread.",
        allowed=Bounds(2, most=10**7),
    )
    reals: int | None = setting(
        None, _OPTIONS, "Most pictures of REAL, evenly spread.", "all", allowed=Bounds(2, most=10**9)
    )
    seed: int = setting(0, _OPTIONS, "First of the seeds that a checkpoint's pictures are made of.", allowed=SEED)
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.", rich_help_panel=_OPTIONS)] = False
    weights: str | None = setting(
        None,
        NETWORKS,
        "Encoder: a file, or a name such as embedded or efficientnet-lite2.",
        "efficientnet-lite2 where installed, else embedded",
    )
    size: int | None = setting(
        None,
        NETWORKS,
        "Side in pixels at which the encoder sees pictures.",
        "as it was trained; with an EfficientNet-Lite smaller pictures at 64 or more",
        allowed=Bounds(32, most=4096),
    )
    batch: int = setting(32, MACHINE, "Pictures at once.", allowed=Bounds(1, most=65536))
    cache: bool = setting(True, MACHINE, "Keep the features' statistics of REAL for the next time.")
    device: str = same_as(RunConfig, "device", panel=MACHINE)


@options()
def metrics(job: Job, given: Given) -> None:
    """Measure how far generated pictures are from real ones: distances in the features of an encoder; 0 is equal.

    Example: imgops metrics photos runs/photos --samples 2000

    Figures compare only if encoder, size and number of pictures are the same; docs/metrics.md says what they tell.
    """
    from ._metrics import measure

    typer.echo(measure(job, given))
