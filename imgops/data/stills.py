"""Single pictures of files that may hold several."""

from __future__ import annotations

import warnings
from pathlib import Path

from .pictures import Picture, read_picture
from .pictures.samples import PREFIX
from .video.animation import count_frames


def read_still(source: str) -> Picture:
    """A picture. Of a file with several frames or pages it is the first, and a warning says so.

    Args:
        source: a file, or a free picture such as ``samples:chelsea``.

    Raises:
        OSError, DataError: as of :func:`~imgops.data.pictures.read_picture`.
    """
    picture = read_picture(source)
    if not source.startswith(PREFIX) and (count := count_frames(Path(source))) > 1:
        warnings.warn(f"{source}: the first of {count} frames is taken", stacklevel=1)
    return picture
