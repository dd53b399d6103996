"""How far the style of features is from a target's, by statistics that add up over the tiles of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..ops.gram_matrix import gram_matrix

#: variance added in every direction, as a share of the target's mean variance
_LEAST_VARIANCE = 1e-4


class GramStyle(NamedTuple):
    """A style by its Gram matrix (Gatys et al. 2016).

    ``energy`` [C, C] is that of the target divided by its pixels, n those of the picture, G the picture's sums of
    products. The normalizations are, by name:

    - "relative": ``sum (G / n - energy)^2 / sum energy^2``, which means the same with every encoder;
    - "chw": ``mean ((G / n - energy) / C)^2`` (Johnson et al. 2016);
    - "hw": ``mean (G / n - energy)^2``;
    - "none": ``mean (G - n energy)^2``;
    - "gatys": ``sum (G / n - energy)^2 / (4 C^2)``, 1 / (4 N^2 M^2) in the paper's letters.
    """

    energy: Tensor
    normalization: str = "relative"

    def measure(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[C, C] sums of products of features [1, C, H, W], each pixel counted as much as mask [1, 1, H, W] says."""
        return _products(x, mask)

    def loss(self, measured: Tensor, count: Tensor) -> Tensor:
        """The loss of what all tiles measured, over ``count`` pixels."""
        difference, c = measured / count - self.energy, len(self.energy)
        if self.normalization == "relative":
            return difference.square().sum() / self.energy.square().sum().clamp(min=_TINY)
        if self.normalization == "gatys":
            return difference.square().sum() / (4 * c**2)
        if self.normalization == "none":
            difference = count * difference
        elif self.normalization == "chw":
            difference = difference / c
        return difference.square().mean()


class GaussianStyle(NamedTuple):
    """A style by the mean [C] and covariance [C, C] of its features; the loss is the squared Wasserstein-2 distance of
    the two Gaussians (Dowson and Landau 1982), divided by the target's mean square if ``relative``.

    Unlike :func:`imgops.wasserstein_loss`, of statistics that may come from tiles, and differentiable once.
    """

    mean: Tensor
    covariance: Tensor
    #: of the covariance, after the least variance was added
    root: Tensor
    relative: bool = True

    def measure(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[C, C + 1]: sums of products of the deviations of features [1, C, H, W] from the target's mean, and sums."""
        return _moments(x, mask, self.mean)

    def loss(self, measured: Tensor, count: Tensor) -> Tensor:
        """The loss of what all tiles measured, over ``count`` pixels."""
        # roots of a nearly singular covariance take float64
        moments = measured.double() / count.double()
        mean = moments[:, -1]
        least = _least_variance(self.covariance)
        covariance = moments[:, :-1] - mean.outer(mean) + least
        # a trace of a root is the sum of the roots of the eigenvalues, whose gradient divides by no differences
        values = torch.linalg.eigvalsh(self.root @ covariance @ self.root).clamp(min=_TINY)
        variances = covariance.trace() + (self.covariance + least).trace() - 2 * values.sqrt().sum()
        distance = mean.square().sum() + variances
        if self.relative:
            distance = distance / (self.mean.double().square().sum() + self.covariance.trace()).clamp(min=_TINY)
        return distance.to(measured.dtype)


Style = GramStyle | GaussianStyle
_TINY = 1e-30


class StyleSums:
    """The statistics of a picture's style, summed over its tiles.

    Args:
        kind: one of :data:`~imgops.style.settings.STYLE_LOSSES`.
        normalization: one of :data:`~imgops.style.settings.NORMALIZATIONS`.
    """

    def __init__(self, kind: str, normalization: str) -> None:
        self.kind, self.normalization = kind, normalization
        self.pivot: Tensor | None = None
        self.sums: Tensor | None = None
        self.pixels: Tensor | None = None

    def add(self, x: Tensor, mask: Tensor | None) -> None:
        """Features [1, C, H, W] of a tile, and a mask [1, 1, H, W] in [0, 1] of what counts of them, or None."""
        if self.pivot is None:
            # about any pivot near the mean the covariance keeps its digits
            self.pivot = x.mean((0, 2, 3))
        # the sums of half-precision features are in float32
        sums = (_products(x, mask) if self.kind == "gram" else _moments(x, mask, self.pivot)).double()
        pixels = pixels_of(x, mask)
        self.sums = sums if self.sums is None else self.sums + sums
        self.pixels = pixels if self.pixels is None else self.pixels + pixels

    def style(self) -> Style:
        """The style of all that was added."""
        if self.sums is None or self.pixels is None or self.pivot is None:
            raise ValueError("StyleSums: nothing was added")
        means = self.sums / self.pixels.clamp(min=1e-6).double()
        if self.kind == "gram":
            return GramStyle(means.to(self.pixels.dtype), self.normalization)
        mean = means[:, -1]
        covariance = means[:, :-1] - mean.outer(mean)
        return gaussian_style(self.pivot + mean.to(self.pivot.dtype), covariance, self.normalization == "relative")


def gaussian_style(mean: Tensor, covariance: Tensor, relative: bool) -> GaussianStyle:
    """The style of a mean [C] and a covariance [C, C]."""
    covariance = covariance.double()
    values, vectors = torch.linalg.eigh(covariance + _least_variance(covariance))
    return GaussianStyle(mean, covariance, (vectors * values.clamp(min=0).sqrt()) @ vectors.mT, relative)


def mix_styles(styles: Sequence[Style], weights: Sequence[float]) -> Style:
    """The style between others: the mean of their statistics, weighted."""
    shares = [weight / sum(weights) for weight in weights]

    def mix(values: Sequence[Tensor]) -> Tensor:
        return sum((share * value for share, value in zip(shares, values, strict=True)), torch.zeros_like(values[0]))

    grams = [style for style in styles if isinstance(style, GramStyle)]
    if grams:
        return GramStyle(mix([style.energy for style in grams]), grams[0].normalization)
    gaussians = [style for style in styles if isinstance(style, GaussianStyle)]
    mean = mix([style.mean for style in gaussians])
    return gaussian_style(mean, mix([style.covariance for style in gaussians]), gaussians[0].relative)


def smoothed(y: Tensor) -> Tensor:
    """The softmax of a layer [1, C, H, W] over all of its values (Wang et al. 2021), times its positions, so that it is
    of the same size in pictures of any size.

    >>> smoothed(torch.zeros(1, 4, 2, 3)).unique()
    tensor([0.2500])
    """
    return y.flatten(1).softmax(1).view_as(y) * (y.shape[2] * y.shape[3])


def pixels_of(x: Tensor, mask: Tensor | None) -> Tensor:
    """Pixels of features [1, C, H, W], each counted as much as the mask says: a scalar."""
    return x.new_tensor(float(x.shape[2] * x.shape[3])) if mask is None else mask.sum()


def _products(x: Tensor, mask: Tensor | None) -> Tensor:
    return gram_matrix(x if mask is None else x * mask.sqrt(), normalization="none")[0]


def _moments(x: Tensor, mask: Tensor | None, pivot: Tensor) -> Tensor:
    beyond = x - pivot[:, None, None]
    sums = (beyond if mask is None else beyond * mask).sum((0, 2, 3))
    return torch.cat([_products(beyond, mask), sums[:, None]], 1)


def _least_variance(covariance: Tensor) -> Tensor:
    c = len(covariance)
    return torch.eye(c, dtype=covariance.dtype, device=covariance.device) * (
        _LEAST_VARIANCE * covariance.trace() / c + _TINY
    )
