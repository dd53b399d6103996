"""``imgops train``: networks of any recipe, on your pictures."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from .._settings import Choice, metadata_of, types_of
from ..training.config import FIRST, RECIPE, GeneratorConfig, RunConfig
from ..training.recipes import RECIPES, config_class
from ._help import Command
from ._options import Given, options

#: what --resume means without a value, and what it may be
ALWAYS, AUTO = "always", "auto"
#: the groups of options in the order of the help pages
PANELS = "Data", "Run", "Networks", "Training", "Optimization", "Augmentation", "Transfer", "Metrics", "Reports"
#: what every help page ends with
_ALWAYS_SO = """
    Ctrl-C saves; --resume continues; --config runs/one/config.json --out runs/again repeats a run. Behind torchrun
    --nproc-per-node 8 -m it trains on eight GPUs.
"""


class TrainCommand(Command):
    """The command with the options of one recipe. Those of another take its place where the arguments are of it, and
    ``--resume`` may stand without a value.

    Attributes:
        recipe: whose options they are.
    """

    recipe = FIRST

    @property
    def choice(self) -> Sequence[str]:  # type: ignore[override]
        """The option --recipe, unless these are the options without it."""
        return () if self.recipe == FIRST else ("--recipe", self.recipe)

    def of(self, args: Sequence[str]) -> TyperCommand:
        """The command with the options of the recipe at hand."""
        recipe = recipe_of(args)
        return self if recipe == self.recipe else command_of(recipe)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        command = self.of(args)
        make = super().make_context if command is self else command.make_context
        return make(info_name, args, parent, **extra)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        pairs = zip(args, [*args[1:], "-"][: len(args)], strict=True)
        bare = f"--resume={ALWAYS}"
        return super().parse_args(ctx, [bare if (a, b[:1]) == ("--resume", "-") else a for a, b in pairs])


def recipe_of(args: Sequence[str]) -> str:
    """The recipe that arguments are of: that of --recipe, else that of the file of --config or of the run that is
    continued; the first one where neither says."""
    given = {}
    for word, following in zip(args, [*args[1:], ""], strict=False):
        flag, equals, rest = word.partition("=")
        given[flag] = rest if equals else following
    recipe = given.get("--recipe")
    place = given.get("--config", given.get("--out") if "--resume" in given else None)
    if recipe is None and place is not None:
        recipe = _recorded(Path(place))
    return recipe if recipe in RECIPES else FIRST


def _recorded(place: Path) -> str | None:
    """The recipe that a config.json says, or that of a folder; None where it cannot be read, which is told later."""
    try:
        table = json.loads((place / "config.json" if place.is_dir() else place).read_text())
        recipe = table.get("config", table).get(RECIPE)
        return recipe if isinstance(recipe, str) else None
    except (OSError, ValueError, AttributeError):
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to train, as the command line says it."""

    settings: RunConfig
    recipe: Annotated[
        str,
        typer.Option(
            help=f"What is trained: {', '.join(RECIPES)}. --recipe NAME --help shows the options of each.",
            rich_help_panel="Run",
        ),
    ] = FIRST
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
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the resolved configuration as JSON, and on stderr what the run would take; write nothing "
            "but the index of shards, beside them.",
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class PicturesJob(Job):
    """The same of a recipe that is trained on a dataset of pictures."""

    no_labels: Annotated[
        bool, typer.Option("--no-labels", help="The same as --labels none.", rich_help_panel="Data")
    ] = False
    check_data: Annotated[
        bool,
        typer.Option(
            "--check-data/--no-check-data", help="Decode every picture once before a new run.", rich_help_panel="Data"
        ),
    ] = True


