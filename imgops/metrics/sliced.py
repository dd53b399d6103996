"""The sliced Wasserstein distance (Rabin et al. 2011, Bonneel et al. 2015): distances along random directions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..nn._checks import check_size
from ..nn.style import random_directions
from ._checks import as_tensor

#: numbers that a chunk holds at most beside its input: rows that are projected, directions that are sorted
CHUNK = 2**22


def sliced_wasserstein(x: Any, y: Any, *, projections: int = 512, seed: int = 0) -> float:
    """Root of the mean, over random directions, of the squared Wasserstein-2 distance between two sets of features
    projected onto the direction; >= 0.

    Along one direction that distance is exact: the mean square difference of the sorted values, and of sets of unequal
    size that of their quantile functions. It needs no normal distribution, as the Fréchet distance does, and is not
    blind to a difference beyond mean and covariance; its sampling error hardly depends on the number of features.

    Args:
        x, y: features [N, D] and [M, D], tensors or arrays; computed in float64 on the device of x, chunk by chunk.
        projections: number of directions. Default 512.
        seed: decides the directions, the same on every device. Default 0.

    Raises:
        TypeError: no array of real numbers, or a number of projections or a seed that is no int.
        ValueError: unequal D, empty sets, values that are not finite, projections below 1, a seed below 0.

    >>> x = torch.tensor([[0.0], [1.0]])
    >>> sliced_wasserstein(x, x + 3)
    3.0
    """
    x, y = (as_tensor("sliced_wasserstein", name, value, 2) for name, value in (("x", x), ("y", y)))
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"sliced_wasserstein: x and y must have as many features; got {x.shape[1]} and {y.shape[1]}")
    directions = seeded_directions(x.shape[1], projections, seed).to(x.device)
    chunk, total = max(1, CHUNK // (len(x) + len(y))), 0.0
    for part in directions.split(chunk, dim=1):
        sorted_x, sorted_y = (project(values, part).sort(dim=0).values for values in (x, y.to(x.device)))
        total += float(squared_distances(sorted_x, sorted_y).sum())
    return math.sqrt(total / projections)


def seeded_directions(features: int, projections: int, seed: int) -> Tensor:
    """Unit vectors [features, projections], float64 on the CPU, uniform on the sphere.

    Raises:
        TypeError, ValueError: see :func:`sliced_wasserstein`.
    """
    projections = check_size("sliced_wasserstein", "projections", projections)
    seed = check_size("sliced_wasserstein", "seed", seed, 0, 2**63 - 1)
    return random_directions(projections, features, torch.Generator().manual_seed(seed)).T


def project(features: Tensor, directions: Tensor) -> Tensor:
    """Features [N, D] along each direction [D, P], in the directions' dtype: [N, P]."""
    rows = max(1, CHUNK // features.shape[1])
    return torch.cat([part.to(directions.dtype) @ directions for part in features.split(rows)])


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Wasserstein-2 distances [P] between the columns of sorted values [N, P] and [M, P]."""
    n, m = len(x), len(y)
    if n == m:
        return (x - y).square().mean(dim=0)
    # both quantile functions are constant between neighboring multiples of 1 / n or 1 / m, counted here in 1 / (n m)
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    starts = torch.cat([torch.zeros(1, dtype=ends.dtype), ends[:-1]])
    weights = ((ends - starts).double() / (n * m)).to(x)
    i, j = (starts // m).to(x.device), (starts // n).to(x.device)
    return torch.stack([((a[i] - b[j]).square() * weights).sum() for a, b in zip(x.T, y.T, strict=True)])
