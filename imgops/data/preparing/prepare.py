"""Makes a dataset for training of what one has; an interrupted preparation goes on where it ended."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import posixpath
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._errors import DataError, printable, reading
from ..datasets.listing import plain_name
from ..files import write_file
from ._boxes import Part, parts_of, read_boxes
from ._journal import Journal
from ._packing import Contents, check_out, made_of, pack_folder, pack_shards, pack_zip
from ._work import Done, Task, workers
from .items import Source
from .settings import PrepareSettings
from .sources import open_source

#: tasks per process that wait, so that no process does
_AHEAD = 8
#: longest name of a file in bytes, an ending and a number not counted
_LONGEST = 200

#: called after each picture with how many are done, how many there are (None: unknown), and how many were refused
Tell = Callable[[int, int | None, int], Any]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A finished dataset.

    Attributes:
        out: the folder or zip.
        count: of its pictures.
        class_names: of its classes, in their order.
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


def prepare_dataset(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: PrepareSettings | None = None,
    *,
    processes: int | None = None,
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
        processes: how many work; None: one per core; 0: this one.
        tell: called after each picture.

    Raises:
        DataError: nothing usable at the source; OUT is there and was made otherwise; no picture could be used.
        OSError: a file cannot be written.
        ImportError: what reads the source is not installed.
    """
    settings, out = settings or PrepareSettings(), Path(out)
    check_out(out, settings.shard_size is not None)
    _check_apart(out, os.fspath(source))
    parts = out.with_name(f"{out.name}.parts")
    origin = _made_of(os.fspath(source), settings)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        if made_of(out) != origin:
            raise DataError(f"{out} is there already, and was not made of this with these settings; choose another OUT")
        # a kill right before the end may have left it
        shutil.rmtree(parts, ignore_errors=True)
        return Prepared(out, 0, again=True)
    pictures = open_source(source, settings)
    journal = Journal(parts, origin)
    try:
        journal.sweep()
        results = _make_all(pictures, settings, journal, os.cpu_count() or 1 if processes is None else processes, tell)
        prepared = _finish(out, pictures, settings, journal, results)
        journal.remove()
    finally:
        journal.close()
    return prepared


class _Wanted(NamedTuple):
    """A picture to make: its name at the source, the file of its result, its class, what reads it, the part that is
    kept, and why it is refused unseen."""

    name: str
    file: str
    label: int | None
    read: Callable[[], bytes | np.ndarray]
    part: Part | None
    refused: str


class _Result(NamedTuple):
    """A picture of the source, and what became of it."""

    wanted: _Wanted
    done: Done


def _make_all(source: Source, settings: PrepareSettings, journal: Journal, count: int, tell: Tell) -> list[_Result]:
    """Make what is not made yet, on several processes; the results are in the order of the source."""
    waiting: deque[tuple[_Wanted, Future[Done] | None]] = deque()
    results: list[_Result] = []
    refused = 0
    whole = source.count if settings.limit is None else min(settings.limit, source.count or settings.limit)

    def settle() -> None:
        nonlocal refused
        wanted, future = waiting.popleft()
        if future is not None:
            journal.add(wanted.file, future.result())
        results.append(_Result(wanted, journal.done[wanted.file]))
        refused += bool(results[-1].done.refused)
        tell(len(results), whole, refused)

    try:
        with workers(count) as submit:
            for wanted in itertools.islice(_all_wanted(source, settings), settings.limit):
                done = wanted.file in journal.done
                waiting.append((wanted, None if done else _begin(wanted, submit, journal, settings)))
                while len(waiting) > _AHEAD * count:
                    settle()
            while waiting:
                settle()
    except BrokenProcessPool:
        raise DataError("a process that worked was killed, perhaps for want of memory; take fewer --workers") from None
    return results


def _begin(
    wanted: _Wanted, submit: Callable[..., Future[Done]], journal: Journal, settings: PrepareSettings
) -> Future[Done]:
    try:
        if wanted.refused:
            raise DataError(wanted.refused)
        task = Task(wanted.name, wanted.file, wanted.read(), wanted.part)
    except DataError as error:
        future: Future[Done] = Future()
        future.set_result(Done(refused=str(error)))
        return future
    future = submit(task, journal.pictures, settings)

    def record(future: Future[Done]) -> None:
        # at once, not in its turn; what fails here is tried again then, and raises
        if not future.cancelled() and future.exception() is None:
            with contextlib.suppress(OSError):
                journal.add(wanted.file, future.result())

    future.add_done_callback(record)
    return future


