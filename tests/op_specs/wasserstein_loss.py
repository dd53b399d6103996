"""The fact sheet of wasserstein_loss."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

import imgops

from . import _sheet as s
from .feature_statistics import eager as eager_statistics
from .gram_matrix import FEATURES, feature_cases

#: tolerances of a result through the square root of a matrix
ROOTS = {torch.float64: 1e-8, torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 8e-2}


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()[:, None]) @ vectors.mT


def eager(x: Tensor, target_mean: Tensor, target_covariance: Tensor) -> Tensor:
    """By eigenvalues in float64, through which autograd goes."""
    mean, covariance = (t.double() for t in eager_statistics(x.float()))
    identity = 1e-5 * torch.eye(x.shape[1], dtype=torch.float64, device=x.device)
    covariance, target_covariance = covariance + identity, target_covariance.double() + identity
    root = _root(target_covariance)
    apart = (mean - target_mean).square().sum(1)
    variances = covariance + target_covariance - 2 * _root(root @ covariance @ root)
    return (apart + variances.diagonal(dim1=1, dim2=2).sum(1)).mean().float()


def _problem(shape: s.Shape, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> s.Made:
    n, c = shape[:2]

    def call(backend: str, x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
        return imgops.wasserstein_loss(x, mean, covariance, eps=0.1, impl=backend)

    root = torch.randn(n, c, c, device=device, dtype=acc_dtype)
    covariance = root @ root.mT / c + torch.eye(c, device=device, dtype=acc_dtype)
    return [s.image(shape, dtype, device), torch.randn(n, c, device=device, dtype=acc_dtype), covariance], call


def _gaussian(shape: s.Shape, device: torch.device) -> s.Kwargs:
    mean, covariance = imgops.feature_statistics(torch.randn(shape, device=device), impl="reference")
    return {"target_mean": mean, "target_covariance": covariance}


def _cases(dry: bool) -> list[s.Case]:
    # most of the work is in the roots of matrices, which the host waits for
    uncounted = {"bytes": (0, 0), "flops": (0, 0), "rate": "float32", "graph": False}
    return [replace(case, **uncounted) for case in feature_cases("wasserstein_loss", _gaussian)(dry)]


def _pictures() -> dict[str, nn.Module]:
    def run(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
        return imgops.wasserstein_loss(x, mean, covariance)

    target = {"mean": torch.randn(1, 4), "covariance": torch.eye(4)[None]}
    return {"wasserstein_loss": s.Called(run, **target)}


FORMS: dict[str, s.Form] = {"eager": eager}


def _run(impl: str, x: Tensor, mean: Tensor, root: Tensor) -> Tensor:
    # root @ root.mT by sums, which autocast leaves alone
    covariance = (root[:, :, None] * root[:, None]).sum(3)
    return imgops.wasserstein_loss(x, mean, covariance, impl=impl)


SHEET = s.Sheet(
    calls={
        "wasserstein_loss": s.Call(
            _run,
            {"x": "NCHW", "mean": "1C", "root": "1CC"},
            {"N": 2, "C": 2, "H": 3, "W": 2},
            frozenset({"x"}),
        )
    },
    sized={"wasserstein_loss": s.Call(_run, {"x": "NCHW", "mean": "NC", "root": "NCC"}, {})},
    forms=FORMS, pictures=_pictures, cases=_cases,
    # none: how wrong a root may be depends on how near to each other its eigenvalues are
    random=None,
    problems=s.of_shapes(FEATURES, _problem),
    launches=s.no_launches,
    # none: it is not timed on the CPU
    comparisons=list,
    tolerance=ROOTS,
)  # fmt: skip
