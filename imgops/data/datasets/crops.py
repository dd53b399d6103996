"""Random crops for training style transfer: from a folder, or from free pictures and procedural textures."""

from __future__ import annotations

import functools
import os
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .._errors import DataError, printable, reading
from ..pictures.reading import fill_hidden, read_picture
from ..pictures.samples import PREFIX, SAMPLES, load_sample
from .listing import describe_left_out, list_folder
from .textures import procedural_texture

#: number of procedural textures among the samples
TEXTURES = 128
#: bytes of decoded pictures that are cached at most
CACHE = 2**28


class RandomCrops:
    """Random square crops of pictures of any size, flipped left to right half of the time.

    Crop i is the same for the same seed, pictures and size. A larger picture is first reduced until its shorter side
    has ``zoom * size`` pixels; a crop's side is then drawn from 1 / zoom of the shorter side to all of it.

    Args:
        source: a folder, of which all pictures are taken, those in subfolders too; or ``samples:``, the free pictures
            that come with scikit-image and procedural textures.
        size: side of a crop in pixels, >= 16.
        zoom: >= 1. Default 2.
        textures: with ``samples:``, the share of crops that are of textures. Default 0.5.
        seed: decides which crops are drawn. Default 0.
        on_skip: called once per picture that cannot be read and is skipped; None warns.

    Raises:
        DataError: there is no such folder, or no picture in it; on access to a crop, no picture can be read.
        ValueError: size, zoom or textures is out of range.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        size: int,
        *,
        zoom: float = 2.0,
        textures: float = 0.5,
        seed: int = 0,
        on_skip: Callable[[str], None] | None = None,
    ) -> None:
        if size < 16 or not zoom >= 1 or not 0 <= textures <= 1:
            raise ValueError(
                f"RandomCrops: size must be >= 16, zoom >= 1 and textures 0 to 1; got {size}, {zoom} and {textures}"
            )
        self.size, self.zoom, self.textures, self.seed = size, zoom, textures, seed
        self.on_skip = on_skip or (lambda message: warnings.warn(message, stacklevel=2))
        self.name, self.left_out = str(source), Counter[str]()
        self.paths: list[Path] | None = None
        if self.name != PREFIX:
            self.paths, self.left_out = _pictures(Path(source))
        self._kept: dict[str, Tensor] = {}
        self._bad: set[str] = set()
        self._lock = threading.Lock()

    def describe(self) -> str:
        """Describe the pictures in one line: how many there are, and what was left out."""
        count = len(SAMPLES) if self.paths is None else len(self.paths)
        pictures = f"{count:,} picture{'' if count == 1 else 's'}" + (", and textures" if self.paths is None else "")
        return printable(f"{self.name.removesuffix(':')}: {pictures}{describe_left_out(self.left_out)}")

    def __getitem__(self, index: int) -> Tensor:
        """Crop ``index`` >= 0, float32 [3, size, size], RGB in [0, 1]."""
        rng = np.random.default_rng((self.seed, index))
        picture = self._draw(rng)
        _, h, w = picture.shape
        least = min(h, w) / self.zoom
        side = min(max(1, round(least * self.zoom ** rng.random())), h, w)
        top, left = int(rng.integers(h - side + 1)), int(rng.integers(w - side + 1))
        crop = picture[:, top : top + side, left : left + side].float() / 255
        crop = F.interpolate(crop[None], [self.size] * 2, mode="bilinear", antialias=True, align_corners=False)[0]
        return crop.flip(2) if rng.random() < 0.5 else crop

    def batches(
        self, batch: int, start: int = 0, workers: int = 2, rank: int = 0, world_size: int = 1
    ) -> Iterator[Tensor]:
        """Endless batches [batch, 3, size, size] from number ``start`` on; threads prepare the next ones.

        Of several processes, ``world_size``, each takes the crops ``rank``, ``rank + world_size``, ... of every batch.
        """
        with ThreadPoolExecutor(max(1, workers)) as pool:

            def ask(number: int) -> Iterator[Tensor]:
                return pool.map(self.__getitem__, range(number * batch + rank, (number + 1) * batch, world_size))

            ready = ask(start)
            while True:
                start += 1
                coming = ask(start)
                yield torch.stack(list(ready))
                ready = coming

    def _draw(self, rng: np.random.Generator) -> Tensor:
        """A random readable picture, uint8 [3, H, W]."""
        if self.paths is None:
            if rng.random() < self.textures:
                seed = int(rng.integers(TEXTURES))
                return self._keep(f"texture {seed}", lambda: procedural_texture(seed))
            sample = sorted(SAMPLES.values())[rng.integers(len(SAMPLES))]
            return self._keep(sample, lambda: load_sample(sample))
        while len(self._bad) < len(self.paths):
            path = self.paths[rng.integers(len(self.paths))]
            if str(path) in self._bad:
                continue
            try:
                return self._keep(str(path), functools.partial(_read, path))
            except (OSError, DataError) as error:
                with self._lock:
                    known, self._bad = str(path) in self._bad, self._bad | {str(path)}
                if not known:
                    self.on_skip(f"passed over: {error}")
        raise DataError("none of the pictures to train on can be read")

    def _keep(self, name: str, read: Callable[[], Tensor]) -> Tensor:
        if name in self._kept:
            return self._kept[name]
        picture = read()
        shorter, wanted = min(picture.shape[1:]), round(self.zoom * self.size)
        if shorter > wanted:
            size = [max(wanted, round(side * wanted / shorter)) for side in picture.shape[1:]]
            smaller = F.interpolate(picture[None].float(), size, mode="bilinear", antialias=True, align_corners=False)
            picture = smaller[0].round().byte()
        with self._lock:
            if sum(kept.numel() for kept in self._kept.values()) + picture.numel() <= CACHE:
                self._kept[name] = picture
        return picture


def _read(path: Path) -> Tensor:
    picture = read_picture(path)
    return (fill_hidden(picture.pixels, picture.alpha) * 255).round().byte()


def _pictures(folder: Path) -> tuple[list[Path], Counter[str]]:
    """The pictures of a folder, and how many files of each kind are left out."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of pictures")
    with reading(str(folder)):
        listing = list_folder(folder)
    names = listing.pictures()
    left_out = listing.count_rest(names)
    if not names:
        raise DataError(f"{folder}: no pictures in it{describe_left_out(left_out)}")
    return [folder / name for name in names], left_out
