"""Losses on pictures and on the features of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..ops._common import accumulation_dtype
from ..ops.style_loss import REDUCTIONS
from ._checks import check_choice, smaller_than
from .features import Features

#: how features, or neighboring pixels, are compared
DISTANCES = ("l1", "l2")


class ContentLoss(nn.Module):
    """Mean squared difference between features and those of a content picture (Gatys et al. 2016).

    Args:
        content: features [N or 1, C, H, W], which are kept.
        reduction: "mean", "sum" or "none". Default "mean".

    Shapes: x [N, C, H, W] -> a scalar, or [N] for the reduction "none", the mean of each, in float32 for features in
    half precision; target, a buffer.

    Raises:
        ValueError: an unknown reduction; in the forward, features of another size.

    >>> loss = ContentLoss(torch.zeros(1, 8, 4, 4))
    >>> loss(torch.ones(2, 8, 4, 4))
    tensor(1.)
    """

    target: Tensor

    def __init__(self, content: Tensor, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = check_choice(type(self).__name__, "reduction", reduction, REDUCTIONS)
        self.register_buffer("target", content.detach())

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.target.shape[1:] or self.target.shape[0] not in (1, x.shape[0]):
            raise ValueError(f"ContentLoss: x has shape {tuple(x.shape)}, the content {tuple(self.target.shape)}")
        target = self.target.expand_as(x)
        if self.reduction == "none":
            return _compare("l2", x, target, reduction="none").flatten(1).mean(1)
        return _compare("l2", x, target, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class TotalVariation(nn.Module):
    """How much neighboring pixels differ (Rudin et al. 1992); minimizing it smooths a picture.

    The mean over all pixels that have a right neighbor, plus the mean over all that have a lower neighbor.

    Args:
        distance: "l2", of squared differences, or "l1", of absolute ones. Default "l2".

    Shapes: x [N, C, H, W] of at least 2 x 2 pixels -> a scalar, in float32 for pictures in half precision.

    Raises:
        ValueError: an unknown distance; in the forward, a picture without neighbors.

    >>> TotalVariation("l1")(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]))
    tensor(1.)
    """

    def __init__(self, distance: str = "l2") -> None:
        super().__init__()
        self.distance = check_choice(type(self).__name__, "distance", distance, DISTANCES)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or smaller_than(x, 2):
            raise ValueError(f"TotalVariation: x must be [N, C, H, W] of at least 2 x 2 pixels; got {tuple(x.shape)}")
        horizontal = _compare(self.distance, x[..., 1:], x[..., :-1])
        return horizontal + _compare(self.distance, x[..., 1:, :], x[..., :-1, :])

    def extra_repr(self) -> str:
        return f"distance={self.distance!r}"


class PerceptualLoss(nn.Module):
    """Weighted differences between the features of two pictures at named layers of a network (Johnson et al. 2016).

    Args:
        network: any module that takes pictures. The loss does not train it: freeze it if it must not change.
        layers: names of its layers, each with weight 1, or a weight for each; see :class:`Features`.
        distance: "l1" or "l2", the mean absolute or squared difference of each layer. Default "l2".

    Shapes: x and target, pictures of one shape -> a scalar, in float32 for pictures in half precision.

    Raises:
        ValueError: an unknown distance or layer; in the forward, pictures of two shapes.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> loss = PerceptualLoss(network, {"1": 1.0, "2": 0.5}, "l1")
    >>> picture = torch.rand(2, 3, 16, 16)
    >>> loss(picture, picture).item()
    0.0
    """

    def __init__(self, network: nn.Module, layers: Sequence[str] | Mapping[str, float], distance: str = "l2") -> None:
        super().__init__()
        self.distance = check_choice(type(self).__name__, "distance", distance, DISTANCES)
        self.weights = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers, 1.0)
        self.features = Features(network, list(self.weights))

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        if x.shape != target.shape:
            raise ValueError(f"PerceptualLoss: x has shape {tuple(x.shape)}, the target {tuple(target.shape)}")
        ours, theirs = self.features(x), self.features(target)
        parts = (weight * _compare(self.distance, ours[name], theirs[name]) for name, weight in self.weights.items())
        return sum(parts, x.new_zeros(()))

    def extra_repr(self) -> str:
        return f"distance={self.distance!r}, weights={self.weights}"


def _compare(distance: str, x: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The distance in float32 at least: the square of a difference above 255 is infinite in float16."""
    compare = {"l1": F.l1_loss, "l2": F.mse_loss}[distance]
    dtype = accumulation_dtype(x.dtype)
    return compare(x.to(dtype), target.to(dtype), reduction=reduction)
