"""Adaptive instance normalization: an image's channels are given other means and standard deviations."""

from __future__ import annotations

from torch import Tensor


def mean_std(x: Tensor, eps: float, unbiased: bool) -> tuple[Tensor, Tensor]:
    """(mean, sqrt(variance + eps)) of the planes of x [N, C, H, W], each [N, C]."""
    pixels = x.shape[2] * x.shape[3]
    mean = x.mean([2, 3])
    # centered first: torch.var's gradient of the second order cancels badly in float32
    variance = (x - mean[:, :, None, None]).square().sum([2, 3]) / (pixels - int(unbiased))
    return mean, (variance + eps).sqrt()


def adaptive_instance_norm(x: Tensor, scale: Tensor, bias: Tensor, eps: float, unbiased: bool) -> Tensor:
    """``scale * (x - mean) / sqrt(variance + eps) + bias``; x [N, C, H, W], scale and bias [N, C]."""
    mean, std = (t[:, :, None, None] for t in mean_std(x, eps, unbiased))
    return scale[:, :, None, None] * ((x - mean) / std) + bias[:, :, None, None]
