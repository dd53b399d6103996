"""Declarations of settings: a check, a help text and an option are all made from one declaration. Loads no torch."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import numbers
import operator
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar

#: a dataclass of settings
Settings = TypeVar("Settings", bound=Any)
#: a function, or a dataclass of settings
Called = TypeVar("Called", bound=Callable[..., Any])

#: of pictures: a side in pixels, or (height, width)
Resolution: TypeAlias = int | tuple[int, int]
TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    tuple[int, int]: "a pair of whole numbers",
    tuple[int, int, int]: "three whole numbers",
    tuple[str, ...]: "texts",
    Mapping[str, float]: "numbers by texts",
}


class Bounds(NamedTuple):
    """The finite numbers from ``low`` to ``high``; ``above`` leaves out ``low`` itself, ``below`` ``high``.

    ``most`` is not part of a setting's meaning, but the largest value that can work: without it a mistyped 10**20 would
    reach an allocator or overflow a C++ integer.
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False
    most: float = math.inf

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"in {'[('[self.above]}{self.low:g}, {self.high:g}{'])'[self.below]}"
        return f"above {self.low:g}" if self.above else f"{self.low:g} or more"

    def range(self) -> str:
        """The same for a help text, the largest included."""
        if self.high < math.inf or self.most > 1e9:
            return str(self)
        return f"{'above ' * self.above}{self.low:g} to {_digits(self.most)}"

    def check(self, name: str, value: Any) -> None:
        """Raise ValueError unless the number is within."""
        low = value > self.low if self.above else value >= self.low
        high = value < self.high if self.below else value <= self.high
        # not math.isfinite, which large integers overflow
        finite = abs(value) < math.inf
        if not (low and high and finite):
            raise ValueError(f"{name} must be {self}{'' if finite else ' and finite'}; got {value}")
        if value > self.most:
            raise ValueError(f"{name} must be at most {_digits(self.most)}; got {value}")


class Choice(NamedTuple):
    """One of some values; ``words`` says which where a list would be long."""

    values: tuple[Any, ...]
    words: str = ""

    def __str__(self) -> str:
        *others, last = map(str, self.values)
        return self.words or f"{', '.join(others)} or {last}"

    def range(self) -> str:
        """The same for a help text."""
        return str(self)

    def check(self, name: str, value: Any) -> None:
        """Raise ValueError unless the value is one of them."""
        if value not in self.values:
            raise ValueError(f"{name} must be {self}; got {value!r}")


class OrWord(NamedTuple):
    """Numbers within bounds, or a word in place of one."""

    bounds: Bounds
    word: str

    def __str__(self) -> str:
        return f"{self.bounds}, or {self.word}"

    def range(self) -> str:
        """The same for a help text."""
        return f"{self.bounds.range()}, or {self.word}"

    def check(self, name: str, value: Any) -> None:
        """Raise ValueError unless it is the word, or a number within the bounds."""
        if isinstance(value, str) and value != self.word:
            raise ValueError(f"{name} must be {self}; got {value!r}")
        if value != self.word:
            self.bounds.check(name, value)


class Shapes(NamedTuple):
    """The shapes of pictures that networks grow from a small start by doubling: see :func:`start_shape`."""

    low: int
    high: int = 4096

    def __str__(self) -> str:
        sides = f"{self.low} to {self.high} pixels"
        return f"a side, or height and width, of {sides} that halve together until the shorter is at most {START}"

    def range(self) -> str:
        """The same for a help text."""
        return f"sides of {self.low} to {self.high} that halve together until the shorter is at most {START}"

    def check(self, name: str, value: Resolution) -> None:
        """Raise TypeError unless it is a resolution, ValueError unless a network can have this shape."""
        check_type(name, value, Resolution)
        height, width = shape_of(value)
        if not self.low <= min(height, width) <= max(height, width) <= self.high:
            raise ValueError(f"{name} must be {self}; got {resolution_text(value)}")
        *start, _ = _halved(height, width)
        if min(start) > START:
            halves = f" (which halves to {start[1]}x{start[0]})" if start != [height, width] else ""
            raise ValueError(f"{name} must be {self}; got {resolution_text(value)}{halves}")


def check_grown(name: str, value: Resolution) -> None:
    """Raise unless images of this shape can be what a network makes of a start by doubling it once or more."""
    GROWN.check(name, value)
    if start_shape(*shape_of(value))[2] == 0:
        raise ValueError(f"{name} must halve at least once to whole numbers; got {resolution_text(value)}")


