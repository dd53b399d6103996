"""The commands and their options. Each imports what it needs when it runs, so that ``--help`` is quick."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import sys
import typing
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__
from .._install import missing_package
from ..training.config import TrainingConfig
from ._help import Command, HelpPage
from ._options import Device
from ._quiet import keep_quiet, say
from .dream_command import dream
from .style_commands import DefaultCommand, style_app

#: what a mistake of the user, or of the machine, raises; anything else is a mistake of ours and shows its traceback
USER_ERRORS = (ValueError, TypeError, OSError, RuntimeError, ImportError, ArithmeticError, MemoryError)

#: how the library begins an error of a setting, with what it is a setting of or without
_SETTING = re.compile(r"(?:\w+: )?(\w+) ")
_STACK = re.compile(r"\s*(?:Exception raised from|C\+\+ CapturedTraceback|frame #\d+:)")


class OneLineErrors(HelpPage, TyperGroup):
    """A group of commands whose errors are one line on stderr, with exit code 2; ``--debug`` shows the traceback, and
    ``--quiet`` leaves nothing but errors and what was asked for."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        debug, quiet = "--debug" in given, not {"-q", "--quiet"}.isdisjoint(given)
        given = [a for a in given if a not in ("--debug", "-q", "--quiet")]
        # also from python -m imgops and from a test, where the program's name is another
        options |= {"standalone_mode": False, "prog_name": "imgops"}
        errors = sys.stderr
        with warnings.catch_warnings(), keep_quiet(quiet):
            warnings.showwarning = _one_line_warning
            # Pillow's do not name the file; what matters of them ends in an error that does
            warnings.filterwarnings("ignore", module=r"PIL\.")
            try:
                code = super().main(given, *rest, **options)
            except (KeyboardInterrupt, typer.Abort):
                sys.exit(130)
            except Exception as error:
                # the mistakes of an invocation, of typer's own kind, have a method that words them
                worded = getattr(error, "format_message", None)
                if debug or not (worded or isinstance(error, USER_ERRORS)):
                    raise
                if isinstance(error, ModuleNotFoundError):
                    text = missing_package(error)
                else:
                    text = " ".join((worded() if worded else self.text_of(error, given)).split())
                if worded or text.partition(" ")[0] in self._words(given) or text.startswith("--"):
                    # an option or argument is the cause
                    text += f" (see {self.named(given)} --help)" if text else ""
                if text:
                    print(f"imgops: error: {text}", file=errors)
                sys.exit(2)
        sys.exit(code if isinstance(code, int) else 0)

    def text_of(self, error: Exception, given: Sequence[str]) -> str:
        """What an error of the command line ``given`` says: a file as it is named, a setting as the option it has."""
        if isinstance(error, OSError) and error.strerror and error.filename is not None:
            return f"{os.fsdecode(error.filename)}: {error.strerror}"
        # what follows in a message of torch's is its own stack
        text = _STACK.split(str(error))[0]
        begins = _SETTING.match(text)
        if type(error) in (ValueError, TypeError) and begins:
            for option in self._command(given).params:
                if option.name == begins[1] and option.opts[0].startswith("--"):
                    return f"{option.opts[0]} {text[begins.end() :]}"
        return text

    def _command(self, given: Sequence[str]) -> Any:
        """The command of a command line; of a group, the one that is meant where none is named."""
        command = self._path(given)[-1][1]
        return command.get_command(None, "") if isinstance(command, DefaultCommand) else command

    def _words(self, given: Sequence[str]) -> list[str]:
        """The arguments of the command as its page has them, as PICTURE."""
        return [p.name.upper() for p in self._command(given).params if p.param_type_name == "argument"]

    def named(self, given: Sequence[str]) -> str:
        """The command that a command line names, as ``imgops style train-fast``."""
        return " ".join(word for word, _ in self._path(given))

    def _path(self, given: Sequence[str]) -> list[tuple[str, Any]]:
        group: Any = self
        path = [("imgops", group)]
        for word in given:
            if word in getattr(group, "commands", {}):
                group = group.commands[word]
                path.append((word, group))
            elif not word.startswith("-"):
                break
        return path


def _one_line_warning(message: Warning | str, *rest: Any, **more: Any) -> None:
    typer.echo(f"imgops: warning: {' '.join(str(message).split())}", err=True)


app = typer.Typer(
    cls=OneLineErrors,
    help="Fused kernels for image synthesis; and on top of them StyleGAN2, style transfer and DeepDream.\n\n"
    "Start with [bold]imgops demo[/]: within five minutes it shows a bit of everything.",
    epilog="The exit status is 0 when all is done, 1 when some of several results could not be made, each told "
    "on stderr, 2 after an error, which is one line on stderr, and 130 when Ctrl-C ended the command. Each command has "
    "its own --help.",
    rich_markup_mode="rich",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"imgops {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; goes anywhere.")] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Print errors and what was asked for, nothing else; goes anywhere."),
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", "-V", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Only declares the options: ``--debug`` and ``--quiet`` are read, and taken out, by :class:`OneLineErrors`."""


