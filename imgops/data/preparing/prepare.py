"""Makes a dataset for training of what one has; an interrupted preparation goes on where it ended."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._errors import DataError, printable, reading
from ..apart import leading_to, within
from ..datasets._fetching import expand
from ..datasets.listing import list_folder
from ..datasets.shards import is_shards
from ..files import write_file
from ._journal import Journal, discard
from ._making import Result, Tell, make_all
from ._packing import Contents, check_out, made_of, pack_folder, pack_shards, pack_zip
from .items import Source
from .settings import PrepareSettings
from .sources import open_source

#: the first lines of the reports, by which they are known again
_HEADS = {
    "refused": "# imgops data: pictures that are not used, and why",
    "duplicates": "# imgops data: pictures that are the same, or look alike",
}


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A finished dataset.

    Attributes:
        out: the folder or zip.
        count: of its pictures.
        class_names: of its classes, in their order.
        lost: the names of the classes of the source of which no picture is in it.
        refused: {name: reason} of what could not be used.
        duplicates: {name: the earlier picture with the same pixels}; they are in the dataset unless they were dropped.
        similar: {name: the earlier picture that looks alike}, by a hash of 64 bits; they are in the dataset.
        left_out: how many files of each other kind were not used.
        again: whether it was finished already.
    """

    out: Path
    count: int
    class_names: tuple[str, ...] = ()
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)
    duplicates: Mapping[str, str] = dataclasses.field(default_factory=dict)
    similar: Mapping[str, str] = dataclasses.field(default_factory=dict)
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    again: bool = False
    lost: tuple[str, ...] = ()


def prepare_dataset(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: PrepareSettings | None = None,
    *,
    processes: int = 0,
    tell: Tell = lambda done, count, refused: None,
) -> Prepared:
    """Make a dataset that :func:`~imgops.data.open_dataset` reads.

    Results grow in the folder ``OUT.parts``; ended at any moment, the same call goes on where it was. Beside the
    dataset ``OUT-refused.txt`` gives the reason for each picture that cannot be used, and ``OUT-duplicates.txt`` names
    pictures that are the same or look alike.

    Args:
        source: a folder or zip of pictures, shards, a video or a folder of videos, an lmdb of LSUN,
            ``cifar-10-python.tar.gz`` or ``-binary``, a folder of MNIST's ``*-ubyte.gz``, or ``samples:NAME``.
        out: a folder, which must not be there or be empty, or a ``.zip``.
        settings: how; the defaults where None.
        processes: how many work. Default 0, this one alone; a script that asks for more calls this below ``if __name__
            == "__main__":``, as each of them imports it.
        tell: called after each picture.

    Raises:
        DataError: nothing usable at the source; OUT is there and was made otherwise, or something else is where its
            parts or reports go; no picture could be used.
        OSError: a file cannot be written.
        ImportError: what reads the source is not installed.

    Warns:
        UserWarning: ``every`` or ``split`` is given for a source of another kind; a color profile cannot be used; of a
            picture's frames or pages the first is taken.
    """
    settings, out = settings or PrepareSettings(), Path(out)
    check_out(out, settings.shard_size is not None)
    files = _files_at(os.fspath(source))
    _check_apart(out, os.fspath(source), files)
    parts = out.with_name(f"{out.name}.parts")
    origin = _made_of(os.fspath(source), files, settings)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        if made_of(out) != origin:
            raise DataError(f"{out} is there already, and was not made of this with these settings; choose another OUT")
        # a kill right before the end may have left it
        discard(parts)
        return Prepared(out, 0, again=True)
    _check_reports(out)
    pictures = open_source(source, settings)
    _tell_of_idle(pictures, os.fspath(source), settings)
    with Journal(parts, origin) as journal:
        results = make_all(pictures, settings, journal, processes, tell)
        prepared = _finish(out, pictures, settings, journal, results)
        discard(parts)
    return prepared


def _tell_of_idle(pictures: Source, source: str, settings: PrepareSettings) -> None:
    """Warn of settings that are of other kinds of sources."""
    for name, why in {"every": "which is no video", "split": "which is neither CIFAR-10 nor MNIST"}.items():
        if name not in pictures.obeys and getattr(settings, name) != getattr(PrepareSettings(), name):
            warnings.warn(f"{name} does nothing with {source}, {why}", stacklevel=3)


def _finish(
    out: Path, source: Source, settings: PrepareSettings, journal: Journal, results: Sequence[Result]
) -> Prepared:
    """Write the reports and pack the dataset."""
    used = [result for result in results if not result.done.refused]
    refused = {wanted.name: done.refused for wanted, done in results if done.refused}
    duplicates, similar = _alike(used)
    _report(out, "refused", [f"{name}: {reason}" for name, reason in refused.items()])
    _tell_notes(used)
    said = {"the same as": duplicates, "looks like": similar}
    _report(out, "duplicates", [f"{a}: {how} {b}" for how, pairs in said.items() for a, b in pairs.items()])
    kept = [r for r in used if not (settings.drop_duplicates and r.wanted.name in duplicates)]
    if not kept:
        why = f"; all {len(refused):,} are refused, {beside(out, 'refused')} says why" if refused else ""
        raise DataError(f"no picture can be used{why}")
    labels, names = _classes(kept, source, settings)
    contents = Contents([result.wanted.file for result in kept], labels, names, journal.made_of)
    if settings.shard_size is not None:
        pack_shards(journal.pictures, out, contents, settings.shard_size)
    else:
        (pack_zip if out.suffix.lower() == ".zip" else pack_folder)(journal.pictures, out, contents)
    lost = tuple(name for name in source.class_names if names and name not in names)
    return Prepared(out, len(kept), names, refused, duplicates, similar, source.left_out, lost=lost)


