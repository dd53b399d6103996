"""The names of ImageNet's classes."""

from __future__ import annotations

import difflib
import re
from functools import cache
from pathlib import Path

#: most names that an error lists
_LISTED = 6


@cache
def class_names() -> tuple[tuple[str, ...], ...]:
    """The names of each of ImageNet's 1000 classes (ILSVRC 2012), by its number: the usual one, and its synonyms.

    >>> class_names()[281]
    ('tabby', 'tabby cat')
    """
    lines = (Path(__file__).parent / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
    return tuple(tuple(line.split(", ")) for line in lines if not line.startswith("#"))


def find_class(name: str) -> int:
    """The number of a class of ImageNet, by any of its names or by the number itself; case and ``_`` for a space do not
    count.

    Where it is the usual name of one class and a synonym of others, the one is meant.

    Raises:
        ValueError: no class has this name, with the closest ones; or several have, with their numbers.

    >>> find_class("Tabby cat"), find_class("281")
    (281, 281)
    """
    names, wanted = class_names(), _plain(name)
    if wanted.isdecimal():
        if int(wanted) >= len(names):
            raise ValueError(f"a class is a number from 0 to {len(names) - 1}, or a name; got {name!r}")
        return int(wanted)
    usual = [number for number, own in enumerate(names) if _plain(own[0]) == wanted]
    found = usual or [number for number, own in enumerate(names) if wanted in map(_plain, own)]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(f"{number} ({', '.join(names[number])})" for number in found)
        raise ValueError(f"{name!r} is the name of several classes: {several}; give the number")
    close = closest_classes(name)
    raise ValueError(f"no class is called {name!r}" + (f"; close names are {', '.join(close)}" if close else ""))


def closest_classes(name: str) -> list[str]:
    """Names like this one: those that have it as a word, then those that are spelled like it; six at most."""
    wanted, known = _plain(name), {_plain(own): own for names in class_names() for own in names}
    whole = [own for plain, own in known.items() if wanted in plain.split(" ")]
    spelled = [known[plain] for plain in difflib.get_close_matches(wanted, known, _LISTED)]
    return list(dict.fromkeys([*whole, *spelled]))[:_LISTED]


def _plain(name: str) -> str:
    return re.sub(r"[\s_]+", " ", name).strip().casefold()
