"""What every dataset is: square 8-bit pictures with an integer class each, or none."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ._images import MODES


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Pictures as uint8 [channels, resolution, resolution] with their class (0 where there are no classes).

    Args:
        name: what to call it in messages.
        resolution: side of the pictures in pixels, a power of two from 4 on.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        mirror: whether each picture also appears flipped left to right, as a second half of the set.

    Attributes:
        labels: the class of each picture before mirroring, int64 [count]; None where there are none.
        class_names: a name for each class; empty where there are no classes.

    Raises:
        ValueError: a resolution or number of channels that is not allowed.
    """

    labels: Tensor | None = None
    class_names: tuple[str, ...] = ()

    def __init__(self, name: str, resolution: int, channels: int = 3, mirror: bool = False) -> None:
        if resolution < 4 or resolution & (resolution - 1):
            raise ValueError(f"resolution must be a power of two, at least 4; got {resolution}")
        if channels not in MODES:
            raise ValueError(f"channels must be one of {', '.join(map(str, MODES))}; got {channels}")
        self.name, self.resolution, self.channels, self.mirror = name, resolution, channels, mirror

    def picture(self, index: int) -> Tensor:
        """The picture at ``index`` < ``count``, before mirroring."""
        raise NotImplementedError

    @property
    def count(self) -> int:
        """How many pictures there are before mirroring."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.count * (1 + self.mirror)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        flip, index = divmod(index, self.count)
        picture = self.picture(index)
        return picture.flip(2) if flip else picture, 0 if self.labels is None else int(self.labels[index])

    def first_of_class(self, label: int, number: int) -> Tensor:
        """The first ``number`` pictures of a class, uint8 [number, C, R, R]; repeats where it has fewer."""
        indices = range(self.count) if self.labels is None else (self.labels == label).nonzero()[:, 0].tolist()
        return torch.stack([self.picture(indices[i % len(indices)]) for i in range(number)])
