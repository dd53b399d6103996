"""Files that are whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: names of what is unfinished or discarded begin with this
SCRAP = ".scrap-"
#: bytes that file systems allow for a name
_LONGEST = 255


def scrap_of(path: Path) -> Path:
    """Where a file is written before it takes its place: beside it, with the same ending."""
    name = path.name
    while len(os.fsencode(SCRAP + name)) > _LONGEST >= len(os.fsencode(path.name)):
        name = name[1:]
    return path.with_name(SCRAP + name)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within it an OSError names this path, whichever of our files failed, and if none was named."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror or os.strerror(error.errno), str(path)) from None


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that a kill or power cut leaves the old content or the new, never a part of it.

    Raises:
        OSError: it cannot be written, for want of space or of a right; what was there stays.
    """
    scrap = scrap_of(path)
    with naming(path):
        try:
            with open(scrap, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scrap, path)
        except BaseException:
            scrap.unlink(missing_ok=True)
            raise
