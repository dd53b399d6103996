"""Options made of dataclasses: the settings that Python takes too, and what only a command takes."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import typer

from .._settings import (
    FORMER_NAMES,
    MACHINE,
    QUALITY,
    RESULT,
    Bounds,
    Choice,
    OrWord,
    Resolution,
    Shapes,
    check,
    metadata_of,
    resolution_text,
    same_as,
    types_of,
)
from ..style.settings import TransferSettings
from ..training.config import RunConfig

Job = TypeVar("Job")
#: {field: its option} of the fields that a command line names
Given = dict[str, str]

_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def options(*panels: str) -> Callable[[Callable[[Any, Given], None]], Callable[..., None]]:
    """Make a command of a function of a dataclass, the job, and of the fields that the command line names.

    Each field of the dataclass is an option: one that is ``Annotated`` as typer has it, the others as
    :func:`~imgops._settings.setting` says. The fields of a field that is a dataclass itself are options too.

    Args:
        panels: the groups of options in the order of the help page; those left out come first.
    """
    places = {panel: place for place, panel in enumerate(panels)}

    def decorate(function: Callable[[Any, Given], None]) -> Callable[..., None]:
        job = next(iter(typing.get_type_hints(function).values()))
        parameters = sorted(_parameters(job), key=lambda p: places.get(_panel(p), -1))
        context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

        @functools.wraps(function)
        def command(ctx: typer.Context, **values: Any) -> None:
            made = _built(job, values)
            check(made)
            function(made, _given(ctx))

        command.__signature__ = inspect.Signature([context, *parameters])  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in [context, *parameters]}
        return command

    return decorate


def _parameters(job: type) -> list[inspect.Parameter]:
    """The parameters that typer makes options of, for a dataclass and those within it."""
    parameters, kinds = [], types_of(job)
    for field in dataclasses.fields(job):
        kind, default = kinds[field.name], field.default
        if dataclasses.is_dataclass(kind):
            parameters += _parameters(typing.cast(type, kind))
            continue
        if not _has_option(job, field.name, kind):
            continue
        if typing.get_origin(kind) is not Annotated:
            kind, default = _option(field.name, kind, default, metadata_of(job, field.name))
        parameters.append(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=_of_typer(field, default),
                annotation=kind,
            )
        )
    return parameters


def _has_option(job: type, name: str, kind: Any) -> bool:
    return typing.get_origin(kind) is Annotated or metadata_of(job, name).get("panel") is not None


def _of_typer(field: dataclasses.Field[Any], default: Any) -> Any:
    """The default of a parameter: empty where a value must be given, None where a factory makes it."""
    if default is not dataclasses.MISSING:
        return default
    return inspect.Parameter.empty if field.default_factory is dataclasses.MISSING else None


def _option(name: str, kind: Any, default: Any, said: Mapping[str, Any]) -> tuple[Any, Any]:
    """The type of a setting's parameter, annotated with its option, and its default on the command line."""
    help, shown, allowed = said["help"], said["shown"], said["allowed"]
    if _reader(name, kind) is not None:
        kind, default = str | None, _text(name, default)
    if default is dataclasses.MISSING:
        # the command itself asks for it where it is needed
        kind, default = kind | None, None
        help += f" [red]\\[required{'' if shown is None else f', {shown}'}][/]"
        shown = None
    elif shown is None and default is not None:
        shown = f"{default:g}" if isinstance(default, float) else str(default)
        shown = {"True": "yes", "False": "no"}.get(shown, shown)
    within = _range(help, allowed)
    if within and shown is not None:
        shown = f"{shown}; {within}"
    elif within:
        help += f" [dim]\\[{within}][/]"
    flags = [
        said["flag"] or _flag(name),
        *([said["also"]] if said["also"] else []),
        *(_flag(former) for former in FORMER_NAMES if FORMER_NAMES[former] == name),
    ]
    option = typer.Option(
        *(f"{flag}/{flag.replace('--', '--no-', 1)}" if kind is bool else flag for flag in flags),
        help=help,
        rich_help_panel=said["panel"],
        show_default=shown or False,
    )
    return Annotated[kind, option], default


def _text(name: str, default: Any) -> Any:
    """The default of a setting whose option is text; what stands for no value stays."""
    if default is None or default is dataclasses.MISSING:
        return default
    if name == "resolution":
        return resolution_text(default)
    return ",".join(map(str, default)) if isinstance(default, tuple) else default


def _range(help: str, allowed: Bounds | Choice | Shapes | OrWord | None) -> str:
    """What a help page says of the values that are allowed; nothing where the help text names all of them."""
    if allowed is None or (isinstance(allowed, Choice) and all(str(value) in help for value in allowed.values)):
        return ""
    return allowed.range()


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _panel(parameter: inspect.Parameter) -> Any:
    return typing.get_args(parameter.annotation)[1].rich_help_panel


