"""Adaptive instance normalisation on the CPU against its eager forms: forward, and forward with backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import imgops

from . import eager
from .comparison import Comparison, names, time_side

SHAPE = (4, 256, 64, 64)


def comparisons() -> list[Comparison]:
    """The problems, at the shape of relu4_1 of a 512 x 512 picture, with half of its channels."""
    result = []
    for layout, memory_format in (("nchw", torch.contiguous_format), ("nhwc", torch.channels_last)):
        x, style, dy = (torch.randn(SHAPE).contiguous(memory_format=memory_format) for _ in range(3))
        scale, bias = torch.randn(SHAPE[:2]), torch.randn(SHAPE[:2])
        operands = {"adain": (style,), "adaptive_instance_norm": (scale, bias)}
        for op, others in operands.items():
            forms: dict[str, Callable[..., Tensor]] = {"imgops": getattr(imgops, op)} | eager.FORMS[op]
            goals: tuple[Any, Any] = (6.0, 12.0) if op == "adain" and layout == "nchw" else (None, None)
            name = f"4x256x64x64 {layout}"
            # the instance_norm of adain has the biased variance: 1.2e-4 apart at 4096 pixels
            result.append(Comparison(op, f"{name} forward", _forward(forms, (x, *others)), *goals, tolerance=2e-4))
            result.append(Comparison(op, f"{name} forward+backward", _both(forms, (x, *others), dy), tolerance=2e-4))
    return result


def _forward(forms: dict[str, Callable[..., Tensor]], inputs: tuple[Tensor, ...]) -> dict[str, Callable[[], Any]]:
    return {name: torch.no_grad()(lambda form=form: form(*inputs)) for name, form in forms.items()}


def _both(
    forms: dict[str, Callable[..., Tensor]], inputs: tuple[Tensor, ...], dy: Tensor
) -> dict[str, Callable[[], Any]]:
    leaves = [t.clone().requires_grad_() for t in inputs]
    return {name: lambda form=form: torch.autograd.grad(form(*leaves), leaves, dy) for name, form in forms.items()}


@pytest.mark.parametrize(("problem", "side"), names(comparisons))
def test_adain(benchmark, problem, side):
    time_side(benchmark, comparisons, problem, side)
