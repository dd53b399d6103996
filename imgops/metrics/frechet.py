"""The Fréchet distance between two normal distributions, by which the FID compares features (Heusel et al. 2017)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._checks import as_tensor

#: how far a covariance may be from symmetric, and its eigenvalues below zero, in units of its largest eigenvalue
TOLERANCE = 1e-5


def frechet_distance(mean1: Any, cov1: Any, mean2: Any, cov2: Any) -> float:
    """``|mean1 - mean2|^2 + tr(cov1) + tr(cov2) - 2 tr((cov1 cov2)^(1/2))``, the squared Wasserstein-2 distance between
    two normal distributions (Dowson and Landau 1982); >= 0.

    With ``cov = F F^T`` the last trace is the sum of the singular values of ``F1^T F2``: the roots of the eigenvalues
    of the symmetric product ``F1^T cov2 F1``, without the loss of half of the digits that those roots would bring.
    Covariances of fewer samples than features, which have no full rank, are no special case.

    Args:
        mean1, mean2: [D], tensors or arrays of real numbers; computed in float64.
        cov1, cov2: [D, D], symmetric and positive semidefinite to rounding.

    Raises:
        TypeError: no tensor or array of real numbers.
        ValueError: shapes that do not fit, values that are not finite, or no covariance; names the argument.

    >>> round(frechet_distance([0.0, 0.0], torch.eye(2), [3.0, 4.0], 4 * torch.eye(2)), 6)
    27.0
    """
    owner = "frechet_distance"
    means = [as_tensor(owner, f"mean{i}", mean, 1).double() for i, mean in ((1, mean1), (2, mean2))]
    covariances = [as_tensor(owner, f"cov{i}", cov, 2).double() for i, cov in ((1, cov1), (2, cov2))]
    size = len(means[0])
    if len(means[1]) != size:
        raise ValueError(f"frechet_distance: mean1 and mean2 must be of one size; got {size} and {len(means[1])}")
    factors = []
    for i, cov in enumerate(covariances, 1):
        if cov.shape != (size, size):
            raise ValueError(f"frechet_distance: cov{i} must be [{size}, {size}], as mean{i}; got {list(cov.shape)}")
        factors.append(_factor(f"cov{i}", cov).to(means[0].device))
    difference = means[0] - means[1].to(means[0].device)
    overlap = torch.linalg.svdvals(factors[0].T @ factors[1]).sum()
    traces = sum(factor.square().sum() for factor in factors)
    # of equal distributions rounding may leave less than nothing
    return max(0.0, float(difference.square().sum() + traces - 2 * overlap))


def _factor(name: str, covariance: Tensor) -> Tensor:
    """F [D, rank] with ``F F^T`` the covariance; directions without variance are left out.

    Raises:
        ValueError: it is not symmetric, or has an eigenvalue below zero beyond rounding.
    """
    # among many features that never vary LAPACK's eigenvalues were seen not to converge
    varies = (covariance != 0).any(0) | (covariance != 0).any(1)
    if not varies.any():
        return covariance.new_zeros(len(covariance), 0)
    whole, covariance = covariance, covariance[varies][:, varies]
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    largest = float(values.abs().max())
    asymmetry = float((covariance - covariance.T).abs().max())
    if asymmetry > TOLERANCE * largest:
        raise ValueError(
            f"frechet_distance: {name} must be symmetric; it differs from its transpose by {asymmetry:.3g}"
        )
    if float(values.min()) < -TOLERANCE * largest:
        raise ValueError(
            f"frechet_distance: {name} must be a covariance; it has an eigenvalue of {float(values.min()):.3g}"
        )
    kept = values > len(values) * torch.finfo(values.dtype).eps * largest
    factor = whole.new_zeros(len(whole), int(kept.sum()))
    factor[varies] = vectors[:, kept] * values[kept].sqrt()
    return factor
