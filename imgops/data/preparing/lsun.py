"""Reads LSUN's databases: an lmdb whose values are the files of pictures."""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..._install import MissingPackage
from .._errors import DataError, reading
from .items import Item, Source

#: the file of a database
_DATA = "data.mdb"


def is_lmdb(folder: Path) -> bool:
    """Whether a folder is a database."""
    return (folder / _DATA).is_file()


def is_packed_lmdb(path: Path) -> bool:
    """Whether a file is a zip that holds a database, which can be read only where it is unpacked."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with reading(str(path)), zipfile.ZipFile(path) as archive:
        return any(name.endswith(f"/{_DATA}") or name == _DATA for name in archive.namelist())


def read_lmdb(folder: Path) -> Source:
    """The pictures of a database in the order of their keys, which are their names.

    Raises:
        DataError: it is damaged.
        MissingPackage: lmdb is not installed.
    """
    try:
        import lmdb
    except ModuleNotFoundError:
        raise MissingPackage(f"{folder}: the package lmdb", "imgops[lmdb]") from None
    with reading(str(folder)):
        database = lmdb.open(str(folder), readonly=True, lock=False, readahead=False, max_readers=1)
        about = database.stat()
        # what lies behind the end of a file that is mapped into memory kills the process
        wanted, there = (database.info()["last_pgno"] + 1) * about["psize"], (folder / _DATA).stat().st_size
    if there < wanted:
        database.close()
        raise DataError(f"{folder}: truncated, {_DATA} has {there:,} of {wanted:,} bytes")
    count = about["entries"]

    def value(key: bytes) -> Any:
        with reading(f"{folder}/{_name(key)}"), database.begin() as transaction:
            return transaction.get(key, b"")

    def items() -> Iterator[Item]:
        for key in _keys(database, folder):
            yield Item(f"{_name(key)}.webp", functools.partial(value, key))

    if not count:
        raise DataError(f"{folder}: no pictures in it")
    return Source(items(), count)


def _keys(database: Any, folder: Path) -> Iterator[bytes]:
    with reading(str(folder)), database.begin() as transaction:
        yield from transaction.cursor().iternext(values=False)


def _name(key: bytes) -> str:
    text = key.decode("utf-8", "replace")
    return text if text.isprintable() and "/" not in text else key.hex()
