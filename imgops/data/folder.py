"""Pictures from a folder or a zip, with their classes from ``dataset.json``."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ._dataset import ImageDataset
from ._images import DataError, load_image, to_channels, to_tensor
from .samples import PREFIX, SampleSet

LABELS = "dataset.json"


class ImageFolder(ImageDataset):
    """The pictures of a folder (with its subfolders) or of a zip, in the order of their names.

    Any format that Pillow reads, told by its suffix; other files, hidden files and ``__MACOSX`` are passed
    over. Each picture is turned upright, converted to ``channels`` (16-bit, palette, CMYK and transparency as
    :func:`imgops.data._images.to_channels` says), centre-cropped to a square and resized by Lanczos.

    Classes come from ``dataset.json`` at the root: ``{"labels": [["sub/a.png", 0], ...]}``, names relative to
    the root with ``/``, classes as integers from 0. Without the file, or with ``"labels": null``, there are none.

    Args:
        path: the folder or zip.
        resolution: side in pixels, a power of two.
        channels: 1, 3 or 4.
        mirror: double the set by flipping left to right.
        use_labels: False ignores ``dataset.json``.

    Raises:
        DataError: the path or the pictures are missing, the zip is damaged, or the labels do not match the
            files; a picture that cannot be read raises it when it is asked for (or by :meth:`check`).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        resolution: int,
        channels: int = 3,
        mirror: bool = False,
        use_labels: bool = True,
    ) -> None:
        super().__init__(str(path), resolution, channels, mirror)
        self.path = Path(path)
        self._archive: tuple[int, zipfile.ZipFile] | None = None
        if self.path.is_dir():
            names = [p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file()]
        elif not self.path.exists():
            raise DataError(f"{path}: no such folder or zip")
        elif zipfile.is_zipfile(self.path):
            names = [info.filename for info in self._zip().infolist() if not info.is_dir()]
        else:
            raise DataError(f"{path}: neither a folder nor a zip")
        suffixes = Image.registered_extensions()
        visible = (n for n in names if not any(part.startswith((".", "__MACOSX")) for part in n.split("/")))
        self.names = sorted(n for n in visible if os.path.splitext(n)[1].lower() in suffixes)
        if not self.names:
            raise DataError(f"{path}: no pictures in it (looked for the suffixes of the formats that Pillow reads)")
        if use_labels and LABELS in names:
            self.labels = self._read_labels()
            if self.labels is not None:
                self.class_names = tuple(str(k) for k in range(int(self.labels.max()) + 1))

    @property
    def count(self) -> int:
        return len(self.names)

    def picture(self, index: int) -> Tensor:
        name = self.names[index]
        shown = f"{self.path}/{name}"
        image = load_image(io.BytesIO(self._read(name)), shown)
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return to_tensor(to_channels(image, self.channels, shown), self.resolution, side, left, top)

    def check(self, progress: Callable[[], Any] = lambda: None) -> None:
        """Decode every picture once, on a few threads, calling ``progress`` after each.

        Raises:
            DataError: the first picture, by name, that cannot be used.
        """

        def decode(index: int) -> None:
            # nothing is returned: the pictures of a large set would pile up
            self.picture(index)

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            try:
                for _ in pool.map(decode, range(self.count)):
                    progress()
            finally:
                # after the first bad picture, or an interrupt, the rest need not be read
                pool.shutdown(wait=False, cancel_futures=True)

    def _zip(self) -> zipfile.ZipFile:
        # a file position is shared across a fork, so that each process opens the zip for itself
        if self._archive is None or self._archive[0] != os.getpid():
            try:
                self._archive = os.getpid(), zipfile.ZipFile(self.path)
            except (zipfile.BadZipFile, OSError) as error:
                raise DataError(f"{self.path}: damaged zip ({error})") from None
        return self._archive[1]

    def _read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes() if self.path.is_dir() else self._zip().read(name)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, EOFError) as error:
            # RuntimeError: encrypted; NotImplementedError: a compression that this Python lacks
            raise DataError(f"{self.path}/{name}: cannot be read ({error})") from None

    def _read_labels(self) -> Tensor | None:
        shown = f"{self.path}/{LABELS}"
        try:
            table = json.loads(self._read(LABELS))
            pairs = table["labels"]
        except (ValueError, KeyError, TypeError):
            raise DataError(f'{shown}: must be JSON of the form {{"labels": [["name.png", 0], ...]}}') from None
        if pairs is None:
            return None
        classes: dict[str, int] = {}
        known = set(self.names)
        for pair in pairs:
            if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
                raise DataError(f'{shown}: each label must be ["name", class]; got {json.dumps(pair)[:80]}')
            name, label = pair
            if isinstance(label, bool) or not isinstance(label, int) or label < 0:
                raise DataError(f"{shown}: the class of {name} must be an integer from 0; got {json.dumps(label)[:80]}")
            if name not in known:
                raise DataError(f"{shown}: {name} has a label but is not in {self.path}")
            if classes.setdefault(name, label) != label:
                raise DataError(f"{shown}: {name} has two labels, {classes[name]} and {label}")
        missing = [n for n in self.names if n not in classes]
        if missing:
            raise DataError(
                f"{shown}: {missing[0]} has no label ({len(missing)} of {len(self.names)} pictures have none)"
            )
        labels = torch.tensor([classes[n] for n in self.names])
        empty = sorted(set(range(int(labels.max()))) - set(labels.tolist()))
        if empty:
            raise DataError(f"{shown}: classes must be numbered from 0 without gaps; no picture has class {empty[0]}")
        return labels

    def __getstate__(self) -> dict[str, Any]:
        # an open file does not travel to a worker process
        return {**self.__dict__, "_archive": None}


def open_dataset(
    source: str | os.PathLike[str],
    resolution: int,
    channels: int = 3,
    mirror: bool = False,
    use_labels: bool = True,
    seed: int = 0,
) -> ImageDataset:
    """The dataset that ``source`` names: a folder, a zip, or ``samples:NAME``.

    Args:
        source: path of a folder or zip (:class:`ImageFolder`), or ``samples:textures`` and the like
            (:class:`~imgops.data.samples.SampleSet`).
        resolution: side in pixels, a power of two.
        channels: 1, 3 or 4.
        mirror: double the set by flipping left to right.
        use_labels: False drops the classes.
        seed: where the crops of a sample set are taken; folders and zips ignore it.

    Raises:
        DataError: nothing usable there; names the file.
        ValueError: a resolution or number of channels that is not allowed.
        ImportError: a sample set without scikit-image.
    """
    text = os.fspath(source)
    if text.startswith(PREFIX):
        return SampleSet(text.removeprefix(PREFIX), resolution, channels, mirror, use_labels, seed)
    return ImageFolder(text, resolution, channels, mirror, use_labels)
