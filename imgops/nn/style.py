"""Layers that measure the style of features, and a loss on it."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops.gram_matrix import NORMALIZATIONS, gram_matrix
from ..ops.style_loss import REDUCTIONS, style_loss
from ._checks import check_choice


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