@functools.cache
def function_of(recipe: str) -> Callable[..., None]:
    """The function of the command with the options of a recipe."""
    settings = config_class(recipe)
    fields: list[tuple[str, Any, Any]] = [
        ("settings", settings, dataclasses.field()),
        ("recipe", types_of(Job)["recipe"], dataclasses.field(default=recipe)),
    ]
    base = PicturesJob if issubclass(settings, GeneratorConfig) else Job
    job = dataclasses.make_dataclass("Job", fields, bases=(base,), frozen=True, kw_only=True)

    def train(job: Job, given: Given) -> None:
        _train(job, given)

    train.__doc__ = settings.about + _ALWAYS_SO
    train.__annotations__["job"] = job
    return options(*PANELS)(train)


@functools.cache
def command_of(recipe: str) -> TyperCommand:
    """The command with the options of a recipe."""
    app = typer.Typer(rich_markup_mode="rich", add_completion=False)
    app.command(cls=type("TrainCommand", (TrainCommand,), {"recipe": recipe}))(function_of(recipe))
    command = typer.main.get_command(app)
    assert isinstance(command, TyperCommand)
    return command


def _train(job: Job, given: Given) -> None:
    """Train, or print what a training would be."""
    from .. import training
    from ..training.processes import asked_for, is_first
    from ._train import tell_of_idle

    Choice(RECIPES).check("recipe", job.recipe)
    asked, pictures = job.settings, job if isinstance(job, PicturesJob) else None
    resume = _resumed(job.resume, asked.out or "")
    # on a resume, what was not given comes from the checkpoint
    settings = {name: value for name, value in dataclasses.asdict(asked).items() if name in given}
    if pictures is not None and pictures.no_labels and settings.setdefault("labels", "none") != "none":
        raise ValueError(f"--no-labels and --labels {settings['labels']} do not go together")
    recipe = type(asked)
    _check_given(recipe, ["out"], settings)
    seen = 0
    if resume:
        from ..training.checkpoint import read_meta

        if job.config is not None and job.resume == ALWAYS:
            raise ValueError("--config begins a new run; --resume takes the settings from the checkpoint")
        meta = read_meta(training.find_checkpoint(settings["out"]))
        begun, seen = meta["config"], meta["seen"]
        if begun.recipe != job.recipe:
            raise ValueError(f"{asked.out}: is a run of the recipe {begun.recipe}; --recipe {job.recipe} cannot go on")
        chosen = begun.changed(settings)
    elif job.config is not None:
        chosen = recipe.read(job.config, settings)
    else:
        _check_given(recipe, recipe.required(), settings)
        chosen = recipe(**settings)
    tell_of_idle(given, chosen, resume=resume, dry_run=job.dry_run, by_file=job.config is not None and not resume)
    if job.dry_run:
        from ..training._estimate import estimate
        from ..training.recipes import recipe_class

        chosen = chosen.resolve(asked_for())
        data = recipe_class(chosen.recipe).open_data(chosen)
        if is_first():
            typer.echo(json.dumps(chosen.as_json(), indent=2))
            typer.echo(f"data: {data.describe()}", err=True)
        if job.estimate and (told := estimate(chosen, data, seen)):
            typer.echo(told, err=True)
        return
    training.train(chosen, resume=resume, check_data=pictures is None or pictures.check_data)


def _check_given(recipe: type[RunConfig], names: Sequence[str], settings: dict[str, Any]) -> None:
    """Raise ValueError where one of these settings is missing."""
    for name in names:
        if name not in settings:
            help = metadata_of(recipe, name)["help"].rstrip(".")
            raise ValueError(f"--{name} is missing: {help[:1].lower()}{help[1:]}")


def _resumed(asked: str | None, out: str) -> bool:
    """Whether there is a run to continue, as --resume asks; after a failure torchrun repeats the command as it was."""
    from ..training import checkpoint
    from ..training.processes import restarted

    if asked is not None:
        Choice((ALWAYS, AUTO)).check("resume", asked)
    if asked == AUTO or restarted():
        return bool(out) and bool(checkpoint.checkpoints(Path(out)))
    return asked == ALWAYS


train = function_of(FIRST)
