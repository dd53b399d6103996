"""Reads CIFAR-10 in the archives that its site gives, without running anything that is in them."""

from __future__ import annotations

import functools
import io
import pickle
import posixpath
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import DataError, decoding
from .items import Item, Source

#: bytes of a picture of CIFAR-10, and the files of its splits
_PICTURE = 3 * 32 * 32
_BATCHES = {"train": re.compile(r"data_batch_\d+(\.bin)?"), "test": re.compile(r"test_batch(\.bin)?")}
_NAMES = {"batches.meta", "batches.meta.txt"}


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
                        batch = _binary(content) if name.endswith(".bin") else _pickled(content)
                        _check_classes(batch[1], names)
                        parts[part].append(batch)
    count = sum(len(labels) for batches in parts.values() for _, labels in batches)
    if not count or not names:
        raise DataError(f"{path}: it lacks what CIFAR-10 has: data_batch_1 and so on, test_batch and batches.meta")
    return Source(_pictures(parts), count, names, obeys=("split",))


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


def _check_classes(labels: Sequence[int], names: Sequence[str]) -> None:
    """Raise ValueError at a label that has no name; the names come before the batches, as by their files' order."""
    wrong = next((label for label in labels if names and not 0 <= label < len(names)), None)
    if wrong is not None:
        raise ValueError(f"it has class {wrong}, and batches.meta names {len(names)} from 0 on")


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
