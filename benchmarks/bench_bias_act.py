"""bias_act on the CPU against its eager forms: forward, and forward with backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import imgops

from . import eager
from .comparison import Comparison, names, time_side


def comparisons() -> list[Comparison]:
    """The problems, at the shape of a layer of StyleGAN2-256."""
    x = torch.randn(8, 128, 64, 64, requires_grad=True)
    b, dy = torch.randn(128, requires_grad=True), torch.randn(8, 128, 64, 64)
    forms: dict[str, Callable[..., Tensor]] = {"imgops": imgops.bias_act} | eager.FORMS["bias_act"]

    def forward(form: Callable[..., Tensor]) -> Callable[[], Tensor]:
        return torch.no_grad()(lambda: form(x, b, act="lrelu"))

    def both(form: Callable[..., Tensor]) -> Callable[[], tuple[Tensor, ...]]:
        return lambda: torch.autograd.grad(form(x, b, act="lrelu"), [x, b], dy)

    sides = {
        "forward": {name: forward(form) for name, form in forms.items()},
        "forward+backward": {name: both(form) for name, form in forms.items()},
    }
    return [
        Comparison(
            "bias_act",
            f"8x128x64x64 lrelu {direction}, {memory} memory",
            sides[direction],
            goal=2.5 if direction == "forward+backward" else None,
            memory=memory,
        )
        for direction in sides
        for memory in ("fresh", "reused")
    ]


@pytest.mark.parametrize(("problem", "side"), names(comparisons))
def test_bias_act(benchmark, problem, side):
    time_side(benchmark, comparisons, problem, side)
