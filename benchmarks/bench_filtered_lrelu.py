"""filtered_lrelu on the CPU against its eager forms: the nonlinearities of StyleGAN3's layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

import imgops

from . import eager
from .comparison import Comparison, names, time_side

#: name, shape, factors, taps of both filters, padding (x and y alike), layout, goals
PROBLEMS = [
    ("nchw", (4, 64, 64, 64), 2, 2, (12, 12), (11, 10), torch.contiguous_format, (None, 15.0)),
    ("nhwc", (4, 64, 64, 64), 2, 2, (12, 12), (11, 10), torch.channels_last, (None, None)),
    ("nchw", (4, 64, 36, 36), 4, 2, (24, 12), (22, 21), torch.contiguous_format, (None, None)),
    ("nchw", (4, 64, 64, 64), 2, 4, (12, 24), (11, 10), torch.contiguous_format, (None, None)),
]


def training(form: Callable[..., Tensor], x: Tensor, fu: Tensor, fd: Tensor, b: Tensor, *arguments: object) -> object:
    """Forward and backward, for x and b."""
    y = form(x, fu, fd, b, *arguments)
    return y, *torch.autograd.grad(y, [x, b], torch.ones_like(y))


def comparisons() -> list[Comparison]:
    """The problems, each without gradients, and the first two with them."""
    forms = {"imgops": partial(_imgops)} | eager.FORMS["filtered_lrelu"]
    result = []
    for i, (layout, shape, up, down, taps, pads, memory_format, goals) in enumerate(PROBLEMS):
        x = torch.randn(shape).contiguous(memory_format=memory_format)
        fu, fd = (imgops.setup_filter(torch.kaiser_window(n, False, 6.0).tolist(), separable=True) for n in taps)
        b = torch.randn(shape[1])
        arguments = (up, down, [*pads, *pads], 1.0)
        name = f"{'x'.join(map(str, shape))} {layout} up {up} down {down}"
        call = {k: torch.no_grad()(partial(form, x, fu, fd, b, *arguments)) for k, form in forms.items()}
        result.append(Comparison("filtered_lrelu", name, call, *goals))
        if i < 2:
            leaves = x.clone(memory_format=torch.preserve_format).requires_grad_(), b.clone().requires_grad_()
            call = {k: partial(training, form, leaves[0], fu, fd, leaves[1], *arguments) for k, form in forms.items()}
            # a pixel whose sign is lost in float32's rounding has either slope
            result.append(Comparison("filtered_lrelu", f"{name} with gradients", call, tolerance=1e-3))
    return result


def _imgops(
    x: Tensor, fu: Tensor, fd: Tensor, b: Tensor, up: int, down: int, padding: list[int], clamp: float
) -> Tensor:
    return imgops.filtered_lrelu(x, fu, fd, b, up, down, padding, clamp=clamp)


@pytest.mark.parametrize(("problem", "side"), names(comparisons))
def test_filtered_lrelu(benchmark, problem, side):
    time_side(benchmark, comparisons, problem, side)
