"""Layers that measure the style of features, and losses on it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops._common import accumulation_dtype, check_tensor, without_autocast
from ..ops.efdm import sort_rows
from ..ops.gram_matrix import NORMALIZATIONS, gram_matrix
from ..ops.style_loss import REDUCTIONS, style_loss
from ..reference.efdm import quantiles
from ._checks import check_choice, check_size


class GramMatrix(nn.Module):
    """Products of the channels, summed over the pixels; see :func:`imgops.gram_matrix`.

    Args:
        normalization: "chw", "hw", "nchw" or "none": the sizes that the sums are divided by. Default "chw".

    Shapes: x [N, C, H, W] -> [N, C, C] in float32, float64 where x is.

    Raises:
        ValueError: an unknown normalization; in the forward, what gram_matrix raises.

    >>> GramMatrix()(torch.randn(2, 8, 16, 16)).shape
    torch.Size([2, 8, 8])
    """

    def __init__(self, normalization: str = "chw") -> None:
        super().__init__()
        self.normalization = check_choice(type(self).__name__, "normalization", normalization, NORMALIZATIONS)

    def forward(self, x: Tensor) -> Tensor:
        return gram_matrix(x, normalization=self.normalization)

    def extra_repr(self) -> str:
        return f"normalization={self.normalization!r}"


class StyleLoss(nn.Module):
    """Squared differences between the Gram matrices of features and of a style's; see :func:`imgops.style_loss`.

    Args:
        style: features of the style [N or 1, C, H, W]; only their Gram matrix is kept.
        normalization: "chw", "hw", "nchw" or "none": the sizes that the sums are divided by; with "nchw" N is the
            batch of x for x's sums, that of the style for the style's. Default "chw".
        reduction: "mean", "sum" or "none". Default "mean".

    Shapes: x [N, C, H', W'] -> a scalar, or [N] for the reduction "none"; target [N or 1, C, C], a buffer.

    Raises:
        TypeError, ValueError: an unknown normalization or reduction, what gram_matrix raises; in the forward, what
            style_loss raises.

    >>> loss = StyleLoss(torch.randn(1, 8, 24, 20))
    >>> loss(torch.randn(2, 8, 16, 16)).shape
    torch.Size([])
    """

    target: Tensor

    def __init__(self, style: Tensor, normalization: str = "chw", reduction: str = "mean") -> None:
        super().__init__()
        self.normalization = check_choice(type(self).__name__, "normalization", normalization, NORMALIZATIONS)
        self.reduction = check_choice(type(self).__name__, "reduction", reduction, REDUCTIONS)
        self.register_buffer("target", gram_matrix(style, normalization=normalization).detach())

    def forward(self, x: Tensor) -> Tensor:
        return style_loss(x, self.target, normalization=self.normalization, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"normalization={self.normalization!r}, reduction={self.reduction!r}"


class SlicedWassersteinLoss(nn.Module):
    """How far the distribution of features is from a style's, along random directions (Heitz et al. 2021).

    Features are projected on unit vectors; along each, sorted projections are compared with the quantiles of the
    style's. The loss is the mean squared difference over pixels and directions, an estimate of the squared sliced
    Wasserstein-2 distance. It sees all of a distribution, of which Gram matrices see two moments. The gradient through
    the sort is exact, of any order.

    Args:
        style: features of the style [N or 1, C, H, W] of at least one pixel, which are kept.
        directions: how many, >= 1; None takes C. Default None.
        seed: of the directions, which then stay the same; None draws new ones in each forward, from PyTorch's
            generator. Default None.
        reduction: "mean", "sum" or "none". Default "mean".

    Shapes: x [N, C, H', W'] -> a scalar, or [N] for the reduction "none", in float32 (float64 where x is); target
    [N or 1, C, H, W], a buffer.

    Raises:
        TypeError, ValueError: a style that is no such tensor, directions that are no int >= 1, an unknown reduction; in
            the forward, features that do not fit the style or have no pixel.

    >>> loss = SlicedWassersteinLoss(torch.randn(1, 8, 24, 20))
    >>> loss(torch.randn(2, 8, 16, 16)).shape
    torch.Size([])
    """

    target: Tensor
    fixed: Tensor | None

    def __init__(
        self, style: Tensor, directions: int | None = None, seed: int | None = None, reduction: str = "mean"
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_tensor(f"nn.{name}", "style", style, 4)
        if style.shape[2] * style.shape[3] == 0:
            raise ValueError(f"{name}: style must have at least one pixel; got {tuple(style.shape)}")
        self.directions = check_size(name, "directions", style.shape[1] if directions is None else directions)
        self.seed = seed
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        # no buffer, which a module in half precision would round
        self.fixed = None if seed is None else random_directions(self.directions, style.shape[1], generator)
        self.reduction = check_choice(name, "reduction", reduction, REDUCTIONS)
        self.register_buffer("target", style.detach())

    def forward(self, x: Tensor) -> Tensor:
        n, c = self.target.shape[:2]
        if x.ndim != 4 or x.shape[1] != c or n not in (1, x.shape[0]) or x.shape[2] * x.shape[3] == 0:
            sizes = f"[{'N' if n == 1 else n}, {c}, H, W]"
            raise ValueError(f"{type(self).__name__}: x must be {sizes} with pixels; got {tuple(x.shape)}")
        dtype = accumulation_dtype(x.dtype)
        drawn = random_directions(self.directions, c) if self.fixed is None else self.fixed
        directions = drawn.to(x.device, dtype)
        with without_autocast(x):
            ours, theirs = (directions @ t.flatten(2).to(dtype) for t in (x, self.target))
        ours, theirs = sort_rows(ours)[0], sort_rows(theirs)[0]
        losses = (ours - quantiles(theirs, ours.shape[2])).square().mean([1, 2])
        if self.reduction == "none":
            return losses
        return losses.sum() if self.reduction == "sum" else losses.mean()

    def extra_repr(self) -> str:
        return f"directions={self.directions}, seed={self.seed}, reduction={self.reduction!r}"


def random_directions(count: int, channels: int, generator: torch.Generator | None = None) -> Tensor:
    """Unit vectors [count, channels], float64, uniform on the sphere; drawn on the CPU, so that devices agree."""
    return nn.functional.normalize(torch.randn(count, channels, dtype=torch.float64, generator=generator), dim=1)
