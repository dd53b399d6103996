"""The order of the pictures: a new shuffle each epoch, determined by the seed and the position alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class EndlessSampler(Sampler[int]):
    """Indices below ``count`` without end, shuffled anew each epoch; the same from ``start`` on after a resume.

    Several processes share one sequence: process ``rank`` takes its positions ``start + rank``, ``start + rank +
    world_size`` and so on, so that all of them together see what one process would.

    Args:
        count: length of the dataset.
        seed: seeds each epoch's shuffle, together with the epoch.
        start: how many indices to skip, those of all processes counted.
        rank: number of this process, from 0. Default 0.
        world_size: how many processes there are. Default 1.

    Raises:
        ValueError: a rank that is not one of ``world_size``.
    """

    def __init__(self, count: int, seed: int = 0, start: int = 0, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be 0 to {world_size - 1} of {world_size} processes; got {rank}")
        self.count, self.seed, self.start = count, seed, start
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[int]:
        at = self.start + self.rank
        while True:
            epoch, place = divmod(at, self.count)
            # NumPy accepts a pair as a seed, so the epochs of different seeds never share a shuffle
            mine = np.random.default_rng((self.seed, epoch)).permutation(self.count)[place :: self.world_size].tolist()
            yield from mine
            at += len(mine) * self.world_size
