"""Makes a dataset of finished pictures: a folder, a zip, or shards; each is whole or absent."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .._errors import DataError
from ..datasets._labels import LABELS
from ..files import naming, scrap_of, write_file
from ._journal import SHARDS

#: the key of the table of labels under which it says what a dataset is made of
MADE_OF = "made_of"
#: the time of every entry, so that the same pictures give the same bytes
_TIME = (1980, 1, 1, 0, 0, 0)


class Contents(NamedTuple):
    """What a dataset consists of: the files of its pictures in their order, the class of each, the names of the
    classes, and what it is made of."""

    files: list[str]
    labels: list[int] | None
    class_names: tuple[str, ...]
    made_of: Mapping[str, Any]

    def table(self, listed: bool = True) -> bytes:
        """The content of ``dataset.json``; shards have their labels inside, so that none is ``listed``."""
        pairs = None if self.labels is None or not listed else list(zip(self.files, self.labels, strict=True))
        names = {} if self.labels is None else {"names": self.class_names}
        return json.dumps({"labels": pairs, **names, MADE_OF: self.made_of}).encode()


def made_of(out: Path) -> Any:
    """What a finished dataset says that it is made of; None where it says nothing."""
    try:
        if out.is_dir():
            text = (out / LABELS).read_bytes()
        else:
            with zipfile.ZipFile(out) as archive:
                text = archive.read(LABELS)
        return json.loads(text).get(MADE_OF)
    except (OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile):
        return None


def pack_folder(pictures: Path, out: Path, contents: Contents) -> None:
    """Make the folder of the pictures the dataset; files that are not among its contents go."""
    kept = set(contents.files)
    for path in sorted(pictures.rglob("*")):
        if path.is_file() and path.relative_to(pictures).as_posix() not in kept:
            path.unlink()
    write_file(pictures / LABELS, contents.table())
    _put(pictures, out)


def pack_zip(pictures: Path, out: Path, contents: Contents) -> None:
    """Write a zip in which the pictures, being compressed already, are stored as they are."""
    scrap = scrap_of(out)
    with naming(out):
        try:
            with zipfile.ZipFile(scrap, "w", zipfile.ZIP_STORED) as archive:
                for name in contents.files:
                    archive.writestr(zipfile.ZipInfo(name, _TIME), (pictures / name).read_bytes())
                archive.writestr(zipfile.ZipInfo(LABELS, _TIME), contents.table())
            with open(scrap, "rb") as file:
                os.fsync(file.fileno())
            os.replace(scrap, out)
        except BaseException:
            scrap.unlink(missing_ok=True)
            raise


def pack_shards(pictures: Path, out: Path, contents: Contents, size: int) -> None:
    """Make a folder of shards of ``size`` pictures, with the class of each in its ``.cls`` and its name in a JSON."""
    folder = pictures.with_name(SHARDS)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    labels: Sequence[int | None] = [None] * len(contents.files) if contents.labels is None else contents.labels
    count = -(-len(contents.files) // size)
    digits = max(4, len(str(count - 1)))
    for shard in range(count):
        part = range(shard * size, min((shard + 1) * size, len(contents.files)))
        with naming(out), tarfile.open(folder / f"shard-{shard:0{digits}d}.tar", "w") as archive:
            for number in part:
                name, label = contents.files[number], labels[number]
                for ending, content in _sample(pictures / name, name, label, contents.class_names):
                    # the name up to the first dot is the sample's
                    info = tarfile.TarInfo(f"{number:08d}{ending}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    write_file(folder / LABELS, contents.table(listed=False))
    _put(folder, out)


def _put(folder: Path, out: Path) -> None:
    """Give a folder its place, where an empty one may be."""
    with naming(out):
        if out.is_dir():
            # Windows puts no folder in the place of another
            out.rmdir()
        os.replace(folder, out)


def _sample(path: Path, name: str, label: int | None, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    yield path.suffix, path.read_bytes()
    about: dict[str, Any] = {"name": name}
    if label is not None:
        yield ".cls", str(label).encode()
        about |= {"label": label, "class": names[label]}
    yield ".json", json.dumps(about).encode()


def check_out(out: Path, shards: bool) -> None:
    """Raise DataError unless a folder or zip, and for ``shards`` a folder, can be put there."""
    suffix = out.suffix.lower()
    if out.name in ("", ".."):
        raise DataError(f"{out}: OUT must be the name of a folder or zip")
    if suffix in (".tar", ".gz", ".tgz", ".7z", ".rar", ".mdb"):
        raise DataError(f"{out}: OUT is a folder or NAME.zip, or with --shard-size a folder of shards")
    if shards and suffix == ".zip":
        raise DataError(f"{out}: --shard-size makes a folder of shards; OUT must be the name of a folder")
    if suffix == ".zip" and out.is_dir():
        raise DataError(f"{out} is a folder, in whose place no zip can be put; choose another OUT")
    if out.is_symlink() or os.path.ismount(out):
        raise DataError(f"{out} is a link or a mounted disk, which no dataset can replace; choose a place inside")
