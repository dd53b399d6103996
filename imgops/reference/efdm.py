"""Exact feature distribution matching: an image's channels are given the values of another's, by rank."""

from __future__ import annotations

import torch
from torch import Tensor


def positions(count: int, pixels: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Where the quantiles (j + 0.5) / pixels of ``count`` sorted values lie: between which two, and how far along.

    The places are whole numbers of 1 / (2 * pixels), so that none is rounded.
    """
    at = ((2 * torch.arange(pixels, device=device) + 1) * count - pixels).clamp(min=0)
    low = at // (2 * pixels)
    # above the largest value there is none
    between = torch.where(low == count - 1, 0, at - low * (2 * pixels))
    return low, low + (between > 0), between.to(dtype) / (2 * pixels)


def quantiles(values: Tensor, pixels: int) -> Tensor:
    """The quantiles (j + 0.5) / pixels, j < pixels, of sorted values [..., count], linear between them."""
    low, high, along = positions(values.shape[-1], pixels, values.device, values.dtype)
    below, above = values[..., low], values[..., high]
    # next to an infinity 0 times the difference is NaN
    return torch.where(along > 0, below + along * (above - below), below)


def efdm(x: Tensor, y: Tensor, alpha: float) -> Tensor:
    """``alpha * m + (1 - alpha) * x``; the pixels of m are by rank y's quantiles, and the gradient for x is 1."""
    flat = x.flatten(2)
    ranks = flat.argsort(dim=-1, stable=True).argsort(-1)
    by_rank = quantiles(y.flatten(2).sort(dim=-1, stable=True).values, flat.shape[2])
    matched = by_rank.expand(flat.shape).gather(2, ranks)
    constant = flat.detach()
    return (alpha * matched + (1 - alpha) * constant + (flat - constant)).view_as(x)
