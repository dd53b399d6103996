"""What every source of pictures is read as: one sequence of named pictures with their classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np


class Item(NamedTuple):
    """A picture of a source: its name, with ``/``; what gives the content of its file, or its pixels, uint8 [H, W] or
    [H, W, C]; and its class."""

    name: str
    read: Callable[[], bytes | np.ndarray]
    label: int | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """The pictures, in an order that is the same each time; how many there are, if that is known before; the names of
    their classes; how many files of each other kind are left out; and which of the settings that are of some kinds of
    sources alone it obeys."""

    items: Iterable[Item]
    count: int | None = None
    class_names: tuple[str, ...] = ()
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    obeys: tuple[str, ...] = ()
