"""Lists the files of a folder or a zip: those that are used, and how many of each other kind are left out."""

from __future__ import annotations

import os
import posixpath
import re
import stat
import zipfile
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from .._errors import printable
from ..pictures.formats import picture_suffixes

#: number of kinds of left-out files that a message names
_SHOWN = 8
#: the flag of a zip entry whose name is UTF-8
_UTF8 = 0x800


class Listing(NamedTuple):
    """The files by name (with ``/``), each with its path or zip entry, and how many files of each kind are left out."""

    files: dict[str, str]
    left_out: Counter[str]

    def pictures(self) -> list[str]:
        """The names of the pictures, sorted."""
        suffixes = picture_suffixes()
        return sorted(name for name in self.files if suffix_of(name) in suffixes)

    def count_rest(self, used: Iterable[str]) -> Counter[str]:
        """How many files of each kind are left out if ``used`` are used."""
        return self.left_out + Counter(suffix_of(name) or "no ending" for name in self.files.keys() - set(used))


def suffix_of(name: str) -> str:
    """The ending of a name, in lower case with the dot."""
    return posixpath.splitext(name)[1].lower()


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """``"; left out: .pdf (2), hidden (1)"``, the most frequent first; nothing where nothing is left out."""
    kinds = sorted(left_out, key=lambda kind: (-left_out[kind], kind))
    shown = [f"{printable(kind)} ({left_out[kind]:,})" for kind in kinds[:_SHOWN]]
    if len(kinds) > _SHOWN:
        shown.append(f"others ({sum(left_out[kind] for kind in kinds[_SHOWN:]):,})")
    return f"; left out: {', '.join(shown)}" if shown else ""


def list_folder(folder: Path) -> Listing:
    """The files of a folder and its subfolders, linked ones too; a folder that several paths lead to counts once.

    Raises:
        OSError: it cannot be read.
    """
    listing = Listing({}, Counter())
    seen: set[tuple[int, int]] = set()
    # links come last, so that a folder inside keeps its own name
    folders, links = deque([("", str(folder))]), deque[tuple[str, str]]()
    while folders or links:
        prefix, path = (folders or links).popleft()
        try:
            about, entries = os.stat(path), sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError:
            if not prefix:
                raise
            listing.left_out["folder that cannot be read"] += 1
            continue
        if (about.st_dev, about.st_ino) in seen:
            listing.left_out["folder linked twice"] += 1
            continue
        seen.add((about.st_dev, about.st_ino))
        if prefix and not entries:
            listing.left_out["empty folder"] += 1
        for entry in entries:
            name = prefix + entry.name
            if _hidden(entry.name):
                listing.left_out["hidden"] += 1
            elif os.path.isdir(entry.path):
                (links if entry.is_symlink() else folders).append((f"{name}/", entry.path))
            elif os.path.isfile(entry.path):
                listing.files[name] = name
            else:
                listing.left_out["broken link" if entry.is_symlink() else "no regular file"] += 1
    return listing


def list_zip(archive: zipfile.ZipFile) -> Listing:
    """The files of a zip, under plain names: relative, with ``/``, in the encoding that they were written in."""
    listing = Listing({}, Counter())
    for info in archive.infolist():
        name = plain_name(_decoded(info))
        if info.filename.endswith(("/", "\\")) or not name:
            continue
        if ".." in name.split("/"):
            listing.left_out['name with ".."'] += 1
        elif any(map(_hidden, name.split("/"))):
            listing.left_out["hidden"] += 1
        elif stat.S_ISLNK(info.external_attr >> 16):
            listing.left_out["link in the zip"] += 1
        else:
            # of several entries with one name the last counts, as in programs that unpack zips
            listing.left_out["entry that a later one replaces"] += name in listing.files
            listing.files[name] = info.filename
    return Listing(listing.files, +listing.left_out)


def plain_name(name: str) -> str:
    """A name with ``/``, without what stands for the root or the folder itself: ``./``, ``/``, ``C:\\``."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    return "/".join(parts[1:] if parts and re.fullmatch("[A-Za-z]:", parts[0]) else parts)


def _hidden(part: str) -> bool:
    return part != ".." and part.startswith((".", "__MACOSX"))


def _decoded(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & _UTF8:
        return info.filename
    try:
        # zipfile assumes cp437, which hardly anybody writes; macOS writes UTF-8 without marking it
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename
