"""Gives a picture the colors and the sharpness of another, scale by scale."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.pictures import resample
from ..data.pictures.colors import match_covariance

#: how often a picture is halved; each time what is lost is a scale
_HALVINGS = 4
#: the least deviation of a color, and the most that a scale is amplified by along a principal axis of its colors: what
#: is not there is left to be dreamt
_LEAST, _MOST = 1e-6, 1.25


def match_scales(picture: Tensor, target: Tensor) -> Tensor:
    """Map a picture's colors at each scale linearly, so that they get the covariance of the target's at that scale.

    A scale is what a picture of half the size cannot show; the last is what remains of 1/16 of the size. Each is
    amplified by 1.25 at most along each principal axis of its colors. Then the colors as a whole get the target's mean
    and covariance, as by :func:`~imgops.data.match_covariance`.

    Args:
        picture, target: [3, H, W], RGB in [0, 1], of one size.

    Returns:
        [3, H, W] in [0, 1].

    >>> match_scales(torch.rand(3, 20, 30), torch.rand(3, 20, 30)).shape
    torch.Size([3, 20, 30])
    """
    pairs = zip(_scales(picture), _scales(target), strict=True)
    return match_covariance(torch.stack([_matched(ours, theirs) for ours, theirs in pairs]).sum(0), target)


def _scales(picture: Tensor) -> list[Tensor]:
    """What halving takes from a picture each time, and what remains; their sum is the picture."""
    height, width = picture.shape[1:]
    low, scales = picture, []
    for i in range(1, _HALVINGS + 1):
        lower = resample(resample(picture, -(-height // 2**i), -(-width // 2**i)), height, width)
        scales.append(low - lower)
        low = lower
    return [*scales, low]


def _matched(scale: Tensor, target: Tensor) -> Tensor:
    """A scale with the covariance of the target's colors, as far as the amplification allows; its mean stays."""
    covariance, wanted = (torch.cov(x.double().flatten(1), correction=0) for x in (scale, target))
    variances, axes = torch.linalg.eigh(covariance)
    least = ((axes.T @ wanted @ axes).diagonal() / _MOST**2).clamp(min=_LEAST**2)
    whiten = axes / torch.maximum(variances, least).sqrt() @ axes.T
    variances, axes = torch.linalg.eigh(wanted)
    color = axes * variances.clamp(min=0).sqrt() @ axes.T
    mean = scale.mean((1, 2), keepdim=True)
    return torch.einsum("ij,jhw->ihw", (color @ whiten).to(scale), scale - mean) + mean
