"""Tells what a source is, and reads pictures in files, free sets and videos."""

from __future__ import annotations

import dataclasses
import functools
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..._settings import PICTURES
from .._errors import DataError
from ..datasets import ImageFolder, PictureFiles, SampleSet, ShardSet
from ..datasets._labels import folder_classes
from ..datasets.listing import list_folder, suffix_of
from ..datasets.shards import is_shards
from ..pictures.samples import PREFIX
from ..video import VIDEO_ENDINGS, is_video, read_frames
from .cifar import is_cifar, read_cifar
from .items import Item, Source
from .lsun import is_lmdb, is_packed_lmdb, read_lmdb
from .mnist import is_mnist, read_mnist
from .settings import PrepareSettings


def open_source(source: str | os.PathLike[str], settings: PrepareSettings) -> Source:
    """The pictures at a place.

    Args:
        source: a folder or zip of pictures, shards, a video or a folder of videos, LSUN's lmdb, ``cifar-10-*.tar.gz``,
            a folder of MNIST's ``*-ubyte.gz``, or ``samples:NAME``.
        settings: how it is read: labels, split, every; and of ``samples:`` the resolution and channels.

    Raises:
        DataError: there is nothing usable at this place.
        ImportError: what reads it is not installed.
    """
    text = os.fspath(source)
    path = Path(text)
    if text.startswith(PREFIX):
        return _samples(text, settings)
    if is_shards(text):
        return _files(ShardSet(text, PICTURES.low, use_labels=settings.labels))
    if path.is_dir() and (found := _videos(path)):
        videos, left_out = found
        return dataclasses.replace(_frames(path, videos, settings), left_out=left_out)
    readers: dict[Callable[[Path], bool], Callable[[], Source]] = {
        is_lmdb: lambda: read_lmdb(path),
        is_mnist: lambda: read_mnist(path, settings.split),
        is_cifar: lambda: read_cifar(path, settings.split),
        _is_one_video: lambda: _frames(path.parent, [path.name], settings),
    }
    for accepts, read in readers.items():
        if accepts(path):
            if settings.labels == "folders":
                raise DataError(
                    f"{text}: this source has no folders; its classes, if any, come without --labels folders"
                )
            return read()
    if is_packed_lmdb(path):
        raise DataError(f"{text}: it holds an lmdb, as LSUN's zips do; unpack it, and name the folder")
    return _files(ImageFolder(text, PICTURES.low, use_labels=settings.labels))


def _is_one_video(path: Path) -> bool:
    return path.is_file() and is_video(path)


def _files(dataset: PictureFiles) -> Source:
    labels: Sequence[int | None] = [None] * dataset.count if dataset.labels is None else dataset.labels.tolist()
    items = (
        Item(name, functools.partial(dataset.read, index), label)
        for index, (name, label) in enumerate(zip(dataset.names, labels, strict=True))
    )
    return Source(items, dataset.count, dataset.class_names, dataset.left_out)


def _samples(text: str, settings: PrepareSettings) -> Source:
    if settings.resolution is None:
        raise DataError(f"{text}: crops of a free set have the size of --resolution, which is missing")
    name = text.removeprefix(PREFIX)
    dataset = SampleSet(name, settings.resolution, settings.channels, use_labels=settings.labels)

    def pixels(index: int) -> np.ndarray:
        values = dataset.picture(index).permute(1, 2, 0).numpy()
        return values[..., 0] if values.shape[2] == 1 else values

    items = (
        Item(f"{picture.name}/{k:05d}.png", functools.partial(pixels, k), k % len(dataset.pictures))
        for k, picture in ((k, dataset.pictures[k % len(dataset.pictures)]) for k in range(dataset.count))
    )
    return Source(items, dataset.count, dataset.class_names)


def _videos(folder: Path) -> tuple[list[str], Counter[str]] | None:
    """The names of the videos in a folder that has no pictures, and how many files of each other kind are there; None:
    it has pictures, or no videos."""
    listing = list_folder(folder)
    videos = sorted(name for name in listing.files if suffix_of(name) in VIDEO_ENDINGS)
    return (videos, listing.count_rest(videos)) if videos and not listing.pictures() else None


def _frames(folder: Path, videos: Sequence[str], settings: PrepareSettings) -> Source:
    """Every so many frames of videos, named by their numbers and by the video, with its ending where two differ in that
    alone."""
    stems = Counter(posixpath.splitext(video)[0] for video in videos)
    classes = folder_classes(videos, str(folder)) if settings.labels == "folders" else None

    def items() -> Iterator[Item]:
        for place, video in enumerate(videos):
            label = None if classes is None else classes.labels[place]
            stem = posixpath.splitext(video)[0]
            stem = stem if stems[stem] == 1 else video
            try:
                for number, frame in enumerate(read_frames(folder / video)):
                    if number % settings.every == 0:
                        pixels = (frame * 255).round().byte().permute(1, 2, 0).numpy()
                        yield Item(f"{stem}-{number:06d}.png", functools.partial(np.asarray, pixels), label)
            except DataError as error:
                # what comes before the damage is used, and the others too
                yield Item(video, functools.partial(_refuse, error), label)

    return Source(items(), None, () if classes is None else classes.names, obeys=("every",))


def _refuse(error: DataError) -> bytes:
    raise error
