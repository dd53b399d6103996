"""Random numbers that belong to an image of a step, not to the process or the micro-batch that computes it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def seed_of(*parts: object) -> int:
    """A seed, 0 or more and below 2^63, that differs wherever one of the parts does."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Draws:
    """Random numbers of some images, each from a generator of its own, on one device.

    With them N processes do what one does with the same batch, and a run goes on after a stop as if there had been
    none, whatever the number of processes was before.

    Of a seed torch's generator on a CPU takes the low 32 bits alone, so that in a long run streams of images far apart
    are the same now and then, by chance; on a GPU it takes all. NumPy's Philox would take all on a CPU too, but makes
    normal numbers in three times the time.

    Args:
        seeds: one per image.
        device: where the numbers are made; those of a CPU and of a GPU differ.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self.device = device
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def normal(self, count: int) -> Tensor:
        """Standard normal numbers, float32 [images, count]."""
        return self._drawn(torch.randn, count)

    def uniform(self, count: int) -> Tensor:
        """Numbers in [0, 1), float32 [images, count]."""
        return self._drawn(torch.rand, count)

    def _drawn(self, draw: Callable[..., Tensor], count: int) -> Tensor:
        numbers = torch.empty(len(self._generators), count, device=self.device)
        for row, generator in zip(numbers, self._generators, strict=True):
            draw(count, generator=generator, out=row)
        return numbers