def _all_wanted(source: Source, settings: PrepareSettings) -> Iterator[_Wanted]:
    """Every picture to make: where parts are kept, one for each part."""
    parts = None if settings.boxes is None else read_boxes(Path(settings.boxes))
    taken: set[str] = set()
    for item in source.items:
        chosen: Sequence[Part | None] = [None] if parts is None else parts_of(parts, item.name)
        why = "" if chosen else f"{settings.boxes} has no box for it"
        for part in chosen or [None]:
            file = _file(item.name, settings.format, taken)
            yield _Wanted(item.name, file, item.label, item.read, part, why)


def _file(name: str, format: str, taken: set[str]) -> str:
    """The file of a result: the picture's name where file systems allow it, and a number where another has it."""
    stem = posixpath.splitext(plain_name(name))[0]
    places = [re.sub(r"^(?=\.|__MACOSX)|[\x00-\x1f]", "_", place) for place in stem.split("/") if place != ".."]
    places = [os.fsencode(place)[:_LONGEST].decode("utf-8", "ignore") for place in places]
    plain = "/".join(places) or "picture"
    choices = itertools.chain([plain], (f"{plain}-{number}" for number in itertools.count(2)))
    # some file systems do not tell case
    chosen = next(choice for choice in choices if choice.casefold() not in taken)
    taken.add(chosen.casefold())
    return f"{chosen}.{format}"


def _finish(
    out: Path, source: Source, settings: PrepareSettings, journal: Journal, results: Sequence[_Result]
) -> Prepared:
    """Write the reports and pack the dataset."""
    used = [result for result in results if not result.done.refused]
    refused = {wanted.name: done.refused for wanted, done in results if done.refused}
    duplicates, similar = _alike(used)
    _report(beside(out, "refused"), [f"{name}: {reason}" for name, reason in refused.items()])
    said = {"the same as": duplicates, "looks like": similar}
    _report(beside(out, "duplicates"), [f"{a}: {how} {b}" for how, pairs in said.items() for a, b in pairs.items()])
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
    return Prepared(out, len(kept), names, refused, duplicates, similar, source.left_out)


def _alike(used: Sequence[_Result]) -> tuple[dict[str, str], dict[str, str]]:
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
    kept: Sequence[_Result], source: Source, settings: PrepareSettings
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
    return out.with_name(f"{out.stem if out.suffix.lower() == '.zip' else out.name}-{what}.txt")


def _report(path: Path, lines: list[str]) -> None:
    """A file with a line for each picture, or none where there are no lines."""
    if lines:
        write_file(path, "".join(f"{printable(line)}\n" for line in lines).encode("utf-8", "replace"))
    else:
        path.unlink(missing_ok=True)


def _check_apart(out: Path, source: str) -> None:
    """Raise DataError if the dataset would become a part of its source, or lie where the source does."""
    place, folder = Path(os.path.realpath(out)), Path(os.path.realpath(source))
    if os.path.exists(source) and (place == folder or (folder.is_dir() and folder in place.parents)):
        raise DataError(f"OUT {out} lies in the source {source}; choose another place")


def _made_of(source: str, settings: PrepareSettings) -> Any:
    """What identifies a preparation: the source as it is now, and the settings."""
    about = dataclasses.asdict(settings)
    if settings.boxes is not None:
        with reading(settings.boxes):
            about["boxes"] = hashlib.sha256(Path(settings.boxes).read_bytes()).hexdigest()
    said = {"source": Path(source).name, "stamp": _stamp(source), "settings": about}
    # as it is read back
    return json.loads(json.dumps(said))


def _stamp(source: str) -> str:
    """A hash of the names, sizes and times of the files at a place, or of the text of what is no place."""
    digest = hashlib.sha256()
    if not os.path.isdir(source):
        paths = [source]
    else:
        paths = sorted(
            os.path.join(place, name) for place, _, names in os.walk(source, followlinks=True) for name in names
        )
    for path in paths:
        about = os.stat(path) if os.path.exists(path) else None
        facts = (os.path.relpath(path, source), *((about.st_size, about.st_mtime_ns) if about else (source,)))
        digest.update(repr(facts).encode())
    return digest.hexdigest()
