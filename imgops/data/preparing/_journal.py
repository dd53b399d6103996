"""The folder where a dataset grows, and the record of what is done, by which an interrupted preparation goes on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from .._errors import DataError
from ..files import SCRAP, alone
from ._work import Done

#: in the folder where a dataset grows: the record, what holds the folder, and the results
_RECORD, _LOCK, _PICTURES, SHARDS = "done.jsonl", "lock", "pictures", "shards"


def discard(folder: Path) -> None:
    """Remove what a preparation has left in the folder where its dataset grew, and the folder if nothing else is in it.
    One without a record is no such folder, and stays."""
    if not (folder / _RECORD).is_file():
        return
    for name in _PICTURES, SHARDS:
        shutil.rmtree(folder / name, ignore_errors=True)
    # the record goes last: a kill before leaves a folder that is known again
    for name in _LOCK, _RECORD:
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


class Journal:
    """What is done of a preparation; as a context manager, which holds the folder.

    Args:
        folder: where the dataset grows; made if it is not there.
        made_of: the source and the settings.

    Attributes:
        pictures: the folder of the results.
        done: {file: its result}.

    Raises:
        DataError: another process works in the folder, or it holds what is made of other data, with other settings, or
            of nothing that is known here.
        OSError: it cannot be read or written.
    """

    def __init__(self, folder: Path, made_of: Mapping[str, Any]) -> None:
        self.folder, self.pictures, self.made_of = folder, folder / _PICTURES, made_of
        self.done: dict[str, Done] = {}
        self._lock = threading.Lock()
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Journal:
        self._check_own()
        self.pictures.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as opened:
            try:
                opened.enter_context(alone(self.folder / _LOCK, wait=0))
            except BlockingIOError:
                raise DataError(f"{self.folder}: another process is making this dataset") from None
            record = self.folder / _RECORD
            whole = self._read(record)
            self._file = opened.enter_context(open(record, "ab"))
            if not whole:
                self._write(self.made_of)
            # what was being written when an earlier run was killed
            for path in self.pictures.rglob(f"{SCRAP}*"):
                path.unlink()
            self._open = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def add(self, file: str, done: Done) -> None:
        """Record a result, which is in its place, unless it is recorded; from any thread."""
        with self._lock:
            if file not in self.done:
                self._write([file, *done])
                self.done[file] = done

    def _check_own(self) -> None:
        """Raise DataError if the folder was there before, with what may be dear to somebody."""
        there = set(os.listdir(self.folder)) if self.folder.is_dir() else set()
        # a kill right after the begin leaves no record
        begun = there <= {_LOCK, _PICTURES} and not (self.pictures.is_dir() and any(self.pictures.iterdir()))
        if _RECORD not in there and not begun:
            raise DataError(
                f"{self.folder} is there already, and holds no begun dataset; move it, or choose another OUT"
            )

    def _read(self, record: Path) -> bool:
        """Take over what an earlier run has recorded; whether there is anything."""
        content = record.read_bytes() if record.exists() else b""
        lines, made = _whole_lines(content)
        done = {file: Done(*rest) for file, *rest in made[1:]}
        if made and made[0] != self.made_of:
            if any(not result.refused for result in done.values()):
                raise DataError(
                    f"{self.folder} holds the begin of a dataset that is made of other data or with other settings; "
                    f"remove it, or choose another OUT"
                )
            # nothing is lost by beginning anew
            lines, done = [], {}
        # a power cut may leave a record of a result that did not reach the disk
        self.done = {file: result for file, result in done.items() if result.refused or self._there(file)}
        if sum(map(len, lines)) < len(content):
            os.truncate(record, sum(map(len, lines)))
        return bool(lines)

    def _there(self, file: str) -> bool:
        path = self.pictures / file
        return path.is_file() and path.stat().st_size > 0

    def _write(self, value: Any) -> None:
        self._file.write(json.dumps(value).encode() + b"\n")
        self._file.flush()


def _whole_lines(content: bytes) -> tuple[list[bytes], list[Any]]:
    """The lines of a record and their values, up to where a kill or a power cut has left a part of a line or zeros."""
    lines, values = list[bytes](), []
    for line in content.splitlines(keepends=True):
        try:
            value = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            value = None
        if value is None:
            break
        lines.append(line)
        values.append(value)
    return lines, values
