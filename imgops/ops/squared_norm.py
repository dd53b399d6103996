"""``squared_norm``, the sums of squares that demodulation needs, in one read of the weights on the CPU."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..reference import modulated_conv2d as reference
from ._registration import namespace, register


def squared_norm(backend: str, weight: Tensor) -> Tensor:
    """Sum over the taps of the squares of weight [O, I, kh, kw], as [O, I]; float32 or float64."""
    return namespace(backend).squared_norm(weight) if backend == "cpu" else reference.squared_norm(weight)


def _fake(weight: Tensor) -> Tensor:
    return weight.new_empty(weight.shape[:2])


def _setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ops: Any, ctx: Any, needs: tuple[bool, ...], d: Tensor) -> Tensor:
    return ctx.saved_tensors[0] * (2 * d)[:, :, None, None]


register(
    "squared_norm(Tensor weight) -> Tensor", fake=_fake, triton=None, backward=_backward, setup_context=_setup_context
)
