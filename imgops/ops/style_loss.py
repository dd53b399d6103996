"""``style_loss`` and ``wasserstein_loss``: how far the style of features is from that of a target."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _backend
from ._common import STATUSES, check_number, check_operand, check_tensor, is_empty
from .gram_matrix import check_features, check_normalization, fused_feature_statistics, fused_gram_matrix

REDUCTIONS = ("mean", "sum", "none")


def style_loss(
    x: Tensor, target: Tensor, *, normalization: str = "chw", reduction: str = "mean", impl: str | None = None
) -> Tensor:
    """Squared differences between the Gram matrix of x and a target's (Gatys et al. 2016, Johnson et al. 2016).

    The gradient for x is one product, of the difference and x. Differentiable to any order with respect to x and the
    target.

    Args:
        x: features [N, C, H, W], float64/32/16 or bfloat16, any strides.
        target: Gram matrix [N or 1, C, C] in any of these dtypes, of the same normalization; need not be symmetric.
        normalization: "chw", "hw", "nchw" or "none", as in ``imgops.gram_matrix``. Default "chw".
        reduction: "mean" over all N * C * C differences, "sum" of them, or "none": a loss for each sample, the mean of
            its C * C. Default "mean".
        impl: "reference", "cpu" or "triton"; None takes the best that is here.

    Returns:
        A scalar, or [N] for the reduction "none", in float32 (float64 where x is). Zero where nothing is summed.

    Raises:
        TypeError: x or the target is no tensor of a supported dtype.
        ValueError: a shape or device that does not fit, an unknown normalization or reduction.
        RuntimeError: the backend named by ``impl`` cannot run here.
    """
    check_tensor("style_loss", "x", x, 4)
    n, c = x.shape[:2]
    check_operand("style_loss", "target", target, x, ((n, 1), c, c))
    check_normalization("style_loss", normalization)
    _check_reduction("style_loss", reduction)
    backend = _backend.choose("style_loss", x.device.type, impl, STATUSES)
    gram = fused_gram_matrix(backend, x, normalization)
    target = target.to(gram.dtype).expand_as(gram)
    # a mean of nothing would be NaN
    nothing = is_empty(gram)
    if reduction == "none":
        squares = F.mse_loss(gram, target, reduction="none")
        return squares.sum([1, 2]) if nothing else squares.mean([1, 2])
    return F.mse_loss(gram, target, reduction="sum" if nothing else reduction)


def wasserstein_loss(
    x: Tensor,
    target_mean: Tensor,
    target_covariance: Tensor,
    *,
    eps: float = 1e-5,
    reduction: str = "mean",
    impl: str | None = None,
) -> Tensor:
    """Squared Wasserstein-2 distance between the features' Gaussian and a target's (Dowson and Landau 1982).

    ``|m - m_t|^2 + tr(S + S_t - 2 (S_t^(1/2) S S_t^(1/2))^(1/2))`` with m and S the mean and covariance of a sample's
    pixels, ``eps`` added to the diagonals of S and S_t. Differentiable to any order with respect to all three.

    Args:
        x: features [N, C, H, W] of at least one pixel, float64/32/16 or bfloat16, any strides.
        target_mean: [N or 1, C], as ``imgops.feature_statistics`` gives it.
        target_covariance: [N or 1, C, C], symmetric and positive semi-definite; its lower triangle is read.
        eps: a variance > 0, in the units of the covariances, that keeps the gradient finite where one is singular.
            Default 1e-5.
        reduction: "mean" over the samples, "sum" of them, or "none". Default "mean".
        impl: backend for the mean and covariance, "reference", "cpu" or "triton"; None takes the best that is here.

    Returns:
        A scalar, or [N] for the reduction "none", in float32 (float64 where x is). Rounding may leave a distance
        near zero slightly below it.

    Raises:
        TypeError: x or a target is no tensor of a supported dtype, or eps is no number.
        ValueError: a shape or device that does not fit, no pixel, an eps that is not above 0, an unknown reduction.
        RuntimeError: the backend named by ``impl`` cannot run here.
        torch.linalg.LinAlgError: features or a target that are not finite.
    """
    check_features("wasserstein_loss", x)
    n, c = x.shape[:2]
    check_operand("wasserstein_loss", "target_mean", target_mean, x, ((n, 1), c))
    check_operand("wasserstein_loss", "target_covariance", target_covariance, x, ((n, 1), c, c))
    if check_number("wasserstein_loss", "eps", eps) <= 0:
        raise ValueError(f"imgops.wasserstein_loss: eps must be > 0; got {eps}")
    _check_reduction("wasserstein_loss", reduction)
    backend = _backend.choose("wasserstein_loss", x.device.type, impl, STATUSES)
    mean, covariance = fused_feature_statistics(backend, x)
    # float64, as the roots of a singular covariance need the digits, and autocast leaves float64 alone
    dtype = mean.dtype
    mean, covariance, target_mean, target_covariance = (
        t.double() for t in (mean, covariance, target_mean, target_covariance)
    )
    # the derivative of a root is infinite at zero, so a singular covariance gets some variance in every direction
    identity = eps * torch.eye(c, dtype=mean.dtype, device=mean.device)
    lower = target_covariance.tril()
    target_covariance = lower + lower.tril(-1).mT + identity
    covariance = covariance + identity
    root: Tensor = _SymmetricRoot.apply(target_covariance)
    cross = _SymmetricRoot.apply(root @ covariance @ root)
    variances = (covariance + target_covariance - 2 * cross).diagonal(dim1=1, dim2=2).sum(1)
    losses = ((mean - target_mean).square().sum(1) + variances).to(dtype)
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" or is_empty(losses) else losses.mean()


def _check_reduction(op: str, reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"imgops.{op}: reduction must be one of {', '.join(REDUCTIONS)}; got {reduction!r}")


class _SymmetricRoot(torch.autograd.Function):
    """Square root of symmetric positive matrices [N, C, C].

    The gradient of ``eigh`` divides by the differences of eigenvalues, which may be equal. That of the root solves
    ``root dx + dx root = dy``, which divides by the sums of the root's.
    """

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(x)
        # rounding may move an eigenvalue by this much, even below zero
        least = values[:, -1:].clamp(min=0) * torch.finfo(x.dtype).eps
        return (vectors * values.clamp(min=torch.finfo(x.dtype).tiny).maximum(least).sqrt()[:, None]) @ vectors.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return _Sylvester.apply(ctx.saved_tensors[0], dy)


class _Sylvester(torch.autograd.Function):
    """The x with ``a x + x a = b`` for symmetric positive a; a and b are [N, C, C]."""

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(a)
        sums = values[:, :, None] + values[:, None]
        return vectors @ ((vectors.mT @ b @ vectors) / sums) @ vectors.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, dx: Tensor) -> tuple[Tensor, Tensor]:
        a, x = ctx.saved_tensors
        db = _Sylvester.apply(a, dx)
        return -(db @ x.mT + x.mT @ db), db
