"""Labeled random crops of the free pictures that come with scikit-image: something to train on, offline."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..._settings import Resolution
from .._errors import DataError
from ..pictures.conversion import to_channels, to_tensor
from ..pictures.cropping import Box, largest
from ..pictures.samples import PREFIX, open_sample
from ._labels import label_source
from .base import ImageDataset

#: how many crops of each picture a set has
CROPS = 8192


class SampleClass(NamedTuple):
    """A class of a set: its name, the function of ``skimage.data``, the side of a crop in its pixels, and the part
    (left, top, right, bottom) that crops are taken from; None is the whole picture."""

    name: str
    function: str
    side: int
    part: tuple[int, int, int, int] | None = None


_TEXTURES = (
    SampleClass("brick", "brick", 64),
    SampleClass("gravel", "gravel", 64),
    # the vessels inside the round field of view
    SampleClass("retina", "retina", 256, (300, 300, 1100, 1100)),
    # the table beside the saucer
    SampleClass("wood", "coffee", 64, (484, 0, 600, 400)),
)
#: the pictures of each set
SAMPLE_SETS: dict[str, tuple[SampleClass, ...]] = {
    "textures": _TEXTURES,
    "pictures": (
        SampleClass("astronaut", "astronaut", 256),
        SampleClass("camera", "camera", 256),
        SampleClass("cat", "chelsea", 256),
        SampleClass("coffee", "coffee", 256),
        SampleClass("retina", "retina", 512),
        SampleClass("rocket", "rocket", 256),
        SampleClass("stars", "hubble_deep_field", 256),
    ),
}


class SampleSet(ImageDataset):
    """Random crops of a few pictures, one class per picture; the same for the same seed.

    The longer side of a crop is the one that :class:`SampleClass` gives, or that of the resolution if that is more, but
    as much as the picture has; it is then resized by Lanczos, so that any resolution works.

    Args:
        name: a key of :data:`SAMPLE_SETS`.
        resolution: side in pixels, or height and width, as of :class:`ImageDataset`.
        channels: 1, 3 or 4.
        mirror: double the set by flipping left to right.
        use_labels: "file", or True: a class for each picture; "none", or False: no classes.
        seed: decides where the crops are taken.

    Raises:
        DataError: there is no such set.
        ImportError: scikit-image is not installed.
    """

    def __init__(
        self,
        name: str,
        resolution: Resolution,
        channels: int = 3,
        mirror: bool = False,
        use_labels: bool | str = True,
        seed: int = 0,
    ) -> None:
        super().__init__(PREFIX + name, resolution, channels, mirror)
        if name not in SAMPLE_SETS:
            raise DataError(
                f"{PREFIX}{name}: no such sample set; there are {', '.join(map(PREFIX.__add__, SAMPLE_SETS))}"
            )
        source = label_source(use_labels)
        if source == "folders":
            raise DataError(f"{PREFIX}{name}: a free set has no folders; it has its classes without --labels folders")
        self.pictures, self.seed = SAMPLE_SETS[name], seed
        self._images = [to_channels(open_sample(p.function).crop(p.part), channels, p.function) for p in self.pictures]
        if source == "file":
            self.labels = torch.arange(self.count) % len(self.pictures)
            self.class_names = tuple(p.name for p in self.pictures)

    @property
    def count(self) -> int:
        return CROPS * len(self.pictures)

    def content_hash(self) -> str:
        digest = hashlib.sha256(f"{self.pictures} {self.seed} {CROPS} {self.resolution} {self.channels}".encode())
        for image in self._images:
            digest.update(image.tobytes())
        return digest.hexdigest()

    def picture(self, index: int) -> Tensor:
        which = index % len(self.pictures)
        image = self._images[which]
        longer, wanted = max(self.height, self.width), self.pictures[which].side
        # the longer side of a crop, and no more than fits
        height, width = (max(1, side * max(wanted, longer) // longer) for side in (self.height, self.width))
        if width > image.width or height > image.height:
            width, height = largest(image.size, self.height, self.width)
        # each index has a generator of its own, so that a crop depends on the seed and the index alone
        room = np.subtract(image.size, (width, height))
        left, top = np.random.default_rng((self.seed, index)).integers(0, room + 1).tolist()
        return to_tensor(image, Box(left, top, width, height), self.height, self.width)
