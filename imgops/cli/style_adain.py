"""``imgops style train-adain``: a decoder for any style."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from .._settings import MACHINE, NETWORKS, same_as, setting
from ..style.settings import TransferSettings
from ..style.training_settings import TRAINING, AdaINTraining
from ._options import DATA, FILES, Given, TrainingRun, options


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to train, as the command line says it."""

    out: Annotated[str, typer.Option("--out", "-o", help="The decoder: NAME.safetensors.", rich_help_panel=FILES)]
    contents: str = setting(*DATA)
    styles: str = setting(*DATA)
    weights: str = same_as(
        TransferSettings, "weights", help="Encoder: embedded, the default; efficientnet-lite2; or as of imgops style."
    )
    loss_weights: str | None = setting(
        None, NETWORKS, "Another encoder for the losses, as efficientnet-lite2.", "the one that is decoded"
    )
    run: TrainingRun
    settings: AdaINTraining


@options(FILES, TRAINING, NETWORKS, MACHINE)
def train_adain(job: Job, given: Given) -> None:
    """Train a decoder that gives any picture the style of any other, in one pass.

    Example: imgops style train-adain --contents PHOTOS --styles PAINTINGS -o decoder.safetensors

    Then: imgops style PICTURE STYLE --method adain --decoder decoder.safetensors. Ctrl-C saves; --resume continues.
    """
    from ._style_training import train_adain as train

    train(job)
