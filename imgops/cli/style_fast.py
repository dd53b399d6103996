"""``imgops style train-fast``: a network of one style."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from .._settings import MACHINE, NETWORKS, same_as, setting
from ..style.settings import TransferSettings
from ..style.training_settings import TRAINING, FastTraining
from ._options import DATA, FILES, Given, TrainingRun, options


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to train, as the command line says it."""

    style: Annotated[str, typer.Argument(help="The picture whose style the network learns.")]
    out: Annotated[str, typer.Option("--out", "-o", help="The network: NAME.safetensors.", rich_help_panel=FILES)]
    data: str = setting(*DATA)
    weights: str = same_as(TransferSettings, "weights", help="Encoder: default, a file, or vgg16.")
    run: TrainingRun
    settings: FastTraining


@options(FILES, TRAINING, NETWORKS, MACHINE)
def train_fast(job: Job, given: Given) -> None:
    """Train a network that paints any picture in one style, in one pass.

    Example: imgops style train-fast samples:coffee --data FOLDER -o coffee.safetensors

    Then: imgops style PICTURE coffee.safetensors --method fast. Ctrl-C saves; --resume continues.
    """
    from ._style_training import train_fast as train

    train(job)
