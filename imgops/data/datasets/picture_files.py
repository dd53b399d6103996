"""The base of datasets whose pictures are files with names, wherever their bytes lie."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch import Tensor

from ..._settings import Resolution
from .._errors import DataError, decoding, printable
from ..pictures.conversion import to_channels, to_tensor
from ..pictures.cropping import center_box
from ..pictures.decoding import SEVERAL, load_image, open_image
from .base import ImageDataset

#: bytes of decoded pictures that stay in memory at most
KEPT = 2**28
#: how many more names a message lists where several pictures are broken
_SHOWN = 3


class PictureFiles(ImageDataset):
    """Pictures in files, decoded, turned upright, converted, cropped and resized when they are first asked for.

    As many results as fit into :data:`KEPT` bytes stay in memory, in each process, so that a small set is decoded once.

    Attributes:
        names: of the pictures, with ``/``, in the order of the dataset.
    """

    names: list[str]

    def __init__(self, name: str, resolution: Resolution, channels: int = 3, mirror: bool = False) -> None:
        super().__init__(name, resolution, channels, mirror)
        self._kept: dict[int, Tensor] = {}
        #: those of which the first of several frames or pages was taken
        self._several = set[int]()

    def read(self, index: int) -> bytes:
        """The content of the file of picture ``index``; raises DataError where it cannot be read."""
        raise NotImplementedError

    @property
    def count(self) -> int:
        return len(self.names)

    def picture(self, index: int) -> Tensor:
        picture = self._kept.get(index)
        if picture is None:
            picture = self._decoded(index)
            if len(self._kept) < KEPT // picture.numel():
                self._kept[index] = picture
        # a copy, as what is kept must stay as it is
        return picture.clone()

    def _decoded(self, index: int) -> Tensor:
        shown = f"{self.name}/{self.names[index]}"
        image = load_image(io.BytesIO(self.read(index)), shown, at_least=(self.height, self.width))
        if SEVERAL in image.info:
            self._several.add(index)
        box = center_box(image.size, self.height, self.width)
        return to_tensor(to_channels(image, self.channels, shown), box, self.height, self.width)

    def original_size(self, index: int) -> tuple[int, int]:
        """Width and height of a picture as it is in its file.

        Raises:
            DataError: it cannot be read.
        """
        with decoding(f"{self.name}/{self.names[index]}"), open_image(io.BytesIO(self.read(index))) as image:
            return image.size

    def content_hash(self) -> str:
        digest = hashlib.sha256(f"{self.resolution} {self.channels}".encode())
        for index in range(self.count):
            # of hashes, so that no two sets of files run together to the same bytes
            digest.update(hashlib.sha256(self.read(index)).digest())
        return digest.hexdigest()

    def check(self, progress: Callable[[], Any] = lambda: None) -> None:
        """Decode every picture once, on a few threads, calling ``progress`` after each.

        Raises:
            DataError: pictures that cannot be used: how many, the first names, and what is wrong with the first.

        Warns:
            UserWarning: of pictures of several frames or pages the first is taken.
        """

        def decode(index: int) -> DataError | None:
            # no picture is returned, or those of a large set would accumulate in memory
            try:
                self.picture(index)
            except DataError as error:
                return error
            return None

        broken: list[tuple[str, DataError]] = []
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            try:
                for name, error in zip(self.names, pool.map(decode, range(self.count)), strict=True):
                    progress()
                    if error is not None:
                        broken.append((name, error))
            finally:
                # after an interrupt the others need not be read
                pool.shutdown(wait=False, cancel_futures=True)
        if len(broken) == 1:
            raise broken[0][1]
        if broken:
            others = ", ".join(name for name, _ in broken[1 : 1 + _SHOWN]) + ", ..." * (len(broken) > 1 + _SHOWN)
            total = f"{len(broken):,} of {self.count:,} pictures cannot be used"
            raise DataError(f"{broken[0][1]}; {total}, {others} too")
        if self._several:
            name, more = self.names[min(self._several)], len(self._several) - 1
            also = f" and {more:,} more" if more else ""
            warnings.warn(
                printable(f"{self.name}/{name}{also}: the first of the frames or pages is taken"), stacklevel=2
            )

    def __getstate__(self) -> dict[str, Any]:
        # each process decodes for itself
        return {**self.__dict__, "_kept": {}}
