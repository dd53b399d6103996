"""Keeps what is written apart from the pictures that are read, whichever names or links lead from one to the other."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Collection
from pathlib import Path


def within(inner: str | os.PathLike[str], outer: str | os.PathLike[str]) -> bool:
    """Whether a path, which need not exist, is a folder or inside it."""
    if not os.path.exists(outer):
        return False
    place = Path(os.path.realpath(inner))
    return any(folder.exists() and os.path.samefile(folder, outer) for folder in (place, *place.parents))


def leading_to(out: str | os.PathLike[str], folder: Path, names: Collection[str]) -> Path | None:
    """The first place among the files of a folder, which ``names`` lists with ``/``, that leads into the folder ``out``
    or to one that contains it; None where none does."""
    folders = {""}
    for name in names:
        parent = posixpath.dirname(name)
        while parent not in folders:
            folders.add(parent)
            parent = posixpath.dirname(parent)
    linked = [name for name in names if os.path.islink(folder / name)]
    places = ((name, folder / name) for name in [*sorted(folders), *linked])
    return next((p for name, p in places if within(p, out) or (name in folders and within(out, p))), None)
