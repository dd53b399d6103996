"""All commands and what they have in common. A command imports its work when it runs, so that ``--help`` is quick."""

from __future__ import annotations

import difflib
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from .. import __version__
from .._install import missing_package
from .._settings import TYPE_NAMES
from ._help import Command, HelpPage, kinds_of
from ._quiet import keep_quiet
from .accelerate import accelerate
from .data import data
from .demo import demo
from .dream import dream
from .ema import ema
from .generate import generate
from .info import info
from .metrics import metrics
from .models import models
from .style import transfer
from .style_adain import train_adain
from .style_fast import train_fast
from .train import TrainCommand, train

#: errors of the user or the machine, told in one line; any other error is ours and shows its traceback
USER_ERRORS = (ValueError, TypeError, OSError, RuntimeError, ImportError, ArithmeticError, MemoryError)

#: how the library begins the error of a setting: by its name, after an owner or alone
_SETTING = re.compile(r"(?:\w+: )?(\w+)(?=[ :])")
_STACK = re.compile(r"\s*(?:Exception raised from|C\+\+ CapturedTraceback|frame #\d+:)")


class DefaultCommand(HelpPage, TyperGroup):
    """A group that runs its first command where none is named, and shows that command's help: ``imgops style A B``
    beside ``imgops style train-fast``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and args[0] in self.commands
        close = difflib.get_close_matches(args[0], self.commands, 1, 0.8) if args and not named else []
        if close and not Path(args[0]).exists():
            raise ValueError(f"{args[0]}: no such file, and no such command; did you mean {close[0]}?")
        return super().parse_args(ctx, args if named else ["", *(args or ["--help"])])

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name or next(iter(self.commands)))


class OneLineErrors(HelpPage, TyperGroup):
    """A group of commands whose errors are one line on stderr, with exit code 2; ``--debug`` shows the traceback, and
    ``--quiet`` leaves nothing but errors and what was asked for."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        debug, quiet = "--debug" in given, not {"-q", "--quiet"}.isdisjoint(given)
        given = [a for a in given if a not in ("--debug", "-q", "--quiet")]
        # python -m imgops and tests have another program name
        options |= {"standalone_mode": False, "prog_name": "imgops"}
        errors = sys.stderr
        with warnings.catch_warnings(), keep_quiet(quiet):
            warnings.showwarning = _one_line_warning
            # Pillow's warnings name no file; where one matters, an error follows that does
            warnings.filterwarnings("ignore", module=r"PIL\.")
            try:
                code = super().main(given, *rest, **options)
            except (KeyboardInterrupt, typer.Abort):
                sys.exit(130)
            except Exception as error:
                # typer's own errors, which are mistakes of the invocation, have a method that words them
                of_typer = hasattr(error, "format_message")
                if debug or not (of_typer or isinstance(error, USER_ERRORS)):
                    raise
                if isinstance(error, ModuleNotFoundError):
                    text = str(missing_package(error))
                else:
                    text = " ".join((_mistake(error, given) if of_typer else self.text_of(error, given)).split())
                if of_typer or text.partition(" ")[0] in self._words(given) or text.startswith("--"):
                    # the cause is an option or argument
                    text += f" (see {self.named(given)} --help)" if text else ""
                if text:
                    print(f"imgops: error: {text}", file=errors)
                sys.exit(2)
        sys.exit(code if isinstance(code, int) else 0)

    def text_of(self, error: Exception, given: Sequence[str]) -> str:
        """The text of an error of the command line ``given``: it names a file as given, and a setting by its option."""
        if isinstance(error, OSError) and error.strerror and error.filename is not None:
            return f"{os.fsdecode(error.filename)}: {error.strerror}"
        # torch appends its own stack to some messages
        text = _STACK.split(str(error))[0]
        begins = _SETTING.match(text)
        flags = {p.name: p.opts[0] for p in self._command(given).params if p.opts[0].startswith("--")}
        if type(error) in (ValueError, TypeError) and begins and begins[1] in flags:
            text = flags[begins[1]] + text[begins.end() :]
            for name, flag in flags.items():
                if "_" in name:
                    # another setting; a name within that of a file stays
                    text = re.sub(rf"(?<![\w./-]){name}(?![\w./-])", flag, text)
        return text

    def _command(self, given: Sequence[str]) -> Any:
        """The command that a command line names, or of a group the one that is meant where none is named."""
        command = self._path(given)[-1][1]
        if isinstance(command, DefaultCommand):
            command = command.get_command(None, "")
        return command.of(given) if isinstance(command, Command) else command

    def _words(self, given: Sequence[str]) -> list[str]:
        """The names of the command's arguments, as on its page: PICTURE."""
        return [p.name.upper() for p in self._command(given).params if p.param_type_name == "argument"]

    def named(self, given: Sequence[str]) -> str:
        """The command that a command line names, as ``imgops style train-fast``, with what its options depend on."""
        command = self._command(given)
        more = command.choice if isinstance(command, Command) else []
        return " ".join([*(word for word, _ in self._path(given)), *more])

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


def _mistake(error: Any, given: Sequence[str]) -> str:
    """What an error of typer's own says of the command line ``given``: an argument or option that is missing, or a
    value that is no number, by its name."""
    parameter = getattr(error, "param", None)
    if parameter is None:
        return str(error.format_message())
    if parameter.param_type_name == "argument":
        name = str(parameter.name).upper()
    else:
        name = next(flag for flag in parameter.opts if flag.startswith("--"))
    if type(error).__name__ == "MissingParameter":
        what = Text.from_markup(parameter.help or "").plain.rstrip(".")
        return f"{name} is missing: {what[:1].lower()}{what[1:]}"
    kind = kinds_of(error.ctx.command.callback).get(parameter.name)
    value = _given_to(parameter.opts, given)
    if kind not in TYPE_NAMES or value is None:
        return str(error.format_message())
    return f"{name} must be {TYPE_NAMES[kind]}; got {value!r}"


def _given_to(flags: Sequence[str], given: Sequence[str]) -> str | None:
    """The last value that a command line gives to an option; None: it cannot be told."""
    value = None
    for word, following in zip(given, [*given[1:], None], strict=True):
        flag, equals, rest = word.partition("=")
        if flag in flags:
            value = rest if equals else following
    return value


def _one_line_warning(message: Warning | str, *rest: Any, **more: Any) -> None:
    typer.echo(f"imgops: warning: {' '.join(str(message).split())}", err=True)


app = typer.Typer(
    cls=OneLineErrors,
    help="Fused kernels for image synthesis; and on top of them GANs, style transfer and DeepDream.\n\n"
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


style_app = typer.Typer(
    cls=DefaultCommand,
    help="Give pictures, folders or videos the style of others; train-fast and train-adain train networks for it.",
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (transfer, train_fast, train_adain):
    style_app.command(cls=Command)(command)
app.command(cls=TrainCommand)(train)
for command in (generate, metrics, ema, data, models, accelerate, info, demo, dream):
    app.command(cls=Command)(command)
app.add_typer(style_app, name="style")
