"""What the encoder that ships with the package is trained on: strongly changed crops of free pictures and textures."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..data.datasets.listing import list_folder
from ..data.datasets.sample_set import SAMPLE_SETS
from ..data.datasets.textures import procedural_texture
from ..data.pictures import read_picture, resize_picture
from ..data.pictures.samples import load_sample
from ..training._data import DataRecord, RunData, check_apart
from ..training.grid import COLUMNS, ROWS, image_grid
from ..training.processes import Processes
from ._network_recipe import image_bytes
from .encoder_config import EncoderConfig

#: side in pixels of a crop to test with, and of the place in a picture that the crops of one class are taken from
CROP, PLACE = 48, 160
#: numbers of procedural textures to train on and to test on; the seeds of the test textures follow the others
TEXTURES, TEST_TEXTURES = 256, 128
#: share of the height of every sample, at the bottom, that is kept for tests
HELD_OUT = 0.3
#: a place whose pixels have a smaller standard deviation shows too little to be a class
FLAT = 0.05
#: the folders of docs/training_pictures.py that are trained on
FOLDERS = {"contents": ("contents",), "styles": ("styles", "patterns"), "stamps": ("stamps",)}
#: how much of the crops these get, and samples and textures
SHARES = {"contents": 0.3, "styles": 0.2, "stamps": 0.2, "samples": 0.15, "textures": 0.15}
#: the share of crops that another one is blended with
BLENDED = 0.3


class Source(NamedTuple):
    """A picture and its halves, quarters, ...: float [3, H, W] in [0, 1]; and the part that crops are taken from."""

    pyramid: list[Tensor]
    #: left, top, right, bottom in pixels
    part: tuple[int, int, int, int]


def _source(pixels: Tensor, part: tuple[int, int, int, int] | None = None, side: int = CROP) -> Source:
    pyramid = [pixels.float() / 255]
    while len(pyramid) < 4 and min(pyramid[-1].shape[1:]) >= 2 * side:
        pyramid.append(F.avg_pool2d(pyramid[-1], 2))
    return Source(pyramid, part or (0, 0, pixels.shape[2], pixels.shape[1]))


def sources(pictures: Path, side: int) -> dict[str, list[Source]]:
    """What is trained on, by the key of :data:`SHARES`.

    Args:
        pictures: the folder that docs/training_pictures.py fills.
        side: of the crops that will be taken, in pixels.

    Raises:
        OSError: one of its folders is missing.
    """
    found = {}
    for share, folders in FOLDERS.items():
        paths = [pictures / folder / name for folder in folders for name in _pictures(pictures / folder)]
        paths.sort(key=lambda path: path.name)
        found[share] = [_source(_before_texture(path, i), side=side) for i, path in enumerate(paths)]
    samples = [load_sample(function) for function in _samples()]
    tops = [(0, 0, pixels.shape[2], int(pixels.shape[1] * (1 - HELD_OUT))) for pixels in samples]
    found["samples"] = [_source(pixels, top, side) for pixels, top in zip(samples, tops, strict=True)]
    found["textures"] = [_source(procedural_texture(i), side=side) for i in range(TEXTURES)]
    return found


def _pictures(folder: Path) -> list[str]:
    return list_folder(folder).pictures()


def held_out_sources() -> list[Source]:
    """What is tested on: the parts of the samples, and the textures, that are not trained on."""
    found = []
    for function in _samples():
        pixels = load_sample(function)
        _, h, w = pixels.shape
        places = [(left, int(h * (1 - HELD_OUT)), min(left + PLACE, w), h) for left in range(0, w - PLACE // 2, PLACE)]
        found += [_source(pixels, place) for place in places if _is_seen(pixels, place)]
    return found + [_source(procedural_texture(TEXTURES + i)) for i in range(TEST_TEXTURES)]


def _samples() -> list[str]:
    """The functions of scikit-image whose pictures are used."""
    return sorted({picture.function for pictures in SAMPLE_SETS.values() for picture in pictures} | {"grass"})


def _before_texture(path: Path, number: int) -> Tensor:
    """A picture's pixels, uint8 [3, H, W]; what is transparent shows a procedural texture."""
    picture = read_picture(path)
    pixels = picture.pixels
    if picture.alpha is not None:
        ground = resize_picture(procedural_texture(number).float() / 255, max(pixels.shape[1:]))
        ground = ground[:, : pixels.shape[1], : pixels.shape[2]]
        pixels = torch.lerp(ground, pixels, picture.alpha)
    return (pixels.clamp(0, 1) * 255).round().byte()


def _is_seen(pixels: Tensor, place: tuple[int, int, int, int]) -> bool:
    left, top, right, bottom = place
    return float(pixels[:, top:bottom, left:right].float().std((1, 2)).mean()) / 255 > FLAT


