"""Reference of ``nearest_neighbor``, for x [N, C, Q] and y [N or 1, C, K] in the accumulation dtype."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(x: Tensor) -> tuple[Tensor, Tensor]:
    """The vectors of x [N, C, P] scaled to length 1, and [N, 1, P] the reciprocals of their lengths.

    A vector of zeros stays zero, with a reciprocal and a gradient of 0; one that holds a NaN or an infinity is NaN.
    """
    # divided by the largest value first, so that no square overflows or vanishes
    largest = x.detach().abs().amax(1, keepdim=True)
    largest = torch.where(largest > 0, largest, 1)
    scaled = x / largest
    square = scaled.square().sum(1, keepdim=True)
    reciprocal = torch.where(square == 0, 1, square).rsqrt() * (square != 0)
    return scaled * reciprocal, reciprocal / largest


def nearest_neighbor(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(the largest cosine [N, Q] of each vector of x with those of y, the first index that has it)."""
    similarity = torch.matmul(unit(x)[0].mT, unit(y)[0])
    nearest = similarity.max(2)
    return nearest.values, nearest.indices