def _tell_notes(used: Sequence[Result]) -> None:
    """Warn of what is to be said of the pictures, once for all of which it is the same."""
    names: dict[str, list[str]] = {}
    for wanted, done in used:
        for note in done.notes:
            names.setdefault(note, []).append(wanted.name)
    for note, some in names.items():
        more = f" and {len(some) - 1:,} more" if len(some) > 1 else ""
        warnings.warn(printable(f"{some[0]}{more}: {note}"), stacklevel=4)


def _alike(used: Sequence[Result]) -> tuple[dict[str, str], dict[str, str]]:
    """{name: the first picture that is the same}, and the same of pictures that look alike."""
    same, looks = dict[str, str](), dict[int, str]()
    duplicates, similar = dict[str, str](), dict[str, str]()
    for (name, *_), done in used:
        if (first := same.setdefault(done.pixels, name)) != name:
            duplicates[name] = first
        # a picture of one color has a hash of zeros
        elif done.look and (first := looks.setdefault(done.look, name)) != name:
            similar[name] = first
    return duplicates, similar


def _classes(
    kept: Sequence[Result], source: Source, settings: PrepareSettings
) -> tuple[list[int] | None, tuple[str, ...]]:
    """The class of each picture, numbered anew where some classes have lost all of theirs."""
    labels = [result.wanted.label for result in kept if result.wanted.label is not None]
    if settings.labels == "none" or len(labels) < len(kept):
        return None, ()
    left = sorted(set(labels))
    number = {label: k for k, label in enumerate(left)}
    return [number[label] for label in labels], tuple(source.class_names[label] for label in left)


def beside(out: Path, what: str) -> Path:
    """The file of a report on a dataset."""
    return out.with_name(f"{out.name}-{what}.txt")


def _report(out: Path, what: str, lines: list[str]) -> None:
    """A file with a line for each picture below its head, or none where there are no lines."""
    text = "".join(f"{printable(line)}\n" for line in [_HEADS[what], *lines])
    if lines:
        write_file(beside(out, what), text.encode("utf-8", "replace"))
    else:
        beside(out, what).unlink(missing_ok=True)


def _check_reports(out: Path) -> None:
    """Raise DataError if a file that is no report would be replaced by one, or removed."""
    for what, head in _HEADS.items():
        path = beside(out, what)
        if path.exists() and not (path.is_file() and path.read_bytes().startswith(head.encode())):
            raise DataError(f"{path} is there already, and is no report of imgops data; move it, or choose another OUT")


def _files_at(source: str) -> list[str]:
    """The files at a place, those of a folder by their names in it; or its text where it is no place."""
    if os.path.isdir(source):
        with reading(source):
            return sorted(list_folder(Path(source)).files)
    return expand(source) if is_shards(source) else [source]


def _check_apart(out: Path, source: str, files: Sequence[str]) -> None:
    """Raise DataError if the dataset would become a part of its source, or lie where the source does."""
    if os.path.isdir(source):
        place: str | Path | None = source if within(out, source) else leading_to(out, Path(source), files)
    else:
        real = os.path.realpath(out)
        place = next((file for file in files if os.path.exists(file) and os.path.realpath(file) == real), None)
    if place is not None:
        by = "" if str(place) == source else f", to which {place} leads"
        raise DataError(f"OUT {out} lies in the source {source}{by}; choose another place")


def _made_of(source: str, files: Sequence[str], settings: PrepareSettings) -> Any:
    """What identifies a preparation: the source as it is now, and the settings."""
    about = dataclasses.asdict(settings)
    if settings.boxes is not None:
        with reading(settings.boxes):
            about["boxes"] = hashlib.sha256(Path(settings.boxes).read_bytes()).hexdigest()
    said = {"source": Path(source).name, "stamp": _stamp(source, files), "settings": about}
    # as it is read back
    return json.loads(json.dumps(said))


def _stamp(source: str, files: Sequence[str]) -> str:
    """A hash of the names, sizes and times of the files at a place, or of the text of what is no place."""
    digest = hashlib.sha256()
    folder = os.path.isdir(source)
    for name in files:
        path = os.path.join(source, name) if folder else name
        about = os.stat(path) if os.path.exists(path) else None
        facts = (os.path.relpath(path, source), *((about.st_size, about.st_mtime_ns) if about else (source,)))
        digest.update(repr(facts).encode())
    return digest.hexdigest()
