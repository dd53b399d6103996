"""Writes files so that each is whole or absent."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:
    # Windows
    fcntl = None  # type: ignore[assignment]

#: prefix of the names of unfinished and discarded files
SCRAP = ".scrap-"
#: longest file name in bytes that file systems allow
_LONGEST = 255
#: seconds between two tries to hold a file
_PAUSE = 0.05


def scrap_of(path: Path) -> Path:
    """The temporary path of a file while it is written: in the same folder, with the same ending."""
    name = path.name
    while len(os.fsencode(SCRAP + name)) > _LONGEST >= len(os.fsencode(path.name)):
        name = name[1:]
    return path.with_name(SCRAP + name)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make an OSError that the block raises name this path, not an internal file or none."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror or os.strerror(error.errno), str(path)) from None


@contextmanager
def alone(path: Path, wait: float = math.inf) -> Iterator[None]:
    """Hold a file, made for that, which one process of this machine at a time can hold; where the system has no such
    thing nothing is held.

    Args:
        path: of the file, which stays.
        wait: seconds for which it may be held by another.

    Raises:
        BlockingIOError: another holds it still.
        OSError: it cannot be made.
    """
    until = time.monotonic() + wait
    with open(path, "w") as file:
        while fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise
            time.sleep(_PAUSE)
        yield


def write_file(path: Path, content: bytes, sync: bool = True) -> None:
    """Write a file so that a kill or power cut leaves either the old content or the new, never a part of it.

    Args:
        path: of the file.
        content: all of it.
        sync: False is quicker, and only a power cut can then leave a part.

    Raises:
        OSError: it cannot be written, for want of space or of a right; what was there stays.
    """
    scrap = scrap_of(path)
    with naming(path):
        try:
            with open(scrap, "wb") as file:
                file.write(content)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(scrap, path)
        except BaseException:
            scrap.unlink(missing_ok=True)
            raise
