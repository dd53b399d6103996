"""How far the style of features is from a target's, by statistics that add up over the tiles of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..nn.style import random_directions
from ..ops.efdm import sort_rows
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


class Directions:
    """Random directions, those of a seed: new ones each time, or always the same."""

    def __init__(self, seed: int, fixed: bool = False) -> None:
        self.seed, self.fixed = seed, fixed
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, like: Tensor) -> Tensor:
        """As many as the features [C, pixels] have channels: [C, C]."""
        if self.fixed:
            self.generator.manual_seed(self.seed)
        return random_directions(len(like), len(like), self.generator).to(like)


class Target(NamedTuple):
    """Features [C, pixels] of a style, how much each pixel counts (None: all alike), and the share among others."""

    features: Tensor
    weights: Tensor | None
    share: float = 1.0


class SlicedStyle(NamedTuple):
    """A style by the distribution of its features; the loss is the squared sliced Wasserstein-2 distance (Heitz et al.
    2021), its mean over random directions, divided by the target's mean square along them if ``relative``.

    Of several targets the quantiles are averaged: along each direction that is their Wasserstein barycenter.
    """

    targets: tuple[Target, ...]
    relative: bool
    directions: Directions

    def measure(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Features [1, C, H, W] as [C, H W]; with a mask [1, 1, H, W] there is a last row of how much each counts."""
        return (x if mask is None else torch.cat([x, mask], 1))[0].flatten(1)

    def loss(self, measured: Tensor, count: Tensor) -> Tensor:
        """The loss of what was measured of the whole picture, over ``count`` pixels."""
        channels = len(self.targets[0].features)
        x, weights = measured[:channels], measured[channels:].flatten() if len(measured) > channels else None
        directions = self.directions.draw(x)
        projected = sort_by_weight(directions @ x, weights)
        wanted = sum(
            target.share * sort_by_weight(directions @ target.features, target.weights).at(projected.places)
            for target in self.targets
        )
        distance = ((projected.values - wanted).square() * projected.shares).sum() / channels
        if self.relative:
            energy = sum(target.share * _mean_square(target) for target in self.targets)
            distance = distance / (energy / channels).clamp(min=_TINY)  # type: ignore[union-attr]
        return distance


class Quantiles(NamedTuple):
    """Sorted rows [R, M], the place in [0, 1] of each value, in the middle of its weight, and its share of all weights,
    [R or 1, M or 1]."""

    values: Tensor
    places: Tensor
    shares: Tensor

    def at(self, places: Tensor) -> Tensor:
        """The values at other places [R or 1, K], linear between two: [R, K]."""
        # rows that share their places are looked up once
        rows, count = max(len(self.places), len(places)), self.values.shape[1]
        own, places = (t.to(self.places).expand(rows, -1).contiguous() for t in (self.places, places))
        above = torch.searchsorted(own, places).clamp(max=count - 1)
        below = (above - 1).clamp(min=0)
        start, end = own.gather(1, below), own.gather(1, above)
        along = ((places - start) / (end - start).clamp(min=_TINY)).clamp(0, 1).to(self.values.dtype)
        low, high = (self.values.gather(1, at.expand(len(self.values), -1)) for at in (below, above))
        return low.lerp(high, along)


def sort_by_weight(rows: Tensor, weights: Tensor | None) -> Quantiles:
    """The quantiles of rows [R, M] whose columns count as much as the weights [M] >= 0 say, not all 0; None: alike."""
    if weights is None:
        count = rows.shape[1]
        places = (torch.arange(count, device=rows.device, dtype=torch.float64) + 0.5)[None] / count
        return Quantiles(sort_rows(rows)[0], places, rows.new_full((1, 1), 1 / count))
    # columns of no weight have no place
    counted = weights > 0
    values, order = sort_rows(rows[:, counted])
    shares = (weights[counted].double() / weights.sum(dtype=torch.float64))[order.long()]
    return Quantiles(values, shares.cumsum(1) - shares / 2, shares.to(rows.dtype))


def _mean_square(target: Target) -> Tensor:
    squares = target.features.square().sum(0)
    return squares.mean() if target.weights is None else (squares * target.weights).sum() / target.weights.sum()


Style = GramStyle | GaussianStyle | SlicedStyle
_TINY = 1e-30


class StyleSums:
    """The statistics of a picture's style, summed over its tiles; the kind "sliced" has a single one.

    Args:
        kind: one of :data:`~imgops.style.settings.STYLE_LOSSES`.
        normalization: one of :data:`~imgops.style.settings.NORMALIZATIONS`.
        directions: of the kind "sliced".
    """

    def __init__(self, kind: str, normalization: str, directions: Directions | None = None) -> None:
        self.kind, self.normalization, self.directions = kind, normalization, directions
        self.target: Target | None = None
        self.pivot: Tensor | None = None
        self.sums: Tensor | None = None
        self.pixels: Tensor | None = None

    def add(self, x: Tensor, mask: Tensor | None) -> None:
        """Features [1, C, H, W] of a tile, and a mask [1, 1, H, W] in [0, 1] of what counts of them, or None."""
        if self.kind == "sliced":
            weights = None if mask is None or not mask.any() else mask.flatten()
            # a view would keep the features of the margins in memory
            self.target = Target(x[0].flatten(1).clone(), weights)
            return
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
        if self.target is not None and self.directions is not None:
            return SlicedStyle((self.target,), self.normalization == "relative", self.directions)
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

    sliced = [style for style in styles if isinstance(style, SlicedStyle)]
    if sliced:
        pairs = zip(sliced, shares, strict=True)
        targets = (target._replace(share=share * target.share) for one, share in pairs for target in one.targets)
        return sliced[0]._replace(targets=tuple(targets))
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
