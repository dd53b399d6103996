"""A batch in the parts that are computed at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._draws import Draws
from ._base import Moment


class Part(NamedTuple):
    """Images that are computed at once: real ones [n, C, H, W], their labels [n, c_dim] or None, their numbers."""

    real: Tensor
    c: Tensor | None
    images: Sequence[int]
    moment: Moment

    def draws(self, phase: str, shrink: int = 1) -> Draws:
        """Random numbers for a phase, each image's own; of the first images alone, as many as 1 / ``shrink``."""
        images = self.images[: max(1, len(self.images) // shrink)]
        return self.moment.draws(phase, images, self.real.device)


def parts_of(recipe: Any, real: Tensor, labels: Tensor, moment: Moment) -> list[Part]:
    """A process's share of the batch in the parts that are computed at once, values from -1 to 1.

    Every k-th image is of the same part, so that the groups of the minibatch standard deviation are those that the
    whole batch would have.
    """
    x = real.to(recipe.device, non_blocking=True).float() / 127.5 - 1
    c = None
    if recipe.labels is not None:
        c = one_hot(labels.to(recipe.device, non_blocking=True), recipe.c_dim)
    count = len(x) // recipe.config.chunk_of(recipe.processes.count)
    return [
        Part(x[k::count], None if c is None else c[k::count], list(moment.images[k::count]), moment)
        for k in range(count)
    ]


def one_hot(labels: Tensor, c_dim: int) -> Tensor:
    """Labels [n] as [n, c_dim]; torch's own waits for the device, to look at the largest label."""
    return (labels[:, None] == torch.arange(c_dim, device=labels.device)).float()
