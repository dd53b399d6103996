"""The classes of pictures from a JSON table, which is checked before anything is built from it."""

from __future__ import annotations

import json
import posixpath
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

from .._errors import DataError
from .listing import plain_name

#: the file with the table
LABELS = "dataset.json"
_FORM = '{"labels": [["name.png", 0], ...]}'
#: characters of a wrong entry that a message shows, and the most digits that are parsed as a number
_SHOWN, _DIGITS = 60, 18


#: where classes come from
SOURCES = ("file", "folders", "none")


def label_source(use_labels: bool | str) -> str:
    """One of :data:`SOURCES`; True stands for "file" and False for "none".

    Raises:
        ValueError: none of them.
    """
    source = ("file" if use_labels else "none") if isinstance(use_labels, bool) else use_labels
    if source not in SOURCES:
        raise ValueError(f"labels must be {', '.join(SOURCES[:-1])} or {SOURCES[-1]}; got {use_labels!r}")
    return source


class Classes(NamedTuple):
    """The class of each picture, and the name of each class."""

    labels: list[int]
    names: tuple[str, ...]


def parse_labels(text: bytes, names: Sequence[str], folder: str, shown: str) -> Classes | None:
    """The classes in a table, or None if it says that there are none.

    Their names are those of ``"names"`` in the table: a list in the order of the numbers, or an object that maps
    numbers to names or names to numbers. Without it a class is named by its number.

    Args:
        text: the content of ``dataset.json``, in UTF-8 or UTF-16, with or without a byte order mark.
        names: of the pictures, relative to the root.
        folder: where the table lies, which its names are relative to: "" or a path that ends in ``/``.
        shown: the table's path, for messages.

    Raises:
        DataError: the table is no JSON of that form, does not give each picture one class, does not number the classes
            from 0 without gaps, or does not name each of them; the message names the table and the entry.
    """
    table = parse_table(text, shown)
    pairs = table["labels"]
    if pairs is None:
        return None
    plain = {_plain(name): name for name in names}
    known, classes = set(names), dict[str, int]()
    for pair in pairs:
        given, label = _checked(pair, shown)
        # names are relative to the table's folder, or else to the root
        tries = (folder + given, plain.get(_plain(folder + given)), plain.get(_plain(given)))
        name = next((name for name in tries if name in known), None)
        if name is None:
            raise DataError(f"{shown}: {_clipped(given)} has a label but is not in {shown.removesuffix('/' + LABELS)}")
        # the same class twice, as in tables that were joined, is no conflict
        if classes.setdefault(name, label) != label:
            raise DataError(f"{shown}: {_clipped(given)} has two labels, {classes[name]} and {label}")
    missing = [name for name in names if name not in classes]
    if missing:
        raise DataError(f"{shown}: {missing[0]} has no label ({len(missing)} of {len(names)} pictures have none)")
    check_gaps(classes, shown)
    return Classes([classes[name] for name in names], class_names(table.get("names"), max(classes.values()) + 1, shown))


def folder_classes(names: Sequence[str], shown: str) -> Classes:
    """A class for each subfolder, in the order of their names; a folder that holds all others is passed through.

    Args:
        names: of the pictures, relative to the root.
        shown: the root, for messages.

    Raises:
        DataError: a picture lies beside the folders, or all of them in one.
    """
    top = posixpath.commonpath({posixpath.dirname(name) for name in names})
    start = len(top) + 1 if top else 0
    beside = [name for name in names if "/" not in name[start:]]
    if beside:
        place = f"{shown}/{top}" if top else shown
        raise DataError(
            f"{place}: each class must be a subfolder of its own for --labels folders; "
            f"{posixpath.basename(beside[0])} is in none ({len(beside):,} of {len(names):,} pictures are not)"
        )
    folders = [name[start:].split("/", 1)[0] for name in names]
    numbers = {folder: k for k, folder in enumerate(sorted(set(folders)))}
    return Classes([numbers[folder] for folder in folders], tuple(numbers))


def class_names(given: Any, count: int, shown: str) -> tuple[str, ...]:
    """The names of the classes by their numbers."""
    if given is None:
        return tuple(map(str, range(count)))
    wanted = f'"names" must give each of the {count} classes a name of its own, as ["cats", "dogs"] or {{"0": "cats"}}'
    if isinstance(given, dict):
        # accept {"cats": 0} as well as {"0": "cats"}
        pairs = [(v, k) if isinstance(v, int) and not isinstance(v, bool) else (k, v) for k, v in given.items()]
        by_number = {str(number): name for number, name in pairs}
        given = [by_number.get(str(k)) for k in range(count)] if len(by_number) == len(given) == count else given
    texts = isinstance(given, list) and all(isinstance(name, str) and name.strip() for name in given)
    if not texts or len(given) != count or len(set(given)) != count:
        raise DataError(f"{shown}: {wanted}; got {_short(given)}")
    return tuple(given)


def _checked(pair: Any, shown: str) -> tuple[str, int]:
    if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
        raise DataError(f'{shown}: each label must be ["name", class]; got {_short(pair)}')
    name, label = pair
    if isinstance(label, bool) or not isinstance(label, int) or label < 0:
        raise DataError(f"{shown}: the class of {_clipped(name)} must be an integer from 0; got {_short(label)}")
    return name, label


def parse_table(text: bytes, shown: str) -> dict[str, Any]:
    """The JSON object of a ``dataset.json``, with its list of labels; raises DataError where it is none."""
    try:
        # Python refuses to parse a number of thousands of digits, so such a number stays text
        table = json.loads(text, parse_int=lambda digits: int(digits) if len(digits) <= _DIGITS else digits)
    except RecursionError:
        raise DataError(f"{shown}: must be JSON of the form {_FORM}; it is nested too deeply") from None
    except ValueError as error:
        raise DataError(f"{shown}: must be JSON of the form {_FORM} ({error})") from None
    if not isinstance(table, dict) or "labels" not in table:
        raise DataError(f"{shown}: must be JSON of the form {_FORM}; got {_short(table)}")
    if not isinstance(table["labels"], list | None):
        raise DataError(f'{shown}: "labels" must be a list of ["name.png", class]; got {_short(table["labels"])}')
    return table


def check_gaps(classes: dict[str, int], shown: str) -> None:
    """Raise DataError unless the classes of the named pictures are 0, 1, 2 and so on."""
    there = set(classes.values())
    gap = next((label for label in range(len(there)) if label not in there), None)
    if gap is not None:
        name = max(classes, key=lambda name: classes[name])
        raise DataError(
            f"{shown}: classes must be numbered from 0 without gaps; "
            f"no picture has class {gap}, and {name} has {classes[name]}"
        )


def _plain(name: str) -> str:
    # macOS writes accents as separate characters
    return unicodedata.normalize("NFC", plain_name(name))


def _short(value: Any) -> str:
    return _clipped(json.dumps(value, ensure_ascii=False))


def _clipped(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