def _training_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give the command an option for each setting of TrainingConfig, with its help, its group and its default."""
    hints = typing.get_type_hints(TrainingConfig)
    parameters = []
    for field in dataclasses.fields(TrainingConfig):
        kind = hints[field.name]
        flag = "--" + field.name.replace("_", "-")
        default = field.default
        help, allowed = field.metadata["help"], field.metadata["allowed"]
        if default is not dataclasses.MISSING:
            shown = field.metadata["shown"] or (f"{default:g}" if isinstance(default, float) else str(default))
            if kind is bool:
                shown = "yes" if default else "no"
            help += f" [dim]\\[default: {shown}{'' if allowed is None else f'; {allowed.range()}'}][/]"
        else:
            help += f" [red]\\[required{', unless --resume' if field.name == 'data' else ''}][/]"
        option = typer.Option(
            f"{flag}/{flag.replace('--', '--no-')}" if kind is bool else flag,
            help=help,
            rich_help_panel=field.metadata["panel"],
            show_default=False,
        )
        # None is "not given": on a resume, what was not given comes from the checkpoint
        kind = kind if type(None) in typing.get_args(kind) else kind | None
        parameters.append(
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option]
            )
        )
    own = inspect.signature(function, eval_str=True)
    kept = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    function.__signature__ = own.replace(parameters=[*parameters, *kept])  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in [*parameters, *kept]}
    return function


@app.command(cls=Command)
@_training_options
def train(
    *,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the run in --out; other options come from it.", rich_help_panel="Run"),
    ] = False,
    config: Annotated[
        str | None,
        typer.Option(
            help="The config.json of a run or a checkpoint, whose settings are taken; other options come first.",
            rich_help_panel="Run",
        ),
    ] = None,
    no_labels: Annotated[
        bool, typer.Option("--no-labels", help="The same as --labels none.", rich_help_panel="Data")
    ] = False,
    check_data: Annotated[
        bool,
        typer.Option(
            "--check-data/--no-check-data", help="Decode every picture once before a new run.", rich_help_panel="Data"
        ),
    ] = True,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the resolved configuration as JSON and exit.", rich_help_panel="Run"),
    ] = False,
    **settings: Any,
) -> None:
    """Train a StyleGAN2 on your pictures.

    Example: imgops train --data samples:textures --resolution 32 --out runs/textures

    A folder or zip of pictures works as --data; classes come from its dataset.json, if any:
    {"labels": [["name.png", 0], ...], "names": ["cats", ...]}, or with --labels folders from its subfolders. Ctrl-C
    saves; --resume continues; --config runs/textures/config.json --out runs/again repeats a run.
    """
    from .. import training

    given = {name: value for name, value in settings.items() if value is not None}
    if no_labels and given.setdefault("labels", "none") != "none":
        raise ValueError(f"--no-labels and --labels {given['labels']} do not go together")
    if "out" not in given:
        raise ValueError("--out is missing: the folder for checkpoints, samples and statistics")
    if resume:
        from ..training.checkpoint import read_meta

        if config is not None:
            raise ValueError("--config begins a new run; --resume takes the settings from the checkpoint")
        chosen = read_meta(training.find_checkpoint(given["out"]))["config"].changed(given)
    elif config is not None:
        chosen = TrainingConfig.read(config, given)
    elif "data" not in given:
        raise ValueError("--data is missing: a folder or zip of pictures, or samples:textures to try it out")
    else:
        chosen = TrainingConfig(**given)
    if dry_run:
        from ..training._data import open_data

        chosen = chosen.resolve()
        data = open_data(chosen)
        typer.echo(json.dumps(dataclasses.asdict(chosen), indent=2))
        typer.echo(f"data: {data.describe()}", err=True)
        return
    training.train(chosen, resume=resume, check_data=check_data)


@app.command(cls=Command)
def generate(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint, or the folder of a run (takes its newest).")],
    seeds: Annotated[str, typer.Option(help="Which samples: 0-15, or 3,7,20-29.")] = "0-15",
    trunc: Annotated[
        float, typer.Option(help="Truncation: 1 is the full variety, less is nearer to the average.")
    ] = 1.0,
    class_: Annotated[
        str | None, typer.Option("--class", help="Class, by name or number.", show_default="every class")
    ] = None,
    out: Annotated[str, typer.Option(help="Folder for the pictures.")] = "generated",
    noise: Annotated[
        str, typer.Option(help="Fine detail: random, by the seed; const, the same in each picture; none.")
    ] = "random",
    batch: Annotated[int, typer.Option(help="Pictures at once; random noise takes one.")] = 16,
    device: Device = "auto",
) -> None:
    """Make pictures with a trained generator: a PNG for each seed and class, and grid.png of them all.

    Example: imgops generate runs/textures --seeds 0-15 --trunc 0.7 --class brick --out pictures
    """
    from .generate import generate as run

    say(run(checkpoint, seeds, trunc, class_, out, noise, batch, device))


@app.command(cls=Command)
def info(as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> None:
    """Say what runs here: versions, and which backends of each op exist on each device; why not, and the remedy."""
    from . import info as page

    facts = page.collect()
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        page.show(facts)


@app.command(cls=Command)
def demo(
    out: Annotated[str, typer.Option(help="Folder for the results.")] = "demo",
    minutes: Annotated[float, typer.Option(help="Time limit of the whole demo.")] = 5.0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Train a small network on free textures within minutes, and measure the fused ops against plain PyTorch.

    Writes samples.png (real and generated, a class a row), losses.png and speed.md.
    """
    from .demo import run

    run(out, minutes * 60, seed)


app.command(cls=Command)(dream)
app.add_typer(style_app, name="style")