def crops(source: Source, n: int, rng: np.random.Generator, side: int = CROP, strong: bool = True) -> Tensor:
    """Random crops of a source, [n, 3, side, side] in [0, 1]: turned, scaled, mirrored, stretched; and, if ``strong``,
    of any size up to the whole of it, in other colors, blurred and with noise."""
    left, top, right, bottom = source.part
    # pixels of the source per pixel of the crop
    most = min(right - left, bottom - top) / side
    scale = np.exp(rng.uniform(np.log(0.7), np.log(max(1.7, most)), n)) if strong else np.exp(rng.uniform(-0.2, 0.4, n))
    scale = np.minimum(scale, most * 1.2)
    level = min(int(np.log2(max(1.0, float(np.median(scale))))), len(source.pyramid) - 1)
    image = source.pyramid[level]
    angle = rng.uniform(-0.5, 0.5, n) if strong else rng.uniform(-0.2, 0.2, n)
    stretch = np.exp(rng.uniform(-0.2, 0.2, n)) if strong else np.ones(n)
    half = side / 2 * scale
    cx = rng.uniform(np.minimum(left + half, (left + right) / 2), np.maximum(right - half, (left + right) / 2))
    cy = rng.uniform(np.minimum(top + half, (top + bottom) / 2), np.maximum(bottom - half, (top + bottom) / 2))
    _, h, w = source.pyramid[0].shape
    mirror = rng.choice([-1.0, 1.0], n) if strong else np.ones(n)
    cos, sin = np.cos(angle), np.sin(angle)
    rows = np.stack(
        [
            np.stack([mirror * cos * half * stretch / w * 2, -sin * half / w * 2, cx / w * 2 - 1], 1),
            np.stack([mirror * sin * half * stretch / h * 2, cos * half / h * 2, cy / h * 2 - 1], 1),
        ],
        1,
    )
    grid = F.affine_grid(torch.from_numpy(rows).float(), [n, 3, side, side], align_corners=False)
    x = F.grid_sample(image.expand(n, -1, -1, -1), grid, padding_mode="reflection", align_corners=False)
    return _recolored(x, rng) if strong else x


def _recolored(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Random changes of contrast and brightness, channels mixed, some pictures gray, some blurred, with noise added."""
    n = len(x)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (n, *shape))).float()

    mix = torch.eye(3) * 0.8 + draw(-0.2, 0.3, 3, 3)
    gray = (draw(0, 1, 1, 1) < 0.15).float()
    mix = gray / 3 + (1 - gray) * mix
    mean = x.mean((2, 3), keepdim=True)
    x = torch.einsum("nij,njhw->nihw", mix, x - mean) * draw(0.6, 1.5, 1, 1, 1)
    x = x + mean + draw(-0.15, 0.15, 3, 1, 1)
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)
    x = torch.where(draw(0, 1, 1, 1, 1) < 0.25, blurred, x)
    noise = torch.from_numpy(rng.standard_normal(x.shape, np.float32)) * draw(0, 0.05, 1, 1, 1)
    return (x + noise).clamp(0, 1)


class Views(RunData):
    """Crops of all kinds of sources, some of them blends of two, each from random numbers of its own.

    Args:
        config: of the run.

    Raises:
        OSError: a folder is missing.
    """

    def __init__(self, config: EncoderConfig) -> None:
        check_apart(config.out, config.data)
        self.config, self.sources = config, sources(Path(config.data), config.resolution)
        self.shares = [share for share in SHARES if self.sources[share]]

    def view(self, number: int, kind: int = 0) -> Tensor:
        """View ``number`` [3, side, side] in [0, 1]; those of another ``kind`` are others."""
        rng = np.random.default_rng((self.config.seed, kind, number))
        x = self._crop(rng)
        return torch.lerp(x, self._crop(rng), rng.uniform(0, 0.5)) if rng.uniform() < BLENDED else x

    def _crop(self, rng: np.random.Generator) -> Tensor:
        weights = np.array([SHARES[share] for share in self.shares])
        places = self.sources[self.shares[rng.choice(len(weights), p=weights / weights.sum())]]
        return crops(places[rng.integers(len(places))], 1, rng, self.config.resolution)[0]

    def describe(self) -> str:
        """How many pictures of each kind there are."""
        counts = ", ".join(f"{len(places):,} {share}" for share, places in self.sources.items())
        return f"{self.config.data}: {counts}"

    def record(self) -> DataRecord:
        """The names of the files of the folders."""
        folder = Path(self.config.data)
        names = [
            f"{name}/{picture}" for names in FOLDERS.values() for name in names for picture in _pictures(folder / name)
        ]
        return DataRecord(len(names), names, None, [])

    def batches(self, start: int, processes: Processes) -> Iterator[tuple[Tensor, ...]]:
        """float32 [n, 3, side, side]; threads make the next ones."""
        size = self.config.batch
        with ThreadPoolExecutor(max(1, self.config.workers)) as pool:

            def ask(first: int) -> Iterator[Tensor]:
                return pool.map(self.view, range(first + processes.rank, first + size, processes.count))

            ready = ask(start)
            while True:
                start += size
                coming = ask(start)
                yield (torch.stack(list(ready)),)
                ready = coming

    def imagined(self, count: int) -> tuple[Tensor, ...]:
        """Random pixels."""
        return (torch.rand(count, 3, self.config.resolution, self.config.resolution),)

    def sheet(self) -> Image.Image:
        """The first views."""
        return image_grid(image_bytes(torch.stack([self.view(i) for i in range(COLUMNS * ROWS)])), COLUMNS)
