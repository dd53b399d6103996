"""``imgops train``: a StyleGAN2 on pictures."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from ..training.config import TrainingConfig
from ._options import Given, options


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to train, as the command line says it."""

    settings: TrainingConfig
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the run in --out, with its settings where no other option says otherwise.",
            rich_help_panel="Run",
        ),
    ] = False
    config: Annotated[
        str | None,
        typer.Option(
            help="The config.json of a run or a checkpoint, whose settings are taken where no option differs.",
            rich_help_panel="Run",
        ),
    ] = None
    no_labels: Annotated[
        bool, typer.Option("--no-labels", help="The same as --labels none.", rich_help_panel="Data")
    ] = False
    check_data: Annotated[
        bool,
        typer.Option(
            "--check-data/--no-check-data", help="Decode every picture once before a new run.", rich_help_panel="Data"
        ),
    ] = True
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the resolved configuration as JSON and exit.", rich_help_panel="Run"),
    ] = False


@options()
def train(job: Job, given: Given) -> None:
    """Train a StyleGAN2 on your pictures.

    Example: imgops train --data samples:textures --resolution 32 --out runs/textures

    A folder or zip of pictures works as --data; classes come from its dataset.json, if any:
    {"labels": [["name.png", 0], ...], "names": ["cats", ...]}, or with --labels folders from its subfolders. Ctrl-C
    saves; --resume continues; --config runs/textures/config.json --out runs/again repeats a run.
    """
    from .. import training

    # on a resume, what was not given comes from the checkpoint
    settings = {name: value for name, value in dataclasses.asdict(job.settings).items() if name in given}
    if job.no_labels and settings.setdefault("labels", "none") != "none":
        raise ValueError(f"--no-labels and --labels {settings['labels']} do not go together")
    if "out" not in settings:
        raise ValueError("--out is missing: the folder for checkpoints, samples and statistics")
    if job.resume:
        from ..training.checkpoint import read_meta

        if job.config is not None:
            raise ValueError("--config begins a new run; --resume takes the settings from the checkpoint")
        chosen = read_meta(training.find_checkpoint(settings["out"]))["config"].changed(settings)
    elif job.config is not None:
        chosen = TrainingConfig.read(job.config, settings)
    elif "data" not in settings:
        raise ValueError("--data is missing: a folder or zip of pictures, or samples:textures to try it out")
    else:
        chosen = TrainingConfig(**settings)
    if job.dry_run:
        from ..training._data import open_data

        chosen = chosen.resolve()
        data = open_data(chosen)
        typer.echo(json.dumps(dataclasses.asdict(chosen), indent=2))
        typer.echo(f"data: {data.describe()}", err=True)
        return
    training.train(chosen, resume=job.resume, check_data=job.check_data)
