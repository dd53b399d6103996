"""Reads which part of each picture is kept, such as its faces."""

from __future__ import annotations

import csv
import io
import json
import math
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .._errors import DataError

#: left, top, width and height in pixels
Part = tuple[float, float, float, float]
_SIDES = ("x", "y", "width", "height")
_FORM = "a name, x, y, width and height for each part"


def read_boxes(path: Path) -> dict[str, list[Part]]:
    """The parts of each picture, by its name.

    Args:
        path: a CSV with the header ``name,x,y,width,height``; or JSON, a list of objects with these keys.

    Raises:
        OSError: it cannot be read.
        DataError: it is not of that form; names the line or entry.
    """
    text = path.read_bytes().decode("utf-8-sig", "replace")
    parts: dict[str, list[Part]] = {}
    for place, row in _rows(path, text):
        try:
            part = tuple(float(row[side]) for side in _SIDES)
            name = row["name"]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            what = f"has no {error.args[0]}" if isinstance(error, KeyError) else "must have numbers"
            raise DataError(f"{path}: {place} {what}; it gives {_FORM}") from None
        if not isinstance(name, str) or not all(map(math.isfinite, part)) or min(part[2:]) <= 0:
            raise DataError(f"{path}: {place} must have a name, finite numbers, and a width and height above 0")
        parts.setdefault(name, []).append(part)  # type: ignore[arg-type]
    if not parts:
        raise DataError(f"{path}: it gives no boxes; it must give {_FORM}")
    return parts


def parts_of(parts: dict[str, list[Part]], name: str) -> list[Part]:
    """The parts of a picture, which may be listed without its folders."""
    return parts.get(name) or parts.get(posixpath.basename(name)) or []


def _rows(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.suffix.lower() != ".json":
        # lines end as they like, as with the CR of old Macs
        reader = csv.DictReader(io.StringIO(text, newline=None), skipinitialspace=True)
        try:
            yield from ((f"line {reader.line_num}", row) for row in reader)
        except csv.Error as error:
            raise DataError(f"{path}: line {reader.line_num} cannot be read ({error}); it gives {_FORM}") from None
        return
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: must be JSON, a list of objects, {_FORM} ({error})") from None
    if not isinstance(table, list):
        raise DataError(f"{path}: must be a list of objects, {_FORM}")
    yield from ((f"entry {place}", row) for place, row in enumerate(table))
