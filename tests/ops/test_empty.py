"""Ops on tensors with nothing in them, along each dimension in turn: every backend does what the reference does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from backends import backends
from torch import Tensor

import imgops

SIZES = {"N": 2, "C": 3, "H": 6, "W": 5, "O": 4}
F4 = torch.tensor([1.0, 3.0, 3.0, 1.0]).double() / 8


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def operands(op: str, n: int, c: int, h: int, w: int, o: int) -> tuple[list[Tensor], Callable[..., Any]]:
    """The differentiable inputs of a call, and the call."""
    x = draw(n, c, h, w)
    if op == "bias_act":
        return [x, draw(c)], lambda x, b, **k: imgops.bias_act(x, b, act="lrelu", clamp=2, **k)
    if op == "upfirdn2d":
        return [x], lambda x, **k: imgops.upfirdn2d(x, F4.to(x.device), up=2, padding=4, **k)
    if op == "upfirdn2d, learned":
        return [x, draw(3, 2)], lambda x, f, **k: imgops.upfirdn2d(x, f, down=2, padding=4, **k)
    if op == "filtered_lrelu":
        return [x, draw(c)], lambda x, b, **k: imgops.filtered_lrelu(
            x, F4.to(x.device), F4.to(x.device), b, 2, 2, 9, clamp=2, **k
        )
    if op.startswith("modulated_conv2d"):
        up, down = ("up" in op) + 1, ("down" in op) + 1
        inputs = [x, draw(o, c, 3, 3), draw(n, c), draw(o)]
        return inputs, lambda x, weight, styles, b, **k: imgops.modulated_conv2d(
            x, weight, styles, bias=b, act="lrelu", up=up, down=down, padding=1, resample_filter=F4.to(x.device), **k
        )
    if op == "adain":
        return [x, draw(n, c, o, o)], imgops.adain
    if op == "adaptive_instance_norm":
        return [x, draw(n, c), draw(n, c)], imgops.adaptive_instance_norm
    if op == "gram_matrix":
        return [x], imgops.gram_matrix
    if op == "feature_statistics":
        return [x], imgops.feature_statistics
    if op == "style_loss":
        return [x, draw(n, c, c)], imgops.style_loss
    if op == "wasserstein_loss":
        return [x, draw(n, c), draw(n, c, c)], imgops.wasserstein_loss
    if op == "grid_sample":
        return [x, draw(n, o, o, 2)], imgops.grid_sample
    return [x, draw(n, 2, h, w)], imgops.displace


OPS = (
    "bias_act",
    "upfirdn2d",
    "upfirdn2d, learned",
    "filtered_lrelu",
    "modulated_conv2d",
    "modulated_conv2d, up",
    "modulated_conv2d, down",
    "adain",
    "adaptive_instance_norm",
    "gram_matrix",
    "feature_statistics",
    "style_loss",
    "wasserstein_loss",
    "grid_sample",
    "displace",
)


def outcome(call: Callable[..., Any], inputs: list[Tensor], impl: str) -> list[Tensor] | str:
    """Result, gradients, and gradients of their squares; or what the call says of its arguments."""
    try:
        y = call(*inputs, impl=impl)
    except ValueError as error:
        return str(error)
    y = y if isinstance(y, tuple) else (y,)
    loss = sum(t.square().sum() for t in y)
    first = torch.autograd.grad(loss, inputs, create_graph=True, materialize_grads=True)
    total = sum(g.square().sum() for g in first)
    if not total.requires_grad:
        return [*y, *first, *(torch.zeros_like(t) for t in inputs)]
    return [*y, *first, *torch.autograd.grad(total, inputs, materialize_grads=True)]


@pytest.mark.parametrize(
    ("op", "empty"),
    # the output channels, the style's pixels or the places to sample may be none as well
    [(op, e) for op in OPS for e in ("N", "C", "H", "HW", "NC")]
    + [(op, "O") for op in OPS if op.startswith("modulated_conv2d") or op in ("adain", "grid_sample")],
)
@pytest.mark.parametrize(("backend", "device"), backends(exclude=("cuda",), fast_only=True))
def test_empty_dimensions(op, empty, backend, device):
    inputs, call = operands(op, *(0 if name in empty else size for name, size in SIZES.items()))
    inputs = [t.detach().to(device).requires_grad_() for t in inputs]
    expected, actual = outcome(call, inputs, "reference"), outcome(call, inputs, backend)
    if isinstance(expected, str) or isinstance(actual, str):
        assert actual == expected
        assert expected.startswith(f"imgops.{op.split(',')[0]}: ")
        return
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e)


@pytest.mark.parametrize("shape", [(8, 0, 3, 3), (0, 4, 3, 3), (8, 4, 0, 3)])
def test_a_convolution_with_an_empty_weight_is_refused(shape):
    with pytest.raises(ValueError, match="weight must have input channels, output channels and taps; got shape"):
        imgops.modulated_conv2d(draw(2, shape[1], 16, 16), draw(*shape), draw(2, shape[1]))
