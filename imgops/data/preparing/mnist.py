"""Reads MNIST, and sets in its format, in the files that their sites give."""

from __future__ import annotations

import functools
import gzip
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .._errors import DataError, decoding
from ..datasets.listing import list_folder
from .items import Item, Source

#: the files of MNIST and of the sets in its format, by split
_IDX = re.compile(r"(?P<split>train|t10k|test)-(?P<what>images|labels)[-.]idx\d-ubyte(\.gz)?")
#: the type of what an idx file holds that is bytes
_UBYTE = 8


class _Part(NamedTuple):
    """The files of a split of MNIST."""

    images: Path
    labels: Path | None


def is_mnist(folder: Path) -> bool:
    """Whether a folder holds files of MNIST: ``train-images-idx3-ubyte.gz`` and so on."""
    return folder.is_dir() and any(_IDX.fullmatch(path.name) for path in folder.iterdir())


def read_mnist(folder: Path, split: str) -> Source:
    """MNIST, or a set in its format, from a folder of its files, packed as they come or unpacked.

    Args:
        folder: with ``train-images-idx3-ubyte.gz``, ``train-labels-idx1-ubyte.gz``, and ``t10k`` for the test.
        split: "train", "test" or "all".

    Raises:
        DataError: files are missing or damaged, or there are not as many labels as pictures.
    """
    parts: list[tuple[str, np.ndarray, np.ndarray | None]] = []
    for part, files in _parts(folder).items():
        if split in (part, "all"):
            pictures = _idx(files.images, 3)
            labels = None if files.labels is None else _idx(files.labels, 1)
            if labels is not None and len(labels) != len(pictures):
                raise DataError(f"{files.labels}: {len(labels):,} labels for {len(pictures):,} pictures")
            parts.append((part, pictures, labels))
    if not parts:
        raise DataError(f"{folder}: there are no pictures of the split {split} in it, as {_wanted(split)}")
    if len({labels is None for _, _, labels in parts}) > 1:
        raise DataError(f"{folder}: labels are missing for one of the splits")
    classes = max((int(labels.max()) + 1 for _, _, labels in parts if labels is not None), default=0)
    items = (
        Item(f"{part}/{k:05d}.png", functools.partial(np.asarray, pixels), None if labels is None else int(labels[k]))
        for part, pictures, labels in parts
        for k, pixels in enumerate(pictures)
    )
    listing = list_folder(folder)
    return Source(
        items,
        sum(len(pictures) for _, pictures, _ in parts),
        tuple(map(str, range(classes))),
        # the files of the other split are no others
        listing.count_rest(filter(_IDX.fullmatch, listing.files)),
        obeys=("split",),
    )


def _parts(folder: Path) -> dict[str, _Part]:
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if match := _IDX.fullmatch(path.name):
            part = "train" if match["split"] == "train" else "test"
            # the packed file comes after the unpacked one, which is preferred
            found.setdefault(part, {}).setdefault(match["what"], path)
    order = sorted(found.items(), reverse=True)
    return {part: _Part(files["images"], files.get("labels")) for part, files in order if "images" in files}


def _wanted(split: str) -> str:
    return f"{'t10k' if split == 'test' else 'train'}-images-idx3-ubyte.gz"


def _idx(path: Path, dimensions: int) -> np.ndarray:
    """The bytes of an idx file, of this many dimensions."""
    with decoding(str(path), "idx file"):
        content = path.read_bytes()
        content = gzip.decompress(content) if path.name.endswith(".gz") else content
        if content[:4] != bytes([0, 0, _UBYTE, dimensions]):
            raise ValueError(f"it does not begin as {dimensions} dimensions of bytes do")
        shape = np.frombuffer(content, ">u4", dimensions, 4).tolist()
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
