"""gram_matrix and style_loss on the CPU against their eager forms, at the shapes of VGG's features."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import imgops

from . import eager
from .comparison import Comparison, names, time_side

#: channels and side of relu1 to relu4 for an image of 256 x 256
FEATURES = ((64, 256), (128, 128), (256, 64), (512, 32))


def comparisons() -> list[Comparison]:
    """The Gram matrix alone, and the loss with its gradient; the goal is for the form with three products."""
    problems = []
    for channels, side in FEATURES:
        x = torch.randn(1, channels, side, side, requires_grad=True)
        with torch.no_grad():
            target = imgops.gram_matrix(torch.randn(1, channels, side, side))

        def forward(form: Callable[..., Tensor], x: Tensor = x) -> Callable[[], Tensor]:
            return torch.no_grad()(partial(form, x))

        def both(
            form: Callable[..., Tensor], x: Tensor = x, target: Tensor = target
        ) -> Callable[[], tuple[Tensor, ...]]:
            return lambda: torch.autograd.grad(form(x, target), x)

        name = f"1x{channels}x{side}x{side}"
        grams: dict[str, Any] = {"imgops": imgops.gram_matrix} | eager.FORMS["gram_matrix"]
        losses: dict[str, Any] = {"imgops": imgops.style_loss} | eager.FORMS["style_loss"]
        problems += [
            Comparison("gram_matrix", name, {side: forward(form) for side, form in grams.items()}, memory="reused"),
            Comparison(
                "style_loss",
                f"{name} forward+backward",
                {side: both(form) for side, form in losses.items()},
                obvious_goal=1.5,
                memory="reused",
            ),
        ]
    return problems


@pytest.mark.parametrize(("problem", "side"), names(comparisons))
def test_gram_matrix(benchmark, problem, side):
    time_side(benchmark, comparisons, problem, side)
