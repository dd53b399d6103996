"""The folder where a dataset grows, and the record of what is done, by which an interrupted preparation goes on."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._errors import DataError
from ..files import SCRAP
from ._work import Done

#: the record, and the folder of the results, in the folder where a dataset grows
_RECORD, _PICTURES = "done.jsonl", "pictures"


class Journal:
    """What is done of a preparation.

    Args:
        folder: where the dataset grows; made if it is not there.
        made_of: the source and the settings.

    Raises:
        DataError: the folder holds what is made of other data or with other settings.
        OSError: it cannot be read or written.
    """

    def __init__(self, folder: Path, made_of: Mapping[str, Any]) -> None:
        self.folder, self.pictures, self.made_of = folder, folder / _PICTURES, made_of
        self.done: dict[str, Done] = {}
        record = folder / _RECORD
        folder.mkdir(parents=True, exist_ok=True)
        lines = record.read_bytes().splitlines(keepends=True) if record.exists() else []
        # a kill may leave a part of the last line
        whole = [line for line in lines if line.endswith(b"\n")]
        if whole and json.loads(whole[0]) != made_of:
            raise DataError(
                f"{folder} holds the begin of a dataset that is made of other data or with other settings; remove it, "
                f"or choose another OUT"
            )
        for line in whole[1:]:
            name, *rest = json.loads(line)
            self.done[name] = Done(*rest)
        if whole != lines:
            os.truncate(record, sum(map(len, whole)))
        self._lock = threading.Lock()
        # it stays open for as long as the work takes
        self._file = open(record, "ab")  # noqa: SIM115
        if not whole:
            self._write(made_of)
        self.pictures.mkdir(exist_ok=True)

    def add(self, file: str, done: Done) -> None:
        """Record a result, which is in its place, unless it is recorded; from any thread."""
        with self._lock:
            if file not in self.done:
                self._write([file, *done])
                self.done[file] = done

    def remove(self) -> None:
        """Remove the folder with all that is left in it."""
        self.close()
        shutil.rmtree(self.folder)

    def close(self) -> None:
        """Close the record."""
        self._file.close()

    def sweep(self) -> None:
        """Remove what was being written when an earlier run was killed."""
        for path in self.pictures.rglob(f"{SCRAP}*"):
            path.unlink()

    def _write(self, value: Any) -> None:
        self._file.write(json.dumps(value).encode() + b"\n")
        self._file.flush()
