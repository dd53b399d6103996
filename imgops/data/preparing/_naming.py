"""Names of files that every file system takes, and tells apart."""

from __future__ import annotations

import itertools
import posixpath
import re
import unicodedata
from collections.abc import Callable

from ..datasets.listing import plain_name

#: longest part of a path in bytes, an ending and a number not counted
_LONGEST = 200
#: what is not in a name: the begin of one that listings leave out, what Windows does not take, what stands for a byte
#: that is no UTF-8, and an end that Windows drops
_UNFIT = re.compile(r'^(?=\.|__MACOSX)|[\x00-\x1f<>:"|?*\ud800-\udfff]|[. ]$')
#: the begin of names that are devices for Windows, whatever their ending
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


class FileNames:
    """Names of the results of one preparation: each picture's own where that is possible.

    Args:
        format: the ending of the files.
    """

    def __init__(self, format: str) -> None:
        self._format = format
        #: as a file system sees it that tells neither case nor how letters are composed: the spelling, and whether it
        #: is a folder
        self._taken: dict[str, tuple[str, bool]] = {}

    def of(self, name: str) -> str:
        """The file of the picture of that name; each call takes another one."""
        stem = posixpath.splitext(plain_name(name))[0]
        *folders, last = [_fitting(part) for part in stem.split("/") if part not in ("", "..")] or ["picture"]
        path = ""
        for folder in folders:
            path = self._free(f"{path}{folder}", lambda taken: taken[1]) + "/"
        return self._free(f"{path}{last}", lambda taken: False, f".{self._format}")

    def _free(self, path: str, again: Callable[[tuple[str, bool]], bool], ending: str = "") -> str:
        """Take a path, with a number where it is taken and may not be used ``again``."""
        for choice in itertools.chain([path], (f"{path}-{number}" for number in itertools.count(2))):
            file = f"{choice}{ending}"
            key = unicodedata.normalize("NFC", file).casefold()
            taken = self._taken.setdefault(key, (file, not ending))
            if taken[0] is file or again(taken):
                return taken[0]
        raise AssertionError


def _fitting(part: str) -> str:
    """A part of a path as any file system takes it."""
    part = _UNFIT.sub("_", part).encode()[:_LONGEST].decode("utf-8", "ignore")
    # the cut may have left a dot at the end
    part = _UNFIT.sub("_", part)
    return f"_{part}" if _DEVICE.match(part) else part
