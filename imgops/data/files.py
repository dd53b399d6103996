"""Files that are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

#: names of what is unfinished or discarded begin with this
SCRAP = ".scrap-"


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that a kill or power cut leaves the old content or the new, never a part of it.

    Raises:
        OSError: it cannot be written, for want of space or of a right; what was there stays.
    """
    scrap = path.with_name(f"{SCRAP}{path.name}")
    try:
        with open(scrap, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scrap, path)
    except BaseException:
        scrap.unlink(missing_ok=True)
        raise
