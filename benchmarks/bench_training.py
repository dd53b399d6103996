"""The R1 step of a 64-pixel discriminator on the CPU: the same network on fused ops and on eager ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import imgops
from imgops import _eager
from imgops.models.stylegan2 import Discriminator
from imgops.reference.bias_act import ACTIVATIONS
from imgops.reference.modulated_conv2d import resample_padding

from .comparison import Comparison, names, time_side

BATCH, GAMMA = 4, 10.0
#: channel_base of the network: 32768 is the published large configuration, 16384 the small one
CHANNEL_BASES = (32768, 16384)


def bias_act(
    x: Tensor, b: Tensor | None = None, dim: int = 1, act: str = "linear", gain: float | None = None, **_: Any
) -> Tensor:
    shape = [-1 if i == dim else 1 for i in range(x.ndim)]
    x = x if b is None else x + b.reshape(shape)
    activation = ACTIVATIONS[act]
    gain = activation.default_gain if gain is None else gain
    x = F.silu(x) if act == "swish" else activation.function(x, activation.default_alpha)
    return x if gain == 1 else x * gain


def plain_resampled_conv2d(
    op: str,
    x: Tensor,
    weight: Tensor,
    *,
    bias: Tensor | None,
    act: str,
    gain: float | None,
    up: int,
    down: int,
    padding: int,
    resample_filter: Tensor | None,
    **_: Any,
) -> Tensor:
    x = _eager.convolution(x, weight, up, down, padding, resample_filter if down > 1 or up > 1 else None)
    return bias_act(x, bias, act=act, gain=gain)


def _downsample2d(x: Tensor, f: Tensor, down: int = 2) -> Tensor:
    pads = resample_padding((0, 0, 0, 0), (f.shape[-1], f.shape[0]), 1, down)
    return _eager.upfirdn2d(x, f, 1, down, list(pads), 1.0)


@contextmanager
def eager_layers() -> Iterator[None]:
    """A context in which the layers of ``imgops.nn`` call the fastest eager forms of the ops, not the fused ones."""
    with (
        mock.patch("imgops.nn.conv.resampled_conv2d", plain_resampled_conv2d),
        mock.patch("imgops.nn.linear.bias_act", bias_act),
        mock.patch("imgops.models.stylegan2.discriminator.downsample2d", _downsample2d),
    ):
        yield


def comparison(channel_base: int) -> Comparison:
    """Gradients of the penalty with respect to every parameter."""
    network = Discriminator(0, 64, 3, channel_base=channel_base)
    img = torch.randn(BATCH, 3, 64, 64)
    parameters = list(network.parameters())

    def r1() -> tuple[Tensor, ...]:
        x = img.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
        penalty = gradient.square().sum([1, 2, 3]).mean() * (GAMMA / 2)
        gradients = torch.autograd.grad(penalty, parameters, allow_unused=True)
        return tuple(g for g in gradients if g is not None)

    def r1_eager() -> tuple[Tensor, ...]:
        with eager_layers():
            return r1()

    def r1_reference() -> tuple[Tensor, ...]:
        with imgops.use_impl("reference"):
            return r1()

    sides = {"imgops": r1, "eager strided": r1_eager, "eager": r1_reference}
    return Comparison("R1 step", f"{BATCH}x3x64x64, channel_base {channel_base}", sides, goal=2.0, tolerance=2e-2)


def comparisons() -> list[Comparison]:
    """One comparison for each width of the network."""
    return [comparison(base) for base in CHANNEL_BASES]


@pytest.mark.parametrize(("problem", "side"), names(comparisons))
def test_r1_step(benchmark, problem, side):
    time_side(benchmark, comparisons, problem, side)
