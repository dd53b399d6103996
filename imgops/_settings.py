"""What a setting may be, said once: its check, its help and its option are all made of it. Loads no torch."""

from __future__ import annotations

import dataclasses
import math
import numbers
import typing
from typing import Any, NamedTuple, TypeVar

#: a dataclass of settings
Settings = TypeVar("Settings", bound=Any)

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


class Bounds(NamedTuple):
    """The finite numbers from ``low`` to ``high``; ``above`` leaves out ``low`` itself, ``below`` ``high``.

    ``most`` is no part of what a setting means, but the largest that can work at all: without it a slip of the hand, as
    10**20, would reach an allocator or a C++ integer.
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


def powers_of_two(low: int, high: int) -> Choice:
    """The powers of two from ``low`` to ``high``, both of them powers of two."""
    values = tuple(2**k for k in range(low.bit_length() - 1, high.bit_length()))
    return Choice(values, f"a power of two from {low} to {high}")


#: what torch's and NumPy's generators take
SEED = Bounds(0, most=2**63 - 1)
#: pixels of a side of a picture, which is planned in tiles, so that the memory alone would not end it soon
SIDE = Bounds(1, most=65536)


def check_types(settings: type, values: dict[str, Any]) -> None:
    """Raise unless each value has the type of the dataclass's field of that name.

    Raises:
        ValueError: there is no such setting.
        TypeError: another type; names the setting, what was given and what is wanted.
    """
    hints = typing.get_type_hints(settings)
    for name, value in values.items():
        if name not in hints:
            raise ValueError(f"{name} is no setting of {settings.__name__}; there are {', '.join(hints)}")
        kinds = typing.get_args(hints[name]) or (hints[name],)
        if not any(_is(value, kind) for kind in kinds):
            words = [_KINDS.get(kind, "nothing") for kind in kinds]
            raise TypeError(f"{name} must be {' or '.join(words)}; got {value!r}")


def checked(settings: Settings) -> Settings:
    """The dataclass, every field checked: its type, and what its metadata ``allowed`` says; None is left alone.

    Numbers become Python's, so that those of NumPy go into JSON too.

    Raises:
        TypeError, ValueError: names the setting, what was given and what is allowed.
    """
    hints = typing.get_type_hints(type(settings))
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    check_types(type(settings), values)
    for field in dataclasses.fields(settings):
        value, allowed = values[field.name], field.metadata.get("allowed")
        if allowed is not None and value is not None:
            allowed.check(field.name, value)
        kind = (typing.get_args(hints[field.name]) or (hints[field.name],))[0]
        if kind in (int, float) and value is not None:
            values[field.name] = kind(value)
    return dataclasses.replace(settings, **values)


def _is(value: Any, kind: Any) -> bool:
    if kind in (int, float):
        # NumPy's integers are integers; True is none
        return isinstance(value, numbers.Integral if kind is int else numbers.Real) and not isinstance(value, bool)
    return isinstance(value, kind)


def _digits(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