def _built(job: type[Job], values: Mapping[str, Any]) -> Job:
    """The dataclass with the values of its options; a field without an option has its default."""
    made: dict[str, Any] = {}
    kinds = types_of(job)
    for field in dataclasses.fields(typing.cast(Any, job)):
        kind, name = kinds[field.name], field.name
        if dataclasses.is_dataclass(kind):
            made[name] = _built(typing.cast(type, kind), values)
        elif not _has_option(job, name, kind):
            # another dataclass may have an option of this name
            continue
        elif values[name] is not None:
            read = _reader(name, kind)
            made[name] = values[name] if read is None else read(name, values[name])
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            made[name] = None
    return job(**made)


def _given(ctx: typer.Context) -> Given:
    """The fields whose options the command line names."""
    source, flags = ctx.get_parameter_source, {p.name: p.opts[0] for p in ctx.command.params}
    named = [name for name in ctx.params if (where := source(name)) is not None and where.name == "COMMANDLINE"]
    return {name: flags[name] for name in named}


def parse_bytes(name: str, text: str) -> float:
    """``"4GB"`` to 4e9; also K, M, T, with or without the B.

    Raises:
        ValueError: the text is no amount of memory; names the setting.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?\s*", text, re.IGNORECASE)
    if not match or float(match[1]) <= 0:
        raise ValueError(f"{name} takes an amount like 4GB or 900MB; got {text!r}")
    return float(match[1]) * _UNITS[match[2].upper()]


def parse_layers(name: str, text: str) -> Mapping[str, float]:
    """``"relu1_1=256,relu2_1"`` to {"relu1_1": 256, "relu2_1": 1}.

    Raises:
        ValueError: a weight that is no number; names the setting.
    """
    layers = {}
    for part in text.split(","):
        layer, _, weight = part.strip().partition("=")
        try:
            layers[layer] = float(weight or 1)
        except ValueError:
            raise ValueError(f"{name} takes layers like relu1_1=256,relu2_1=64; got {part!r}") from None
    return layers


def parse_numbers(name: str, text: str) -> tuple[float, ...]:
    """``"3,1"`` to (3.0, 1.0).

    Raises:
        ValueError: the text is no list of numbers; names the setting.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{name} takes numbers like 3,1; got {text!r}") from None


def parse_widths(name: str, text: str) -> tuple[int, ...]:
    """``"32,64,128"`` to (32, 64, 128).

    Raises:
        ValueError: the text is not three whole numbers; names the setting.
    """
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"{name} takes three numbers like 32,64,128; got {text!r}")
    return tuple(map(int, parts))


def parse_resolution(name: str, text: str) -> Resolution:
    """``"64"`` to 64, ``"64x48"``, the width first, to (48, 64), height and width.

    Raises:
        ValueError: the text is neither; names the setting.
    """
    match = re.fullmatch(r"\s*(\d+)\s*(?:[xX]\s*(\d+)\s*)?", text)
    if not match:
        raise ValueError(f"{name} takes a side in pixels like 64, or WIDTHxHEIGHT like 64x48; got {text!r}")
    width, height = int(match[1]), int(match[2] or match[1])
    return width if width == height else (height, width)


def parse_number_or_word(name: str, text: str) -> float | str:
    """``"0.5"`` to 0.5; any other text stays, for the setting to be checked."""
    try:
        return float(text)
    except ValueError:
        return text


#: what reads the settings whose options are text
_READERS: dict[str, Callable[[str, str], Any]] = {
    "content_layers": parse_layers,
    "hypercolumn_layers": parse_layers,
    "memory": parse_bytes,
    "r1_gamma": parse_number_or_word,
    "resolution": parse_resolution,
    "style_layers": parse_layers,
    "style_weights": parse_numbers,
    "widths": parse_widths,
}


def _reader(name: str, kind: Any) -> Callable[[str, str], Any] | None:
    """What reads a setting whose option is text; None where typer reads a number."""
    return None if kind is int else _READERS.get(name)


Preview = Annotated[
    str | None, typer.Option(help="A picture file that shows the work as it goes.", rich_help_panel=RESULT)
]
#: the quality of a JPEG
JPEG = QUALITY, RESULT, "Quality of a JPEG.", None, Bounds(1, 100)

#: the group of the options that name files
FILES = "Files"
DATA = "samples:", FILES, "A folder of pictures, or samples: for the free pictures and textures that come along."


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """What the trainings of networks for style transfer have in common."""

    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the training that --out holds.", rich_help_panel=FILES)
    ] = False
    preview: Annotated[
        str | None, typer.Option(help="A picture file that shows the work as it goes.", rich_help_panel=FILES)
    ] = None
    preprocessing: str | None = same_as(TransferSettings, "preprocessing")
    device: str = same_as(RunConfig, "device", panel=MACHINE)