def check_halved(name: str, value: Resolution) -> tuple[int, int, int]:
    """The (height, width) to which pictures halve while the shorter side stays at 4 or more, and how often they do.

    Raises:
        ValueError: they do not halve, or not far enough.
    """
    height, width = shape_of(value)
    times = 0
    while height % 2 == width % 2 == 0 and min(height, width) >= 2 * SHORTEST:
        height, width, times = height // 2, width // 2, times + 1
    if times == 0 or min(height, width) >= 2 * SHORTEST or max(height, width) > START:
        raise ValueError(
            f"{name} must be sides that halve together until the shorter is {SHORTEST} to {2 * SHORTEST - 1} and the "
            f"longer at most {START}; got {resolution_text(value)}"
        )
    return height, width, times


#: the longest that the shorter side of a start may be, and the length from which on it is not halved
START, SHORTEST = 16, 4
#: the shapes of pictures that datasets have
PICTURES = Shapes(SHORTEST)
#: the shapes of pictures that generators make
GROWN = Shapes(8)


def shape_of(resolution: Resolution) -> tuple[int, int]:
    """(height, width) of a resolution.

    >>> shape_of(64), shape_of((48, 64))
    ((64, 64), (48, 64))
    """
    return resolution if isinstance(resolution, tuple) else (resolution, resolution)


def resolution_text(resolution: Resolution) -> str:
    """A resolution as the command line takes it, width first.

    >>> resolution_text(64), resolution_text((48, 64))
    ('64', '64x48')
    """
    return f"{resolution[1]}x{resolution[0]}" if isinstance(resolution, tuple) else str(resolution)


def start_shape(height: int, width: int) -> tuple[int, int, int]:
    """The shape that a network's pictures grow from: (start height, start width, how often both are doubled).

    Both sides are halved while they are even and the shorter is above 4.

    Raises:
        ValueError: a side below 4 or above 4096, or sides that do not halve until the shorter is at most 16.

    >>> start_shape(64, 64), start_shape(48, 64), start_shape(288, 512)
    ((4, 4, 4), (3, 4, 4), (9, 16, 5))
    """
    PICTURES.check("resolution", (height, width))
    return _halved(height, width)


def _halved(height: int, width: int) -> tuple[int, int, int]:
    doublings = 0
    while height % 2 == width % 2 == 0 and min(height, width) > SHORTEST:
        height, width, doublings = height // 2, width // 2, doublings + 1
    return height, width, doublings


#: seeds that torch's and NumPy's generators take
SEED = Bounds(0, most=2**63 - 1)
#: pixels of a side of a picture; needed as a picture is planned in tiles, and memory alone would not refuse it early
SIDE = Bounds(1, most=65536)
#: counts that a C++ int holds
COUNT = Bounds(1, most=2**31 - 1)
#: of JPEG
QUALITY = 95
#: the ways to keep the colors of a content, as :func:`imgops.data.keep_colors` takes them
KEEP_COLORS = ("luma", "coral", "histogram")
#: {former name: present name} of settings. The former ones keep working as keywords and attributes of what
#: :func:`accept_former_names` decorates, as options and in files (:func:`present_names`)
FORMER_NAMES = {"keep_colours": "keep_colors", "parametrisation": "parametrization"}
#: groups of options on the help pages of several commands
RESULT, NETWORKS, MACHINE = "Result", "Networks", "Machine"


def setting(
    default: Any,
    panel: str | None = None,
    help: str = "",
    shown: str | None = None,
    allowed: Bounds | Choice | Shapes | OrWord | None = None,
    flag: str | None = None,
    also: str | None = None,
    kw_only: Any = dataclasses.MISSING,
) -> Any:
    """A field of a dataclass of settings: its default, what it may be, and its command-line option.

    Args:
        default: of the field; ``dataclasses.MISSING`` where it must be given. None is allowed where it is the default,
            whatever the field's type: something fills it in before it is used.
        panel: the group of its option on the help page; None: it has no option.
        help: the text of its option.
        shown: what a default of None means; of a setting without a default, when it is not required.
        allowed: its range, checked by :func:`check` and :func:`checked`; None: anything.
        flag: its option; None: its name, as ``--first-size``.
        also: a second name of its option.
        kw_only: it is given by its name alone, so that it can stand anywhere among the fields; by default what the
            dataclass says.
    """
    metadata = {"panel": panel, "help": help, "shown": shown, "allowed": allowed, "flag": flag, "also": also}
    return dataclasses.field(default=default, metadata=metadata, kw_only=kw_only)


def same_as(settings: type, name: str, **said: Any) -> Any:
    """A field that is a setting of another dataclass too, with its default; ``said`` takes the place of what
    :func:`setting` was told there, as ``panel``, ``help`` and ``allowed``."""
    default = next(field.default for field in dataclasses.fields(settings) if field.name == name)
    return dataclasses.field(default=default, metadata={**metadata_of(settings, name), **said})


