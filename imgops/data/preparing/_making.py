"""Makes the pictures of a dataset on several processes, each once, in the order of the source."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._errors import DataError
from ._boxes import Part, parts_of, read_boxes
from ._journal import Journal
from ._naming import FileNames
from ._work import Done, Task, workers
from .items import Source
from .settings import PrepareSettings

#: tasks per process that wait, so that no process does
_AHEAD = 8

#: called after each picture with how many are done, how many there are (None: unknown), and how many were refused
Tell = Callable[[int, int | None, int], Any]


class Wanted(NamedTuple):
    """A picture to make: its name at the source, with a number where a picture has several parts, and with its file
    where another has that name; the file of its result, its class, what reads it, the part that is kept, and why it is
    refused unseen."""

    name: str
    file: str
    label: int | None
    read: Callable[[], bytes | np.ndarray]
    part: Part | None
    refused: str


class Result(NamedTuple):
    """A picture of the source, and what became of it."""

    wanted: Wanted
    done: Done


def make_all(source: Source, settings: PrepareSettings, journal: Journal, count: int, tell: Tell) -> list[Result]:
    """Make what is not made yet, on several processes; the results are in the order of the source."""
    waiting: deque[tuple[Wanted, Future[Done] | None]] = deque()
    results: list[Result] = []
    refused = 0
    whole = source.count if settings.limit is None else min(settings.limit, source.count or settings.limit)

    def settle() -> None:
        nonlocal refused
        wanted, future = waiting.popleft()
        if future is not None:
            journal.add(wanted.file, future.result())
        results.append(Result(wanted, journal.done[wanted.file]))
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
    wanted: Wanted, submit: Callable[..., Future[Done]], journal: Journal, settings: PrepareSettings
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


def _all_wanted(source: Source, settings: PrepareSettings) -> Iterator[Wanted]:
    """Every picture to make: where parts are kept, one for each part."""
    parts = None if settings.boxes is None else read_boxes(Path(settings.boxes))
    files, names = FileNames(settings.format), set[str]()
    for item in source.items:
        chosen: Sequence[Part | None] = [None] if parts is None else parts_of(parts, item.name)
        why = "" if chosen else f"{settings.boxes} has no box for it"
        for number, part in enumerate(chosen or [None], 1):
            name = item.name if number == 1 else f"{item.name}, box {number}"
            file = files.of(item.name)
            name = f"{name} ({file})" if name in names else name
            names.add(name)
            yield Wanted(name, file, item.label, item.read, part, why)
