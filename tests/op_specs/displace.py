"""The fact sheet of displace, whose kernels are those of grid_sample."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import imgops
from imgops.reference.grid_sample import PADDING_MODES

from . import _sheet as s
from ._random import Pick, RandomCall, random_image, strided
from .grid_sample import (
    SAMPLED,
    Side,
    away_from_pixels,
    compare,
    displaced_grid,
    displacement,
    launches,
    off_center,
    sampling_cases,
)
from .grid_sample import eager as eager_grid_sample


def _random(pick: Pick, dtype: torch.dtype) -> RandomCall:
    x, mode = random_image(pick, dtype), pick.one(["zeros", "border", "reflection"])
    acc_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    field = strided(pick, (x.shape[0], 2, *x.shape[2:]), acc_dtype, pick.one([0.5, 4.0]))
    return RandomCall(
        lambda impl, x, field: imgops.displace(x, field, padding_mode=mode, impl=impl),
        [x, field],
        # reflection turns between pixels too
        smooth=away_from_pixels(2 * field),
    )


def eager(x: Tensor, displacement: Tensor, padding_mode: str = "zeros") -> Tensor:
    """PyTorch's grid_sample at a grid that is made for it."""
    grid = displaced_grid(displacement).to(x.dtype)
    return F.grid_sample(x, grid, padding_mode=padding_mode, align_corners=False)


def _problem(shape: s.Shape, mode: str, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> s.Made:
    n, _, h, w = shape

    def call(backend: str, x: Tensor, displacement: Tensor) -> Tensor:
        return imgops.displace(x, displacement, padding_mode=mode, impl=backend)

    return [s.image(shape, dtype, device), off_center((n, 2, h, w), 2 * max(h, w), device, acc_dtype)], call


def _problems(dry: bool) -> Iterator[s.Problem]:
    # a pixel's gradients are added in one order, or in any
    for shape, deterministic in itertools.product(SAMPLED[: 1 if dry else None], (True, False)):
        name = str(shape) if deterministic else f"{shape}/atomic"
        for mode in PADDING_MODES:
            yield s.Problem(f"{name}/{mode}", partial(_problem, shape, mode), deterministic)


def _field(shape: s.Shape, device: torch.device) -> s.Kwargs:
    return {"displacement": displacement(shape, device), "padding_mode": "zeros"}


def _sides(field: Tensor) -> dict[str, Side]:
    """The forms by name, and the positions of each; "eager given grid" leaves out making the grid."""
    grid = displaced_grid(field).requires_grad_()
    field = field.requires_grad_()
    return {
        "imgops": (partial(imgops.displace, padding_mode="zeros"), field),
        "eager": (eager, field),
        "eager given grid": (eager_grid_sample, grid),
    }


def _pictures() -> dict[str, nn.Module]:
    return {
        "displace": s.Called(lambda x: imgops.displace(x, 3 * x[:, :2])),
        "displace reflection": s.Called(lambda x: imgops.displace(x, 9 * x[:, :2], padding_mode="reflection")),
    }


def _call(mode: str) -> s.Call:
    def run(impl: str, x: Tensor, field: Tensor) -> Tensor:
        # between the centers of pixels, where a sample's slope does not jump
        return imgops.displace(x, field.tanh() * 0.2 + 0.5, padding_mode=mode, impl=impl)

    return s.Call(run, {"x": "NCHW", "field": "N2HW"}, {"N": 1, "C": 2, "H": 3, "W": 4}, frozenset({"x"}))


def _sized(impl: str, x: Tensor, field: Tensor) -> Tensor:
    return imgops.displace(x, field, impl=impl)


FORMS: dict[str, s.Form] = {"eager": eager}
SHEET = s.Sheet(
    calls={f"displace-{mode}": _call(mode) for mode in ("zeros", "border")},
    sized={"displace": s.Call(_sized, {"x": "NCHW", "field": "N2HW"}, {})},
    random=_random, forms=FORMS, pictures=_pictures, problems=_problems,
    cases=sampling_cases("displace", "displacement", _field),
    launches=partial(launches, "displace", "reflection"),
    comparisons=lambda: compare("displace", _sides),
)  # fmt: skip
