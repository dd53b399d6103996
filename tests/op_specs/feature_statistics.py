"""The fact sheet of feature_statistics."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import imgops
from imgops.reference import gram_matrix as reference

from . import _sheet as s
from ._random import Pick, RandomCall, sides, strided
from .gram_matrix import FEATURES, feature_cases, launch_features


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


def _problem(shape: s.Shape, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> s.Made:
    def call(backend: str, x: Tensor) -> Tensor:
        mean, covariance = imgops.feature_statistics(x, impl=backend)
        return torch.cat([mean[:, None], covariance], 1)

    return [s.image(shape, dtype, device)], call


def _pictures() -> dict[str, nn.Module]:
    return {"feature_statistics": s.Called(lambda x: imgops.feature_statistics(x)[1])}


FORMS: dict[str, s.Form] = {"eager": eager}


def _run(impl: str, x: Tensor) -> tuple[Tensor, Tensor]:
    return imgops.feature_statistics(x, impl=impl)


def _launches(dtype: torch.dtype, channels_last: bool) -> Iterator[s.Launch]:
    x = launch_features(dtype, channels_last)
    yield s.Launch("gram_matrix less a mean", "gram_matrix.feature_statistics", (x,))


SHEET = s.Sheet(
    calls={
        "feature_statistics": s.Call(_run, {"x": "NCHW"}, {"N": 2, "C": 3, "H": 2, "W": 2}, frozenset({"x"})),
    },
    sized={"feature_statistics": s.Call(_run, {"x": "NCHW"}, {})},
    random=_random, forms=FORMS, pictures=_pictures, launches=_launches,
    problems=s.of_shapes(FEATURES, _problem),
    cases=feature_cases("feature_statistics"),
    # none: it is not timed on the CPU
    comparisons=list,
    schemas={"feature_statistics": lambda: (s.values(2, 3, 3, 2),)},
    products={"feature_statistics": reference.feature_statistics},
    tolerance=s.SEVERAL_ROUNDINGS,
)  # fmt: skip
