"""The help pages, in two columns that read on a narrow terminal: what to write, and what it does."""

from __future__ import annotations

import inspect
import types
import typing
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, Group
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

#: what stands for a value of a type
KINDS: dict[Any, str] = {int: "N", float: "X", str: "TEXT"}
#: the part of a line that the first column may take
TERMS = 0.4


class HelpPage:
    """Gives a command or a group of commands its help page."""

    def format_help(self: Any, ctx: Any, formatter: Any) -> None:
        """Print the page."""
        kinds = kinds_of(self.callback)
        panels: dict[str, list[tuple[Text, Text]]] = defaultdict(list)
        for parameter in self.get_params(ctx):
            argument = parameter.param_type_name == "argument"
            if not getattr(parameter, "hidden", False):
                panel = getattr(parameter, "rich_help_panel", None) or ("Arguments" if argument else "Options")
                panels[panel].append((_term(parameter, argument, kinds), _meaning(parameter)))
        if len(panels["Options"]) == 1:
            # --help, which every command has, comes last
            panels["Options"] = panels.pop("Options")
        panels["Commands"] = [(Text(c.name, "bold cyan"), _first_sentence(c.help)) for c in _commands(self, ctx)]
        console = Console(highlight=False)
        console.print(Padding(Text(f"Usage: {_usage(self, ctx)}", "bold"), (1, 1)))
        console.print(Padding(_prose(self.help or ""), (0, 1, 1, 1)))
        longest = max((len(line) for rows in panels.values() for term, _ in rows for line in term.plain.split("\n")))
        for title, rows in panels.items():
            if rows:
                console.print(_panel(title, rows, min(longest, int(TERMS * console.width))))
        if self.epilog:
            console.print(Padding(_prose(self.epilog), (1, 1)))


class Command(HelpPage, TyperCommand):
    """A command with such a page, which refuses empty arguments and options.

    Attributes:
        choice: the arguments that make a command have these options, and not others.
    """

    choice: Sequence[str] = ()

    def of(self, args: Sequence[str]) -> TyperCommand:
        """The command that some arguments mean, where its options depend on them."""
        return self

    def invoke(self, ctx: Any) -> Any:
        """Run it, unless a value is "", which an unset variable of a shell leaves.

        Raises:
            ValueError: names the option or argument.
        """
        for parameter in self.params:
            given = ctx.params.get(str(parameter.name))
            if given == "" or (isinstance(given, (list, tuple)) and "" in given):
                argument = parameter.param_type_name == "argument"
                name = str(parameter.name).upper() if argument else parameter.opts[0]
                raise ValueError(f"{name} must not be empty; got ''")
        return super().invoke(ctx)


def _usage(command: Any, ctx: Any) -> str:
    words = [*ctx.command_path.split(), "[OPTIONS]"]
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = parameter.name.upper() if parameter.required else f"[{parameter.name.upper()}]"
            words.append(name + ("..." if parameter.nargs == -1 else ""))
    return " ".join([*words, *(["COMMAND [ARGS]..."] if hasattr(command, "commands") else [])])


def _commands(command: Any, ctx: Any) -> list[Any]:
    """The commands of a group. The command that is meant where none is named shows the others on its page."""
    group = command if hasattr(command, "commands") else getattr(ctx.parent, "command", None)
    if group is None or (group is not command and ctx.info_name):
        return []
    return [other for other in group.commands.values() if other is not command and not other.hidden]


def kinds_of(callback: Any) -> dict[str, Any]:
    """{parameter: the type of its value} of a command's function."""
    if callback is None:
        return {}
    kinds = {}
    for name, parameter in inspect.signature(callback, eval_str=True).parameters.items():
        kind = parameter.annotation
        while typing.get_origin(kind) in (typing.Annotated, typing.Union, types.UnionType, list):
            kind = next(a for a in typing.get_args(kind) if a is not type(None))
        kinds[name] = kind
    return kinds


def _term(parameter: Any, argument: bool, kinds: dict[str, Any]) -> Text:
    """The first column: the names of a parameter, and the kind of value that follows."""
    if argument:
        return Text(parameter.name.upper() + ("..." if parameter.nargs == -1 else ""), "bold cyan")
    # of several long names all but the first are former ones
    short, long = ([n for n in parameter.opts if n.startswith("--") is long] for long in (False, True))
    term = Text(", ".join([*short, *long[:1]]), "bold cyan")
    if parameter.secondary_opts:
        return term.append("\n" + parameter.secondary_opts[0])
    if not parameter.is_flag:
        term.append(f" {parameter.metavar or KINDS.get(kinds.get(parameter.name), 'TEXT')}", "not bold yellow")
    return term


def _meaning(parameter: Any) -> Text:
    """The second column: what a parameter does, its default and range, or that it is required."""
    text = Text.from_markup(" ".join((parameter.help or "").split()))
    facts, shown, default = [], parameter.show_default, parameter.default
    if isinstance(shown, str):
        facts.append(f"default: {shown}")
    elif isinstance(default, bool) and parameter.secondary_opts and shown:
        facts.append(f"default: {'yes' if default else 'no'}")
    elif shown and isinstance(default, (int, float, str)) and not getattr(parameter, "is_flag", False):
        facts.append(f"default: {default:g}" if isinstance(default, float) else f"default: {default}")
    kind = parameter if hasattr(parameter, "min") else getattr(parameter, "type", None)
    low, high = getattr(kind, "min", None), getattr(kind, "max", None)
    if low is not None:
        facts.append(f"{low:g} or more" if high is None else f"{low:g} to {high:g}")
    if facts:
        text.append(f" [{'; '.join(facts)}]", "dim")
    if parameter.required:
        text.append(" [required]", "red")
    if getattr(parameter, "multiple", False):
        text.append(" [may be repeated]", "dim")
    return text


def _first_sentence(help: str | None) -> Text:
    return Text.from_markup(" ".join((help or "").split("\n\n")[0].split()))


def _prose(help: str) -> Group:
    """The paragraphs of a help text, in which an example of a command has its own line."""
    parts: list[Text] = []
    for paragraph in inspect.cleandoc(help).split("\n\n"):
        text = " ".join(paragraph.split())
        if text.startswith("Example: "):
            text = text.replace(" ", "\n", 1)
        parts.append(Text.from_markup(text))
    return Group(*parts[:1], *(Padding(part, (1, 0, 0, 0)) for part in parts[1:]))


def _panel(title: str, rows: Iterable[tuple[Text, Text]], width: int) -> Panel:
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(width=width, overflow="fold")
    table.add_column(ratio=1)
    for row in rows:
        table.add_row(*row)
    return Panel(table, title=title, title_align="left", border_style="dim")
