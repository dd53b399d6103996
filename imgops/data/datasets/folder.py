"""Pictures from a folder or a zip, with their classes from ``dataset.json``."""

from __future__ import annotations

import os
import posixpath
import zipfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from ..._settings import Resolution
from .._errors import DataError, decoding, reading
from ..pictures.decoding import check_room
from ..pictures.samples import PREFIX
from ._labels import LABELS, Classes, folder_classes, label_source, parse_labels
from .base import ImageDataset
from .listing import Listing, describe_left_out, list_folder, list_zip
from .picture_files import PictureFiles
from .sample_set import SampleSet
from .shards import ShardSet, is_shards

#: how a zip that holds something begins
_ZIP = b"PK\x03\x04"


class ImageFolder(PictureFiles):
    """The pictures of a folder (with its subfolders, linked ones too) or of a zip, in the order of their names.

    Any format that Pillow decodes here, told by the ending of the name; ``left_out`` counts other files by their kind,
    hidden ones and ``__MACOSX`` too, and :meth:`describe` names them. Each picture is turned upright, converted to sRGB
    and ``channels`` (transparency is laid over white unless there are 4), cropped to the shape that is wanted, around
    its center, and resized by Lanczos.

    Classes come from ``dataset.json`` at the root, or in the one folder below it that holds all pictures:
    ``{"labels": [["sub/a.png", 0], ...]}``, names relative to the table's folder (or to the root) with ``/``, classes
    as integers from 0. Without the file, or with ``"labels": null``, there are none. A list ``"names"`` beside the
    labels names the classes. Or each subfolder is a class.

    Args:
        path: the folder or zip.
        resolution: side in pixels, or height and width, as of :class:`ImageDataset`.
        channels: 1, 3 or 4.
        mirror: double the set by flipping left to right.
        use_labels: "file", or True: by ``dataset.json``, where there is one; "folders": each subfolder is a class,
            those in which all pictures lie passed through; "none", or False: no classes.

    Attributes:
        names: of the pictures, relative to the folder or zip, with ``/``.

    Raises:
        DataError: the path or the pictures are missing, the zip is damaged, or the labels do not match the
            files; on access to a picture, and in :meth:`check`, that it cannot be read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        resolution: Resolution,
        channels: int = 3,
        mirror: bool = False,
        use_labels: bool | str = True,
    ) -> None:
        super().__init__(str(path), resolution, channels, mirror)
        self.path = Path(path)
        self._archive: tuple[int, zipfile.ZipFile] | None = None
        listing = self._list()
        self.names = listing.pictures()
        table = _find_table(listing.files, self.names)
        self._entries, self.left_out = listing.files, listing.count_rest([*self.names, *([table] if table else [])])
        if not self.names:
            raise DataError(f"{path}: no pictures in it{describe_left_out(self.left_out)}")
        classes = self._classes(label_source(use_labels), table)
        if classes is not None:
            self.labels, self.class_names = torch.tensor(classes.labels), classes.names

    def read(self, index: int) -> bytes:
        return self._read(self.names[index])

    def _list(self) -> Listing:
        with reading(str(self.path)):
            if self.path.is_dir():
                return list_folder(self.path)
            if not self.path.exists():
                raise DataError(f"{self.path}: no such folder or zip")
            if not zipfile.is_zipfile(self.path):
                with open(self.path, "rb") as file:
                    begun = file.read(len(_ZIP)) == _ZIP
                what = "a truncated or damaged zip, its end is missing" if begun else "neither a folder nor a zip"
                raise DataError(f"{self.path}: {what}")
            return list_zip(self._zip())

    def _zip(self) -> zipfile.ZipFile:
        # processes that were forked share the position in an open file, so each opens the zip for itself
        if self._archive is None or self._archive[0] != os.getpid():
            with decoding(str(self.path), "zip"):
                self._archive = os.getpid(), zipfile.ZipFile(self.path)
        return self._archive[1]

    def _classes(self, source: str, table: str | None) -> Classes | None:
        if source == "folders":
            return folder_classes(self.names, str(self.path))
        if source == "none" or table is None:
            return None
        return parse_labels(self._read(table), self.names, table.removesuffix(LABELS), f"{self.path}/{table}")

    def _read(self, name: str) -> bytes:
        shown, entry = f"{self.path}/{name}", self._entries[name]
        with reading(shown):
            if self.path.is_dir():
                return (self.path / entry).read_bytes()
            archive = self._zip()
            check_room(archive.getinfo(entry).file_size, f"{shown}: what it unpacks to")
            return archive.read(entry)

    def __getstate__(self) -> dict[str, Any]:
        # an open file cannot be sent to a worker process
        return {**super().__getstate__(), "_archive": None}


def _find_table(files: Collection[str], pictures: Sequence[str]) -> str | None:
    """The path of the table of labels: at the root, or in a folder between it and the one that holds all pictures."""
    folders = [""]
    for part in posixpath.commonpath({posixpath.dirname(name) for name in pictures} or {""}).split("/"):
        folders.append(f"{folders[-1]}{part}/")
    return next((folder + LABELS for folder in folders if folder + LABELS in files), None)


def open_dataset(
    source: str | os.PathLike[str],
    resolution: Resolution,
    channels: int = 3,
    mirror: bool = False,
    use_labels: bool | str = True,
    seed: int = 0,
    tell: Callable[[int, int], Any] = lambda done, count: None,
) -> ImageDataset:
    """The dataset that ``source`` names: a folder, a zip, shards, or ``samples:NAME``.

    Args:
        source: path of a folder or zip of pictures (:class:`ImageFolder`); shards of WebDataset
            (:class:`~imgops.data.ShardSet`): a .tar, a folder of these, a pattern like ``shards-{0000..0009}.tar``, or
            URLs of them; or ``samples:textures`` and the like (:class:`~imgops.data.SampleSet`).
        resolution: side in pixels, or height and width, as of :class:`ImageDataset`.
        channels: 1, 3 or 4.
        mirror: double the set by flipping left to right.
        use_labels: "file", or True: the classes of ``dataset.json``, of the shards or of the free set; "folders": those
            of subfolders; "none", or False: no classes.
        seed: where the crops of a sample set are taken; the others ignore it.
        tell: called with the shards that are opened and the number of them all, as shards that come by URL take time.

    Raises:
        DataError: there is nothing usable at this place; names the file.
        ValueError: a resolution or number of channels that is not allowed.
        ImportError: a sample set without scikit-image, or shards by pattern or URL without webdataset.
    """
    text = os.fspath(source)
    if text.startswith(PREFIX):
        return SampleSet(text.removeprefix(PREFIX), resolution, channels, mirror, use_labels, seed)
    if is_shards(text):
        return ShardSet(text, resolution, channels, mirror, use_labels, tell)
    return ImageFolder(text, resolution, channels, mirror, use_labels)
