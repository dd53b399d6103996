"""What is in a shard, a tar of WebDataset: where each picture lies, and its class. Found once, and kept beside it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from .._errors import DataError, decoding
from ..files import write_file
from ..pictures.decoding import check_room
from ..pictures.formats import picture_suffixes

#: of the form of the kept file, and of how it is found
_VERSION = 2
#: how webdataset splits a name: the endings begin at the first dot after the last slash
_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
#: bytes that are read at a time after the last file
_BLOCKS = 1 << 20
#: the keys of a sample's JSON that give its class, by number or by name
_KEYS = ("label", "cls", "class", "class_name")


class Entry(NamedTuple):
    """A picture in a shard: its name there, where its bytes lie, and its class by number, by name, by both or none."""

    name: str
    offset: int
    size: int
    label: int | None = None
    class_name: str | None = None


class ShardIndex(NamedTuple):
    """The pictures of a shard in the order of their places, and how many files of each kind are left out."""

    pictures: list[Entry]
    left_out: dict[str, int]


def shard_index(path: Path, shown: str) -> ShardIndex:
    """The index of a shard: the one that is kept beside it, if it is of this file, else found by reading the tar.

    Raises:
        OSError: there is no such file.
        DataError: it is no tar, is damaged, or a class in it cannot be read; names the shard and the entry.
    """
    about = path.stat()
    formats = hashlib.sha256(" ".join(sorted(picture_suffixes())).encode()).hexdigest()[:16]
    stamp = [_VERSION, about.st_size, about.st_mtime_ns, formats]
    kept = kept_beside(path)
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        table = json.loads(kept.read_text())
        if table["of"] == stamp:
            return ShardIndex([Entry(*entry) for entry in table["pictures"]], table["left_out"])
    index = _scan(path, shown)
    # in a folder that cannot be written the shard is read again at the next start
    with contextlib.suppress(OSError):
        write_file(kept, json.dumps({"of": stamp, **index._asdict()}).encode())
    return index


def kept_beside(path: Path) -> Path:
    """Where the index of a shard is kept."""
    return path.with_name(f".{path.name}.index.json")


def _scan(path: Path, shown: str) -> ShardIndex:
    suffixes, left_out = picture_suffixes(), Counter[str]()
    pictures: dict[str, Entry] = {}
    numbers, names = dict[str, int](), dict[str, str]()
    with decoding(shown, "shard"), _opened(path, shown) as archive:
        while (member := archive.next()) is not None:
            # tarfile would keep all of them in memory
            archive.members.clear()  # type: ignore[attr-defined]
            split = _NAME.fullmatch(member.name)
            if not member.isreg():
                left_out["no regular file"] += not member.isdir()
                continue
            key, ending = (split[1], split[2].lower()) if split else ("", "")
            if f".{ending}" in suffixes and key not in pictures:
                pictures[key] = Entry(member.name, member.offset_data, member.size)
            elif ending in ("cls", "json"):
                number, name = _class(ending, _content(archive, member, shown), f"{shown}/{member.name}")
                numbers |= {} if number is None else {key: number}
                names |= {} if name is None else {key: name}
            else:
                left_out[f".{ending}" if split else "no ending"] += 1
        _check_end(path, archive.offset)
    left_out["class without a picture"] += len((numbers.keys() | names.keys()) - pictures.keys())
    entries = [e._replace(label=numbers.get(key), class_name=names.get(key)) for key, e in pictures.items()]
    return ShardIndex(entries, dict(+left_out))


def _check_end(path: Path, end: int) -> None:
    """Raise ValueError unless a tar ends at the byte where its reader has stopped, which it does at damage too: a block
    of zeros must follow, and nothing but zeros after it."""
    if path.stat().st_size < end + tarfile.BLOCKSIZE:
        raise ValueError(f"it breaks off at byte {end:,}")
    with open(path, "rb") as file:
        file.seek(end)
        while block := file.read(_BLOCKS):
            if block.strip(b"\0"):
                raise ValueError(f"what follows byte {end:,} is neither a file nor the end of a tar")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, shown: str) -> bytes:
    check_room(member.size, f"{shown}/{member.name}")
    file = archive.extractfile(member)
    return b"" if file is None else file.read()


def _opened(path: Path, shown: str) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:")
    except tarfile.ReadError as error:
        try:
            tarfile.open(path, "r:*").close()
        except (tarfile.ReadError, EOFError):
            raise error from None
        raise DataError(f"{shown}: a compressed shard, in which no picture can be reached; unpack it first") from None


def _class(ending: str, content: bytes, shown: str) -> tuple[int | None, str | None]:
    """The class that a file of a sample gives: a number, a name, both or none."""
    if ending == "cls":
        text = content.decode("utf-8", "replace").strip()
        return (int(text), None) if re.fullmatch(r"\d{1,18}", text) else (None, text or None)
    try:
        table: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{shown}: must be JSON ({error})") from None
    values = [table[key] for key in _KEYS if key in table] if isinstance(table, dict) else [table]
    number = next((v for v in values if isinstance(v, int) and not isinstance(v, bool) and v >= 0), None)
    return number, next((v for v in values if isinstance(v, str) and v.strip()), None)
