"""``efdm``, exact feature distribution matching, and the sort that it shares with the sliced Wasserstein loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _backend
from ..reference import efdm as reference
from ._common import (
    STATUSES,
    accumulation_dtype,
    check_number,
    check_tensor,
    dense_format,
    gradient_wanted,
    untraced,
)
from ._registration import check_kept, namespace, register


def efdm(x: Tensor, y: Tensor, *, alpha: float = 1.0, impl: str | None = None) -> Tensor:
    """Exact feature distribution matching (Zhang et al. 2022, eq. 7): give the channels of x the values of y, by rank.

    In each channel of each sample the smallest value of x becomes the smallest of y's, and so on. If they differ in
    size, the j-th of x's K pixels becomes the quantile (j + 0.5) / K of y's M: the value at the place
    ``(j + 0.5) * M / K - 0.5``, from 0, among the sorted ones, linear between two of them, and at the ends the nearest.
    Equal values keep the order of their pixels. A NaN ranks above all numbers; where x is not finite the result is not
    either.

    The gradient for x is straight-through, as the paper has it: that of the result, whatever ``alpha`` is. The gradient
    for y is the exact one: each value gets that of the pixels it went to. Differentiable to any order in both.

    Args:
        x: [N, C, H, W], float64/32/16 or bfloat16, any strides.
        y: [N or 1, C, H', W'] in any of these dtypes; the height and width may differ from x's.
        alpha: how much of y's values, from 0, x itself, to 1. Default 1.
        impl: "reference", "cpu" or "triton"; None takes the best that is here.

    Returns:
        ``alpha * matched + (1 - alpha) * x``, of x's shape and dtype, channels-last where x is.

    Raises:
        TypeError: x or y is no tensor of a supported dtype, or alpha no number.
        ValueError: they do not fit each other or have no pixels, or alpha is not in [0, 1].
        RuntimeError: the backend named by ``impl`` cannot run here.
    """
    check_tensor("efdm", "x", x, 4)
    check_tensor("efdm", "y", y, 4)
    _check(x, y)
    if check_number("efdm", "alpha", alpha, minimum=0) > 1:
        raise ValueError(f"imgops.efdm: alpha must be <= 1; got {alpha}")
    backend = _backend.choose("efdm", x.device.type, impl, STATUSES)
    dtype = torch.promote_types(x.dtype, y.dtype)
    if backend == "reference":
        dtype = accumulation_dtype(dtype)
        out = reference.efdm(x.to(dtype), y.to(dtype), float(alpha)).to(x.dtype)
        return out.contiguous(memory_format=dense_format(x))
    constant = x.detach()
    out, _, _ = namespace(backend).efdm(constant.to(dtype), y.to(dtype), float(alpha), gradient_wanted(y))
    out = out.to(x.dtype)
    # adds 0, with the gradient 1
    return out + (x - constant) if gradient_wanted(x) else out


@untraced
def _check(x: Tensor, y: Tensor) -> None:
    n, c = x.shape[:2]
    if y.device != x.device:
        raise ValueError(f"imgops.efdm: y must be on x's device {x.device}; got {y.device}")
    if y.shape[1] != c or y.shape[0] not in (n, 1):
        raise ValueError(f"imgops.efdm: y must have shape [{n} or 1, {c}, H, W]; got {list(y.shape)}")
    for name, t in (("x", x), ("y", y)):
        if t.shape[2] * t.shape[3] < 1:
            raise ValueError(f"imgops.efdm: {name} must have at least 1 pixel; got shape {list(t.shape)}")


def sort_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [..., K] with its last dimension from small to large, differentiable to any order, and where each value came
    from: as ``torch.sort``, stable, by the backend that efdm takes."""
    backend = _backend.choose("efdm", x.device.type, None, STATUSES)
    return x.sort(dim=-1, stable=True) if backend == "reference" else namespace(backend).sort_rows(x)


def _fake(x: Tensor, y: Tensor, alpha: float, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    out = torch.empty_like(x, memory_format=dense_format(x))
    x_order, y_order = (
        t.new_empty([*t.shape[:2], t.shape[2] * t.shape[3]] if keep else [0], dtype=torch.int32) for t in (x, y)
    )
    return out, x_order, y_order


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, y, ctx.alpha, ctx.keep = inputs
    ctx.y_shape = y.shape
    ctx.save_for_backward(*output[1:])


def _backward(
    ops: Any, ctx: Any, needs: tuple[bool, ...], dout: Tensor, *of_orders: Tensor | None
) -> tuple[Tensor | None, ...]:
    x_order, y_order = ctx.saved_tensors
    dy = None
    if needs[1] and dout.shape[0] == 0:
        # without a sample of x the order of y was not looked for
        dy = dout.new_zeros(ctx.y_shape)
    elif needs[1]:
        check_kept("efdm", "the order of the pixels", ctx.keep)
        # what each quantile gets, then each sorted value
        of_ranks = ctx.alpha * dout.flatten(2).to(accumulation_dtype(dout.dtype)).gather(2, x_order.long())
        if y_order.shape[0] == 1:
            of_ranks = of_ranks.sum(0, keepdim=True)
        of_values = of_ranks
        if y_order.shape[2] != of_ranks.shape[2]:
            low, high, along = reference.positions(y_order.shape[2], of_ranks.shape[2], dout.device, of_ranks.dtype)
            of_values = of_ranks.new_zeros(y_order.shape)
            of_values = of_values.index_add(2, low, of_ranks * (1 - along)).index_add(2, high, of_ranks * along)
        dy = torch.zeros_like(of_values).scatter(2, y_order.long(), of_values).to(dout.dtype).view(ctx.y_shape)
    return (1 - ctx.alpha) * dout if needs[0] else None, dy, None, None


def _fake_sort_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape, dtype=torch.int32)


def _setup_context_sort_rows(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])


def _backward_sort_rows(
    ops: Any, ctx: Any, needs: tuple[bool, ...], dvalues: Tensor, of_order: Tensor | None
) -> tuple[Tensor]:
    (order,) = ctx.saved_tensors
    return (torch.zeros_like(dvalues).scatter(-1, order.long(), dvalues),)


register(
    "efdm(Tensor x, Tensor y, float alpha, bool keep) -> (Tensor, Tensor, Tensor)",
    fake=_fake,
    triton="efdm",
    backward=_backward,
    setup_context=_setup_context,
)
register(
    "sort_rows(Tensor x) -> (Tensor, Tensor)",
    fake=_fake_sort_rows,
    triton="efdm",
    backward=_backward_sort_rows,
    setup_context=_setup_context_sort_rows,
)
