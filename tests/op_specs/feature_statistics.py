"""The fact sheet of feature_statistics."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

import imgops
from imgops.reference import gram_matrix as reference

from ._random import Pick, RandomCall, sides, strided
from ._sheet import (
    SEVERAL_ROUNDINGS,
    Call,
    Called,
    Form,
    Made,
    Problem,
    Shape,
    Sheet,
    image,
    values,
)
from .gram_matrix import FEATURES, feature_cases


def _random(pick: Pick, dtype: torch.dtype) -> RandomCall:
    x = strided(pick, (pick.integer(0, 2), pick.integer(1, 40), *sides(pick)), dtype)

    def run(impl: str | None, x: Tensor) -> Tensor:
        mean, covariance = imgops.feature_statistics(x, impl=impl)
        return torch.cat([mean[:, None], covariance], 1)

    return RandomCall(run, [x])


def eager(x: Tensor) -> tuple[Tensor, Tensor]:
    """As one writes it first."""
    flat = x.flatten(2)
    mean = flat.mean(2, keepdim=True)
    flat = flat - mean
    return mean[:, :, 0], torch.bmm(flat, flat.mT) / flat.shape[2]


def _problem(shape: Shape, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> Made:
    def call(backend: str, x: Tensor) -> Tensor:
        mean, covariance = imgops.feature_statistics(x, impl=backend)
        return torch.cat([mean[:, None], covariance], 1)

    return [image(shape, dtype, device)], call


def _problems(dry: bool) -> Iterator[Problem]:
    for shape in FEATURES[: 1 if dry else None]:
        yield Problem(str(shape), partial(_problem, shape))


def _pictures() -> dict[str, nn.Module]:
    return {"feature_statistics": Called(lambda x: imgops.feature_statistics(x)[1])}


FORMS: dict[str, Form] = {"eager": eager}


def _run(impl: str, x: Tensor) -> tuple[Tensor, Tensor]:
    return imgops.feature_statistics(x, impl=impl)


SHEET = Sheet(
    calls={
        "feature_statistics": Call(_run, {"x": "NCHW"}, {"N": 2, "C": 3, "H": 2, "W": 2}, frozenset({"x"})),
    },
    sized={"feature_statistics": Call(_run, {"x": "NCHW"}, {})},
    random=_random,
    forms=FORMS,
    pictures=_pictures,
    problems=_problems,
    cases=lambda dry: feature_cases("feature_statistics", dry),
    # a part of the rows of styles (benchmarks/bench_style.py)
    comparisons=list,
    schemas={"feature_statistics": lambda: (values(2, 3, 3, 2),)},
    products={"feature_statistics": reference.feature_statistics},
    tolerance=SEVERAL_ROUNDINGS,
)
