"""upfirdn2d on the CPU against its eager forms: the resampling of StyleGAN2 with [1, 3, 3, 1]."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import imgops

from . import eager
from .comparison import Comparison, names, time_side


def comparisons() -> list[Comparison]:
    """The problems: up-sampling, down-sampling, and the filter alone, in both layouts."""
    f = imgops.setup_filter([1, 3, 3, 1])
    forms = {"imgops": imgops.upfirdn2d} | eager.FORMS["upfirdn2d"]
    problems = [
        ("up 2", 2, 1, [2, 1, 2, 1], 4.0),
        ("down 2", 1, 2, [1, 1, 1, 1], 1.0),
        ("filter", 1, 1, [2, 1, 2, 1], 1.0),
    ]
    result = []
    for name, up, down, padding, gain in problems:
        for layout, memory_format in (("nchw", torch.contiguous_format), ("nhwc", torch.channels_last)):
            x = torch.randn(4, 64, 128, 128).contiguous(memory_format=memory_format)
            sides = {k: torch.no_grad()(partial(form, x, f, up, down, padding, gain=gain)) for k, form in forms.items()}
            goals = (5.0, 15.0) if name == "up 2" and layout == "nchw" else (None, None)
            result.append(Comparison("upfirdn2d", f"4x64x128x128 {layout} {name}", sides, *goals))
    return result


@pytest.mark.parametrize(("problem", "side"), names(comparisons))
def test_upfirdn2d(benchmark, problem, side):
    time_side(benchmark, comparisons, problem, side)
