"""The order of the pictures: a new shuffle each epoch, determined by the seed and the position alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class EndlessSampler(Sampler[int]):
    """Indices below ``count`` without end, shuffled anew each epoch; the same from ``start`` on after a resume.

    Args:
        count: length of the dataset.
        seed: seeds each epoch's shuffle, together with the epoch.
        start: how many indices to skip.
    """

    def __init__(self, count: int, seed: int = 0, start: int = 0) -> None:
        self.count, self.seed, self.start = count, seed, start

    def __iter__(self) -> Iterator[int]:
        epoch, position = divmod(self.start, self.count)
        while True:
            # NumPy accepts a pair as a seed, so the epochs of different seeds never share a shuffle
            yield from np.random.default_rng((self.seed, epoch)).permutation(self.count)[position:].tolist()
            epoch, position = epoch + 1, 0