def metadata_of(settings: type, name: str) -> Mapping[str, Any]:
    """What :func:`setting` says of a field: in the class itself, or in the nearest base where the class has changed the
    default alone."""
    for base in settings.__mro__:
        field = vars(base).get("__dataclass_fields__", {}).get(name)
        if field is not None and field.metadata:
            return field.metadata  # type: ignore[no-any-return]
    return {}


def present_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under their present names; ``json.loads`` takes it as ``object_hook`` for a file of settings.

    Where both names are given the former one counts: ``dataclasses.replace`` adds the present one to what it is told.

    >>> present_names({"size": 64, "keep_colours": "luma"})
    {'size': 64, 'keep_colors': 'luma'}
    """
    kept = {name: value for name, value in values.items() if name not in FORMER_NAMES}
    return kept | {FORMER_NAMES[name]: value for name, value in values.items() if name in FORMER_NAMES}


def accept_former_names(called: Called) -> Called:
    """Let a function or a dataclass of settings be called with former names; give the dataclass their attributes.

    What it returns has ``former_names``, those of :data:`FORMER_NAMES` that it accepts.
    """
    parameters = inspect.signature(called).parameters
    former = {name: present for name, present in FORMER_NAMES.items() if present in parameters}
    function: Any = called.__init__ if isinstance(called, type) else called  # type: ignore[misc]

    @functools.wraps(function)
    def translated(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **present_names(kwargs))

    result: Any = translated
    if isinstance(called, type):
        result = called
        called.__init__ = translated  # type: ignore[misc]
        for name, present in former.items():
            setattr(called, name, property(operator.attrgetter(present)))
    result.former_names = former
    return typing.cast(Called, result)


def types_of(settings: type) -> dict[str, Any]:
    """{field: its type} of a dataclass, those of ``Annotated`` with what they are annotated by."""
    return typing.get_type_hints(settings, include_extras=True)


def check_types(settings: type, values: Mapping[str, Any]) -> None:
    """Raise unless each value has the type of the dataclass's field of that name.

    Raises:
        ValueError: there is no such setting.
        TypeError: another type; names the setting, what was given and what is wanted.
    """
    hints, fields = types_of(settings), {field.name: field for field in dataclasses.fields(settings)}
    for name, value in values.items():
        if name not in fields:
            raise ValueError(f"{name} is no setting of {settings.__name__}; there are {', '.join(fields)}")
        if value is not None or fields[name].default is not None:
            check_type(name, value, hints[name])


def check(settings: Any, owner: str = "") -> None:
    """Check each field of a frozen dataclass whose metadata says what is ``allowed``: its type and its range; None is
    left alone where the type has it. For ``__post_init__``.

    Numbers become Python's, so that those of NumPy go into JSON too. ``owner`` begins the messages, as ``"style: "``.

    Raises:
        TypeError, ValueError: names the setting, what was given and what is allowed.
    """
    hints = types_of(type(settings))
    for field in dataclasses.fields(settings):
        value, allowed = getattr(settings, field.name), metadata_of(type(settings), field.name).get("allowed")
        if allowed is None or (value is None and field.default is None):
            continue
        check_type(f"{owner}{field.name}", value, hints[field.name])
        if value is not None:
            allowed.check(f"{owner}{field.name}", value)
            kind = _kinds(hints[field.name])[0]
            number = kind in (int, float) and isinstance(value, numbers.Real)
            object.__setattr__(settings, field.name, kind(value) if number else value)


def checked(settings: Settings) -> Settings:
    """A copy of the dataclass, every field's type checked, and what :func:`check` checks.

    Raises:
        TypeError, ValueError: names the setting, what was given and what is allowed.
    """
    check_types(type(settings), {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)})
    copy = dataclasses.replace(settings)
    check(copy)
    return copy


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the one that it is."""
    return (hint,) if typing.get_origin(hint) is tuple else typing.get_args(hint) or (hint,)


def check_type(name: str, value: Any, hint: Any) -> None:
    """Raise TypeError unless the value has the type, or one of a union."""
    if not any(_is(value, kind) for kind in _kinds(hint)):
        words = [TYPE_NAMES.get(kind, "nothing") for kind in _kinds(hint)]
        raise TypeError(f"{name} must be {' or '.join(words)}; got {value!r}")


def _is(value: Any, kind: Any) -> bool:
    if kind in (int, float):
        # NumPy's integers are integers; True is none
        return isinstance(value, numbers.Integral if kind is int else numbers.Real) and not isinstance(value, bool)
    origin, members = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and members[-1] is ...:
        return isinstance(value, tuple) and all(_is(one, members[0]) for one in value)
    if origin is tuple:
        return isinstance(value, tuple) and len(value) == len(members) and all(map(_is, value, members))
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_is(k, members[0]) and _is(v, members[1]) for k, v in value.items())
    return isinstance(value, kind)


def _digits(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
