"""``imgops train``: networks that make pictures like yours."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .._settings import Choice
from ..training.recipes import RECIPES, config_class
from ..training.recipes.stylegan2_config import TrainingConfig
from ._help import Command
from ._options import Given, options

#: what --resume means without a value, and what it may be
ALWAYS, AUTO = "always", "auto"


class TrainCommand(Command):
    """The command, whose ``--resume`` may stand without a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        pairs = zip(args, [*args[1:], "-"][: len(args)], strict=True)
        bare = f"--resume={ALWAYS}"
        return super().parse_args(ctx, [bare if (a, b[:1]) == ("--resume", "-") else a for a, b in pairs])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to train, as the command line says it."""

    settings: TrainingConfig
    recipe: Annotated[
        str, typer.Option(help=f"What is trained: {', '.join(RECIPES)}.", rich_help_panel="Run", show_default=True)
    ] = RECIPES[0]
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            help="Continue the run in --out, with its settings where no other option says otherwise; --resume auto "
            "begins one where there is none, so that the same command can be given again.",
            metavar="[auto]",
            rich_help_panel="Run",
        ),
    ] = None
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
        typer.Option(
            "--dry-run",
            help="Print the resolved configuration as JSON, and on stderr what the run would take; write nothing.",
            rich_help_panel="Run",
        ),
    ] = False
    estimate: Annotated[
        bool,
        typer.Option(
            "--estimate/--no-estimate",
            help="In a dry run, measure a few steps on random pictures: memory and time.",
            rich_help_panel="Run",
        ),
    ] = True


@options("Data", "Run", "Networks", "Optimization", "Augmentation", "Transfer", "Metrics", "Reports")
def train(job: Job, given: Given) -> None:
    """Train a StyleGAN2 on your pictures.

    Example: imgops train --data samples:textures --resolution 32 --out runs/textures

    Settings that are not given are those of --preset; tiny suits a CPU. A folder or zip of pictures works as --data,
    and so do WebDataset shards; imgops data makes one that is read quickly. Classes come from its dataset.json, if any:
    {"labels": [["name.png", 0], ...], "names": ["cats", ...]}, or with --labels folders from its subfolders.

    Ctrl-C saves; --resume continues; --config runs/textures/config.json --out runs/again repeats a run. Behind torchrun
    --nproc-per-node 8 -m it trains on eight GPUs.
    """
    from .. import training
    from ..training.processes import asked_for
    from ._train import tell_of_idle

    Choice(RECIPES).check("recipe", job.recipe)
    resume = _resumed(job.resume, str(job.settings.out or ""))
    # on a resume, what was not given comes from the checkpoint
    settings = {name: value for name, value in dataclasses.asdict(job.settings).items() if name in given}
    if job.no_labels and settings.setdefault("labels", "none") != "none":
        raise ValueError(f"--no-labels and --labels {settings['labels']} do not go together")
    if "out" not in settings:
        raise ValueError("--out is missing: the folder for checkpoints, samples and statistics")
    recipe = config_class(job.recipe)
    if resume:
        from ..training.checkpoint import read_meta

        if job.config is not None and job.resume == ALWAYS:
            raise ValueError("--config begins a new run; --resume takes the settings from the checkpoint")
        chosen = read_meta(training.find_checkpoint(settings["out"]))["config"].changed(settings)
    elif job.config is not None:
        chosen = recipe.read(job.config, settings)
    elif "data" not in settings:
        raise ValueError("--data is missing: a folder or zip of pictures, or samples:textures to try it out")
    else:
        chosen = recipe(**settings)
    tell_of_idle(given, chosen, resume=resume, dry_run=job.dry_run, by_file=job.config is not None and not resume)
    if job.dry_run:
        from ..training._estimate import estimate
        from ..training.recipes import recipe_class

        chosen = chosen.resolve(asked_for())
        data = recipe_class(chosen.recipe).open_data(chosen)
        typer.echo(json.dumps(chosen.as_json(), indent=2))
        typer.echo(f"data: {data.describe()}", err=True)
        if job.estimate and (told := estimate(chosen, data)):
            typer.echo(told, err=True)
        return
    training.train(chosen, resume=resume, check_data=job.check_data)


def _resumed(asked: str | None, out: str) -> bool:
    """Whether there is a run to continue, as --resume asks; after a failure torchrun repeats the command as it was."""
    from ..training import checkpoint
    from ..training.processes import restarted

    if asked is not None:
        Choice((ALWAYS, AUTO)).check("resume", asked)
    if asked == AUTO or restarted():
        return bool(out) and bool(checkpoint.checkpoints(Path(out)))
    return asked == ALWAYS
