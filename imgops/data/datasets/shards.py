"""Pictures from shards, the tar files of WebDataset, with their classes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..._settings import Resolution
from .._errors import DataError, reading
from ._fetching import expand, is_url, local
from ._labels import LABELS, Classes, check_gaps, class_names, folder_classes, label_source, parse_table
from ._shard_index import Entry, ShardIndex, kept_beside, shard_index
from .listing import describe_left_out, list_folder
from .picture_files import PictureFiles

#: shards that are fetched, or whose index is found, at the same time
_AT_ONCE = 4


class ShardSet(PictureFiles):
    """The pictures of shards in the order of the shards and their entries.

    Where each picture lies in its shard is found once and kept in a file beside it, so that any picture is read at
    once: shards are shuffled, resumed and divided over processes as a folder is. A shard that comes by URL is fetched
    whole, once, into the folder that the environment variable ``IMGOPS_SHARDS`` names, ``~/.cache/imgops/shards`` where
    it is not set.

    A sample is the files of one name up to its first dot: its picture, of any format that Pillow decodes here, and its
    class in a ``.cls`` (a number, or a name) or a ``.json`` (by "label" or "cls", "class" or "class_name"). Names of
    numbered classes are those of the JSON, or of ``dataset.json`` beside the shards, or the numbers.

    Args:
        source: a .tar, a folder of these, or what webdataset takes as a pattern or URL: ``shards-{0000..0009}.tar``,
            ``https://.../shards-{000..099}.tar``, several with ``::``; and ``pipe:`` commands, which run where the
            environment variable ``IMGOPS_PIPE`` is 1.
        resolution: side in pixels, or height and width, as of :class:`~imgops.data.ImageDataset`.
        channels: 1, 3 or 4.
        mirror: double the set by flipping left to right.
        use_labels: "file", or True: the classes in the shards, where there are any; "folders": by the folders in the
            names of the samples; "none", or False: no classes.
        tell: called with the number of shards that are opened, and that of all.

    Attributes:
        names: of the pictures, each with its shard's name before it.

    Raises:
        DataError: a shard is missing, damaged, compressed or cannot be fetched, there are no pictures, or not every
            one has a class; names the shard. On access to a picture, and in :meth:`check`, that it cannot be read.
        ImportError: a pattern or URL without webdataset.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        resolution: Resolution,
        channels: int = 3,
        mirror: bool = False,
        use_labels: bool | str = True,
        tell: Callable[[int, int], Any] = lambda done, count: None,
    ) -> None:
        super().__init__(os.fspath(source), resolution, channels, mirror)
        places, others = self._places()
        self._paths, indices = _opened(places, tell)
        entries = [entry for index in indices for entry in index.pictures]
        self.left_out = sum((Counter(index.left_out) for index in indices), others)
        if not entries:
            raise DataError(f"{self.name}: no pictures in it{describe_left_out(self.left_out)}")
        shards = [name for name, index in zip(_names(places), indices, strict=True) for _ in index.pictures]
        self.names = [f"{shard}/{entry.name}" for shard, entry in zip(shards, entries, strict=True)]
        self._shard = np.repeat(np.arange(len(indices)), [len(index.pictures) for index in indices])
        self._place = np.array([(entry.offset, entry.size) for entry in entries])
        classes = self._classes(label_source(use_labels), entries)
        if classes is not None:
            self.labels, self.class_names = torch.tensor(classes.labels), classes.names

    def read(self, index: int) -> bytes:
        offset, size = self._place[index].tolist()
        # opened for each picture, so that threads and processes that were forked share no position
        with reading(f"{self.name}/{self.names[index]}"), open(self._paths[self._shard[index]], "rb") as file:
            file.seek(offset)
            content = file.read(size)
            if len(content) < size:
                raise DataError(f"{self.name}/{self.names[index]}: the shard has become shorter")
            return content

    def _places(self) -> tuple[list[str], Counter[str]]:
        """The shards, and how many files of each other kind lie in their folder."""
        folder = Path(self.name)
        if not folder.is_dir():
            return expand(self.name), Counter()
        with reading(self.name):
            shards = sorted(path for path in folder.iterdir() if _is_shard(path))
            others = list_folder(folder).count_rest([LABELS, *(path.name for path in shards)])
            others["hidden"] -= sum(kept_beside(path).exists() for path in shards)
            return list(map(str, shards)), +others

    def _classes(self, source: str, entries: list[Entry]) -> Classes | None:
        if source == "folders":
            return folder_classes([entry.name for entry in entries], self.name)
        if source == "none" or all(entry.label is entry.class_name is None for entry in entries):
            return None
        numbered = any(entry.label is not None for entry in entries)
        missing = [
            name
            for name, entry in zip(self.names, entries, strict=True)
            if (entry.label if numbered else entry.class_name) is None
        ]
        if missing:
            what = "no number of a class" if numbered else "no class"
            count = f"{len(missing):,} of {len(entries):,} pictures have none"
            raise DataError(f"{self.name}: {missing[0]} has {what} ({count})")
        if not numbered:
            texts = [str(entry.class_name) for entry in entries]
            names = sorted(set(texts))
            number = {name: k for k, name in enumerate(names)}
            return Classes([number[text] for text in texts], tuple(names))
        labels = [int(entry.label) for entry in entries if entry.label is not None]
        check_gaps(dict(zip(self.names, labels, strict=True)), self.name)
        return Classes(labels, self._class_names(labels, entries))

    def _class_names(self, labels: list[int], entries: list[Entry]) -> tuple[str, ...]:
        """The names of numbered classes."""
        named = {k: entry.class_name for k, entry in zip(labels, entries, strict=True) if entry.class_name is not None}
        count = max(labels) + 1
        if len(named) == len(set(named.values())) == count:
            return tuple(str(named[k]) for k in range(count))
        table = Path(self.name) / LABELS
        names = parse_table(table.read_bytes(), str(table)).get("names") if table.is_file() else None
        return class_names(names, count, str(table))


def is_shards(source: str) -> bool:
    """Whether a source names shards: a .tar, a pattern or URL of them, or a folder that holds them and no picture."""
    folder = Path(source)
    if folder.is_dir():
        try:
            shards = any(map(_is_shard, folder.iterdir()))
            return shards and not list_folder(folder).pictures()
        except OSError:
            return False
    named = not folder.is_file() and (is_url(source) or "{" in source or "::" in source)
    return named or source.lower().endswith(".tar")


def _is_shard(path: Path) -> bool:
    return path.suffix.lower() == ".tar" and not path.name.startswith(".")


def _names(places: list[str]) -> list[str]:
    """A name for each shard: its file's, or the whole place where two files have one name."""
    short = [place.rstrip("/").rpartition("/")[2] for place in places]
    count = Counter(short)
    return [name if count[name] == 1 else place for name, place in zip(short, places, strict=True)]


def _opened(places: list[str], tell: Callable[[int, int], Any]) -> tuple[list[Path], list[ShardIndex]]:
    """The file and the index of each shard, several of them at the same time."""

    def opened(place: str) -> tuple[Path, ShardIndex]:
        path = local(place)
        if not path.exists():
            raise DataError(f"{place}: no such shard")
        with reading(place):
            return path, shard_index(path, place)

    found = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            for pair in pool.map(opened, places):
                found.append(pair)
                tell(len(found), len(places))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return [path for path, _ in found], [index for _, index in found]
