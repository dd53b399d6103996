"""``nearest_neighbor``: for each vector the one of largest cosine among others, without the matrix of all cosines."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from .. import _backend
from ..reference import nearest_neighbor as reference
from ._common import STATUSES, accumulation_dtype, check_tensor, untraced, without_autocast
from ._registration import namespace, register


def nearest_neighbor(x: Tensor, y: Tensor, *, impl: str | None = None) -> tuple[Tensor, Tensor]:
    """The nearest key by cosine for each query: ``cos(x_q, y_k) = x_q . y_k / (|x_q| |y_k|)``, largest over k.

    Beyond inputs and outputs it needs memory for the vectors once more, never for the Q * K similarities. Of keys that
    are equally near the one of the smallest index is taken; rounding decides between those that are nearly so. A vector
    of zeros has similarity 0 to all, one that holds a NaN or an infinity has NaN, which counts as the largest, as
    ``torch.max`` has it. To compare deviations from a mean, subtract it first. The similarity is differentiable to any
    order in x and y, with the index held fixed; the index has no gradient, nor has a vector of zeros.

    Args:
        x: queries [N, C, Q], float64/32/16 or bfloat16, any strides; ``features.flatten(2)`` of an image, planar or
            channels-last, is read in place.
        y: keys [N, C, K], or [1, C, K] for all samples, in x's dtype.
        impl: "reference", "cpu" or "triton"; None takes the best that is here.

    Returns:
        (similarity [N, Q] in float32, float64 where x is; index [N, Q] in int64).

    Raises:
        TypeError: x or y is no tensor of a supported dtype, or their dtypes differ.
        ValueError: x and y do not fit each other, or have no channel, or y no vector.
        RuntimeError: the backend named by ``impl`` cannot run here.
    """
    check_tensor("nearest_neighbor", "x", x, 3)
    check_tensor("nearest_neighbor", "y", y, 3)
    if y.dtype != x.dtype:
        raise TypeError(f"imgops.nearest_neighbor: y must have x's dtype {x.dtype}; got {y.dtype}")
    _check_keys(x, y)
    backend = _backend.choose("nearest_neighbor", x.device.type, impl, STATUSES)
    if backend == "reference":
        acc_dtype = accumulation_dtype(x.dtype)
        with without_autocast(x):
            return reference.nearest_neighbor(x.to(acc_dtype), y.to(acc_dtype))
    return namespace(backend).nearest_neighbor(x, y)


@untraced
def _check_keys(x: Tensor, y: Tensor) -> None:
    if y.device != x.device:
        raise ValueError(f"imgops.nearest_neighbor: y must be on x's device {x.device}; got {y.device}")
    n, c, _ = x.shape
    if y.shape[1] != c or (y.shape[0] != 1 and y.shape[0] != n):
        raise ValueError(f"imgops.nearest_neighbor: y must have shape [{n} or 1, {c}, K]; got {list(y.shape)}")
    if c == 0:
        raise ValueError(f"imgops.nearest_neighbor: x must have at least one channel; got shape {list(x.shape)}")
    if y.shape[2] == 0:
        raise ValueError(f"imgops.nearest_neighbor: y must have at least one vector; got shape {list(y.shape)}")


def _fake(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    size = [x.shape[0], x.shape[2]]
    return x.new_empty(size, dtype=accumulation_dtype(x.dtype)), x.new_empty(size, dtype=torch.int64)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs, output[1])


def _backward(
    ops: Any, ctx: Any, needs: tuple[bool, ...], d: Tensor, d_index: None
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of ``sum d cos(x_q, y_k)``: ``d (b - cos a) / |x_q|`` for x_q, with unit vectors a of x_q, b of y_k."""
    x, y, index = ctx.saved_tensors
    needs_x, needs_y = needs
    a, a_scale = reference.unit(x.to(d.dtype))
    every_channel = index[:, None].expand(x.shape)
    nearest = y.expand(x.shape[0], -1, -1).gather(2, every_channel)
    b, b_scale = reference.unit(nearest.to(d.dtype))
    similarity, d = (a * b).sum(1, keepdim=True), d[:, None]
    dx = dy = None
    if needs_x:
        dx = ((b - similarity * a) * (d * a_scale)).to(x.dtype)
    if needs_y:
        each = (a - similarity * b) * (d * b_scale)
        dy = each.new_zeros([x.shape[0], *y.shape[1:]]).scatter_add(2, every_channel, each)
        dy = (dy.sum(0, keepdim=True) if y.shape[0] == 1 else dy).to(y.dtype)
    return dx, dy


def _flops(x: Sequence[int], y: Sequence[int], *args: Any, **kwargs: Any) -> int:
    """FLOPs of the products of all queries with all keys."""
    return 2 * prod(x) * y[2]


register(
    "nearest_neighbor(Tensor x, Tensor y) -> (Tensor, Tensor)",
    fake=_fake,
    triton="nearest_neighbor",
    backward=_backward,
    setup_context=_setup_context,
    flops=_flops,
)
