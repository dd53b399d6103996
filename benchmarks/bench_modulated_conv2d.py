"""modulated_conv2d on the CPU, with noise, bias and leaky ReLU, at every layer shape of StyleGAN2-256."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import imgops

from . import eager
from .comparison import Comparison, names, time_side

BATCH = 4
#: (channels in, channels out, input size, up), from 4x4 to 256x256 with channel_base 32768 and channel_max 512
LAYERS = [
    (512, 512, 4, 1),
    (512, 512, 4, 2),
    (512, 512, 8, 1),
    (512, 512, 8, 2),
    (512, 512, 16, 1),
    (512, 512, 16, 2),
    (512, 512, 32, 1),
    (512, 512, 32, 2),
    (512, 512, 64, 1),
    (512, 256, 64, 2),
    (256, 256, 128, 1),
    (256, 128, 128, 2),
    (128, 128, 256, 1),
]
#: up-sampling layers with a goal of their own: (channels, input size) -> how many times faster
UP_GOALS = {(256, 32): 1.5, (64, 128): 2.5}
EAGER = {k: v for k, v in eager.FORMS["modulated_conv2d"].items() if k != "plain conv"}


def comparison(inputs: int, outputs: int, size: int, up: int, goal: float | None) -> Comparison:
    """One layer; all operands are random."""
    out_size = size * up
    x, styles = torch.randn(BATCH, inputs, size, size), torch.randn(BATCH, inputs)
    weight, bias = torch.randn(outputs, inputs, 3, 3), torch.randn(outputs)
    noise = torch.randn(BATCH, 1, out_size, out_size)
    f = imgops.setup_filter([1, 3, 3, 1])
    arguments = {"noise": noise, "bias": bias, "act": "lrelu", "up": up, "down": 1, "padding": 1, "resample_filter": f}
    forms = {"imgops": imgops.modulated_conv2d} | EAGER
    sides = {k: torch.no_grad()(partial(form, x, weight, styles, **arguments)) for k, form in forms.items()}
    name = f"{BATCH}x{inputs}x{size}x{size} -> {outputs}" + (f" up {up}" if up > 1 else "")
    return Comparison("modulated_conv2d", name, sides, goal)


def comparisons() -> list[Comparison]:
    """Every layer shape, then the up-sampling layers that have goals."""
    layers = [comparison(*layer, goal=1.0) for layer in LAYERS]
    return layers + [comparison(c, c, size, 2, goal) for (c, size), goal in UP_GOALS.items()]


@pytest.mark.parametrize(("problem", "side"), names(comparisons))
def test_modulated_conv2d(benchmark, problem, side):
    time_side(benchmark, comparisons, problem, side)
