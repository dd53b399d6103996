"""Reads CIFAR-10 and MNIST in the archives that their sites give, without running anything that is in them."""

from __future__ import annotations

import functools
import gzip
import io
import pickle
import posixpath
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._errors import DataError, decoding
from .items import Item, Source

#: bytes of a picture of CIFAR-10, and the files of its splits
_PICTURE = 3 * 32 * 32
_BATCHES = {"train": re.compile(r"data_batch_\d+(\.bin)?"), "test": re.compile(r"test_batch(\.bin)?")}
_NAMES = {"batches.meta", "batches.meta.txt"}
#: the files of MNIST and of the sets in its format, by split
_IDX = re.compile(r"(?P<split>train|t10k|test)-(?P<what>images|labels)[-.]idx\d-ubyte(\.gz)?")
#: the type of what an idx file holds that is bytes
_UBYTE = 8


def is_cifar(path: Path) -> bool:
    """Whether a file is named as CIFAR-10's archives are."""
    return path.is_file() and path.name.startswith("cifar-10-") and path.name.endswith((".tar.gz", ".tgz"))


def read_cifar(path: Path, split: str) -> Source:
    """CIFAR-10 as ``cifar-10-python.tar.gz`` or ``cifar-10-binary.tar.gz``.

    Args:
        path: the archive, packed as it comes.
        split: "train", "test" or "all".

    Raises:
        DataError: it is damaged or another archive.
    """
    parts: dict[str, list[tuple[np.ndarray, Sequence[int]]]] = {"train": [], "test": []}
    names: tuple[str, ...] = ()
    with decoding(str(path), "archive"), tarfile.open(path) as archive:
        files = {posixpath.basename(member.name): member for member in archive.getmembers() if member.isreg()}
        for name, member in sorted(files.items()):
            part = next((part for part, pattern in _BATCHES.items() if pattern.fullmatch(name)), None)
            if name in _NAMES or (part is not None and split in (part, "all")):
                file = archive.extractfile(member)
                content = b"" if file is None else file.read()
                with decoding(f"{path}/{name}", "batch"):
                    if part is None:
                        names = _class_names(name, content)
                    else:
                        parts[part].append(_binary(content) if name.endswith(".bin") else _pickled(content))
    count = sum(len(labels) for batches in parts.values() for _, labels in batches)
    if not count or not names:
        raise DataError(f"{path}: it lacks what CIFAR-10 has: data_batch_1 and so on, test_batch and batches.meta")
    return Source(_pictures(parts), count, names)


def _pictures(parts: dict[str, list[tuple[np.ndarray, Sequence[int]]]]) -> Iterator[Item]:
    for part, batches in parts.items():
        number = 0
        for pictures, labels in batches:
            for pixels, label in zip(pictures, labels, strict=True):
                yield Item(f"{part}/{number:05d}.png", functools.partial(np.asarray, pixels), int(label))
                number += 1


def _binary(content: bytes) -> tuple[np.ndarray, Sequence[int]]:
    rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + _PICTURE)
    return _upright(rows[:, 1:]), rows[:, 0].tolist()


def _pickled(content: bytes) -> tuple[np.ndarray, Sequence[int]]:
    table = {_text(key): value for key, value in _Inert(io.BytesIO(content), encoding="bytes").load().items()}
    pictures, labels = _upright(table["data"].values()), table["labels"]
    if len(pictures) != len(labels) or not all(type(label) is int for label in labels):
        raise ValueError("as many labels as pictures are needed")
    return pictures, labels


def _upright(rows: np.ndarray) -> np.ndarray:
    """[N, 3072], a plane per color, to [N, 32, 32, 3]."""
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _class_names(name: str, content: bytes) -> tuple[str, ...]:
    if name.endswith(".txt"):
        return tuple(content.decode().split())
    table = {_text(key): value for key, value in _Inert(io.BytesIO(content), encoding="bytes").load().items()}
    return tuple(map(_text, table["label_names"]))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


class _Array:
    """What stands in for an array in a pickle: it keeps what the array would be made of."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.kind, _, self.content = state

    def values(self) -> np.ndarray:
        """The array, if it is of bytes."""
        if self.kind.code not in ("u1", "|u1", b"u1", b"|u1") or not isinstance(self.content, bytes):
            raise ValueError("an array of bytes is needed")
        return np.frombuffer(self.content, np.uint8).reshape(self.shape)


class _Kind:
    """What stands in for the type of an array."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        pass


def _encoded(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


#: what the names in a pickle of CIFAR-10 stand for; whatever else it names is not loaded
_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _encoded,
}


class _Inert(pickle.Unpickler):
    """Reads a pickle of plain values and arrays of bytes; nothing that it names is imported or called."""

    def find_class(self, module: str, name: str) -> Any:
        stand_in = _STAND_INS.get((module, name))
        if stand_in is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not loaded")
        return stand_in


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
    return Source(items, sum(len(pictures) for _, pictures, _ in parts), tuple(map(str, range(classes))))


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
