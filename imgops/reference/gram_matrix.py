"""References of the ops on the products of channels, for x [N, C, H, W] in the accumulation dtype."""

from __future__ import annotations

import torch
from torch import Tensor


def gram_matrix(x: Tensor, count: int) -> Tensor:
    """``x x^T / count`` over the pixels, [N, C, C]."""
    flat = x.flatten(2)
    return torch.bmm(flat, flat.transpose(1, 2)) / count


def feature_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """(mean [N, C], covariance [N, C, C]) over the pixels; the covariance is that of the population."""
    mean = x.mean([2, 3])
    return mean, gram_matrix(x - mean[:, :, None, None], x.shape[2] * x.shape[3])
