"""``imgops data``: a dataset for training, of what one has."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from .._settings import MACHINE, Bounds, setting
from ..data.preparing.settings import PICTURE, RESULT, SOURCE, PrepareSettings
from ._options import Given, options


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to prepare, as the command line says it."""

    source: Annotated[str, typer.Argument(help="What the dataset is made of.")]
    out: Annotated[str, typer.Argument(help="The dataset: a folder, or NAME.zip.")]
    settings: PrepareSettings
    workers: int | None = setting(
        None, MACHINE, "Processes that work; 0: this one alone.", "one per core", allowed=Bounds(0, most=1024)
    )


@options(PICTURE, SOURCE, RESULT, MACHINE)
def data(job: Job, given: Given) -> None:
    """Make a dataset for training of what you have.

    Example: imgops data photos photos.zip --resolution 64

    SOURCE is a folder or zip of pictures, WebDataset shards, a video or a folder of videos, an lmdb of LSUN,
    cifar-10-python.tar.gz or -binary, a folder of MNIST's *-ubyte.gz, or samples:textures. Ended at any moment, the
    same command goes on where it was. OUT-refused.txt says why a picture is not used, OUT-duplicates.txt which are the
    same.
    """
    from ._data import prepare

    prepare(job, given)
