"""The fact sheet of style_loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import imgops

from . import _sheet as s
from ._random import Pick, RandomCall, sides, strided
from .gram_matrix import FEATURES, VGG, feature_cases
from .gram_matrix import eager as eager_gram_matrix


def _random(pick: Pick, dtype: torch.dtype) -> RandomCall:
    n, c = pick.integer(1, 2), pick.integer(1, 40)
    target = strided(pick, (pick.one([1, n]), c, c), dtype)
    reduction = pick.one(["mean", "sum", "none"])
    x = strided(pick, (n, c, *sides(pick)), dtype)
    # of a difference that cancels, rounding leaves no digit
    gram = imgops.gram_matrix(x.double(), impl="reference")
    pick.assume((gram - target).flatten(1).norm(dim=1).min() > 0.05 * gram.norm())
    return RandomCall(lambda impl, x, target: imgops.style_loss(x, target, reduction=reduction, impl=impl), [x, target])


def eager(x: Tensor, target: Tensor) -> Tensor:
    """As one writes it first; its gradient is two products."""
    return F.mse_loss(eager_gram_matrix(x), target)


def eager_detached(x: Tensor, target: Tensor) -> Tensor:
    """With the gradient for one factor, doubled: the other's is the same, and a product is saved. First order only."""
    n, c, h, w = x.shape
    flat = x.reshape(n, c, h * w)
    g = torch.bmm(flat, flat.detach().transpose(1, 2)) / (c * h * w)
    return F.mse_loss(2 * g - g.detach(), target)


def _problem(shape: s.Shape, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> s.Made:
    def call(backend: str, x: Tensor, target: Tensor) -> Tensor:
        # summed: the gradient of a mean would be too small for float16
        return imgops.style_loss(x, target, normalization="hw", reduction="sum", impl=backend)

    # not symmetric, so that both halves of its gradient show
    target = torch.randn(shape[0], shape[1], shape[1], device=device, dtype=acc_dtype)
    return [s.image(shape, dtype, device), target], call


def _target(shape: s.Shape, device: torch.device) -> s.Kwargs:
    return {"target": imgops.gram_matrix(torch.randn(shape, device=device), impl="reference")}


FORMS: dict[str, s.Form] = {"eager": eager, "eager detached": eager_detached}


def _comparisons() -> list[s.Comparison]:
    """The goal is against "eager", the form with three products."""
    rows, forms = [], {"imgops": imgops.style_loss, **FORMS}
    for channels, side in VGG:
        shape = 1, channels, side, side
        calls = s.both(forms, {"x": torch.randn(shape), "target": imgops.gram_matrix(torch.randn(shape))}, ("x",))
        name = f"1x{channels}x{side}x{side} forward+backward"
        rows.append(s.Comparison("style_loss", name, calls, obvious_goal=1.5, memory="reused"))
    return rows


def _pictures() -> dict[str, nn.Module]:
    target = torch.randn(1, 4, 4)
    return {"style_loss none": s.Called(lambda x, t: imgops.style_loss(x, t, reduction="none"), t=target)}


def _run(impl: str, x: Tensor, target: Tensor) -> Tensor:
    return imgops.style_loss(x, target, impl=impl)


SHEET = s.Sheet(
    calls={"style_loss": s.Call(_run, {"x": "NCHW", "target": "1CC"}, {"N": 2, "C": 3, "H": 2, "W": 2})},
    sized={"style_loss": s.Call(_run, {"x": "NCHW", "target": "NCC"}, {})},
    random=_random, forms=FORMS, pictures=_pictures, comparisons=_comparisons,
    problems=s.of_shapes(FEATURES, _problem),
    cases=feature_cases("style_loss", _target),
    launches=s.no_launches,
    tolerance=s.SEVERAL_ROUNDINGS,
)  # fmt: skip
