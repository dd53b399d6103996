"""The base of every dataset: 8-bit pictures of one shape, each with an integer class, or all without."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..._settings import PICTURES, Resolution, shape_of
from .._errors import printable
from ..pictures.conversion import MODES
from .listing import describe_left_out

#: number of classes that a description names
_CLASSES = 10


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Pictures as uint8 [channels, height, width] with their class (0 where there are no classes).

    Args:
        name: of the dataset, for messages.
        resolution: side of the pictures in pixels, or their height and width: 4 to 4096 px that halve together until
            the shorter is at most 16, such as 64, or (48, 64).
        channels: 1 (gray), 3 (RGB) or 4 (RGBA).
        mirror: whether each picture also appears flipped left to right, as a second half of the set.

    Attributes:
        height, width: of the pictures in pixels.
        labels: the class of each picture before mirroring, int64 [count]; None where there are none.
        class_names: a name for each class; empty where there are no classes.
        left_out: how many files of each other kind are not used.

    Raises:
        ValueError: a resolution or number of channels that is not allowed.
    """

    labels: Tensor | None = None
    class_names: tuple[str, ...] = ()
    left_out: Mapping[str, int] = MappingProxyType({})

    def __init__(self, name: str, resolution: Resolution, channels: int = 3, mirror: bool = False) -> None:
        PICTURES.check("resolution", resolution)
        if channels not in MODES:
            raise ValueError(f"channels must be one of {', '.join(map(str, MODES))}; got {channels}")
        self.name, self.resolution, self.channels, self.mirror = name, resolution, channels, mirror
        self.height, self.width = shape_of(resolution)

    def picture(self, index: int) -> Tensor:
        """The picture at ``index`` < ``count``, before mirroring."""
        raise NotImplementedError

    @property
    def count(self) -> int:
        """How many pictures there are before mirroring."""
        raise NotImplementedError

    def content_hash(self) -> str:
        """SHA-256 that tells pictures of other content, resolution or channels; names, classes and mirroring do not
        count. A dataset that can tell without decoding its pictures does so."""
        digest = hashlib.sha256(f"{self.resolution} {self.channels} {self.count}".encode())
        for index in range(self.count):
            digest.update(self.picture(index).numpy().tobytes())
        return digest.hexdigest()

    def describe(self) -> str:
        """Describe the dataset in one line: the number of pictures, their classes, and what was left out.

        >>> open_dataset("samples:textures", 8, mirror=True).describe()
        'samples:textures: 32,768 pictures, each mirrored as well; classes: brick, gravel, retina, wood'
        """
        count, kinds = self.count, self.class_names
        mirrored = ", each mirrored as well" if self.mirror else ""
        named = ", ".join(kinds[:_CLASSES]) + (f", ... ({len(kinds):,} in all)" if len(kinds) > _CLASSES else "")
        pictures = f"{count:,} picture{'' if count == 1 else 's'}{mirrored}; classes: {named or 'none'}"
        return printable(f"{self.name}: {pictures}{describe_left_out(self.left_out)}")

    def __len__(self) -> int:
        return self.count * (1 + self.mirror)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        flip, index = divmod(index, self.count)
        picture = self.picture(index)
        return picture.flip(2) if flip else picture, 0 if self.labels is None else int(self.labels[index])

    def first_of_class(self, label: int, number: int) -> Tensor:
        """The first ``number`` pictures of a class, uint8 [number, C, H, W], repeated if the class has fewer."""
        indices = range(self.count) if self.labels is None else (self.labels == label).nonzero()[:, 0].tolist()
        return torch.stack([self.picture(indices[i % len(indices)]) for i in range(number)])
