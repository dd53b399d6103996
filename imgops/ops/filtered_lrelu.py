"""``filtered_lrelu``: bias, up-sample, leaky ReLU, clamp and down-sample, with nothing kept at the high resolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _backend
from ..reference import filtered_lrelu as reference
from ._algorithms import one_cuda_pass_pays
from ._common import (
    STATUSES,
    accumulation_dtype,
    check_bool,
    check_int,
    check_number,
    check_operand,
    check_tensor,
    dense_format,
    gradient_wanted,
    gradients_on,
    untraced,
    without_autocast,
)
from ._far import is_far
from ._flops import two_resamplings
from ._registration import check_kept, namespace, register
from .bias_act import bias_act
from .upfirdn2d import (
    check_filter,
    check_padding,
    filter_size,
    output_size,
    resampled_size,
    transposed_padding,
    upfirdn2d,
)

#: rows of the up-sampled image that share a byte of the sign mask
PACKED = 4
_NO_PADDING, _ONE = (0, 0, 0, 0), (1, 1)


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None = None,
    fd: Tensor | None = None,
    b: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    gain: float = math.sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
    *,
    impl: str | None = None,
) -> Tensor:
    """Leaky ReLU between two filters, in one pass: the alias-free nonlinearity of Karras et al. 2021.

    Adds the bias; up-samples with ``fu`` as :func:`upfirdn2d` does, times ``up ** 2``, which keeps the mean; applies
    ``clamp(gain * lrelu(z), -clamp, clamp)``; then filters with ``fd`` and keeps every ``down``-th pixel. The
    up-sampled image is never in memory. Where a gradient will be needed the pass writes 2 bits for each of its pixels,
    and the backward is the same pass with those in place of the activation. Differentiable to any order with respect
    to x and b, and to fu and fd, for which each step runs as an op of its own.

    Args:
        x: [N, C, H, W], float64/32/16 or bfloat16, any strides. Arithmetic is in float32 at least.
        fu: up-sampling filter, float32 (or float64): [n] applied along both axes, or [fh, fw], or None for a single
            tap of 1. One of rank one costs what a separable one does.
        fd: down-sampling filter, likewise.
        b: bias [C] in any of x's dtypes; None adds none.
        up: factor, an int >= 1. Default 1.
        down: factor, an int >= 1. Default 1.
        padding: p on every side, or (x, y), or (x before, x after, y before, y after), in pixels of the up-sampled
            image; a negative one crops. Default 0.
        gain: factor after the activation. Default sqrt(2).
        slope: of the activation below 0. Default 0.2.
        clamp: limit of the activation's magnitude, >= 0; None clamps nothing.
        flip_filter: False convolves, True correlates (as ``torch.conv2d`` does). Default False.
        impl: "reference", "cpu", "triton" or "cuda"; None takes the best that is here.

    Returns:
        [N, C, H', W'] in x's dtype, channels-last where x is, with
        ``H' = (H * up + padding before + padding after - taps of fu + 1 - taps of fd) // down + 1``.

    Raises:
        TypeError: wrong types or dtypes.
        ValueError: x is not 4-D, b does not fit it, a filter has the wrong shape or device, a factor or clamp out of
            range, an output without pixels.
        RuntimeError: the backend named by ``impl`` cannot run here.
    """
    op = "filtered_lrelu"
    check_tensor(op, "x", x, 4)
    fu, fd = check_filter(op, "fu", fu, x), check_filter(op, "fd", fd, x)
    if b is not None:
        check_operand(op, "b", b, x, (x.shape[1],))
    up, down = check_int(op, "up", up, 1), check_int(op, "down", down, 1)
    pads = check_padding(op, padding)
    settings: dict[str, Any] = {
        "gain": check_number(op, "gain", gain),
        "slope": check_number(op, "slope", slope),
        "clamp": -1.0 if clamp is None else check_number(op, "clamp", clamp, minimum=0),
        "flip_filter": check_bool(op, "flip_filter", flip_filter),
    }
    sizes(x, fu, fd, up, down, pads)
    backend = _backend.choose(
        op, x.device.type, impl, STATUSES, "cuda" if one_cuda_pass_pays(x, fu, fd, up, down) else None
    )
    acc_dtype = accumulation_dtype(x.dtype)
    b = None if b is None else b.to(acc_dtype)
    learned = gradients_on() and any(f is not None and (f.requires_grad or _is_batched(f)) for f in (fu, fd))
    if is_far((up,), (down,), pads) or (learned and backend != "reference"):
        return _composition(backend, x.to(acc_dtype), fu, fd, b, up, down, pads, **settings).to(x.dtype)
    if backend == "reference":
        with without_autocast(x):
            y = reference.filtered_lrelu(x.to(acc_dtype), fu, fd, b, up, down, pads, **settings)
            return y.to(x.dtype)
    # gain, slope, clamp and flip_filter, in the order of the schema
    return namespace(backend).filtered_lrelu(x, fu, fd, b, up, down, pads, *settings.values(), gradient_wanted(x, b))[0]


def _is_batched(f: Tensor) -> bool:
    """Whether f comes from torch.func.vmap; such a tensor does not say that it requires a gradient."""
    return not torch.compiler.is_compiling() and torch._C._functorch.is_batchedtensor(f)


@untraced
def sizes(
    x: Tensor, fu: Tensor | None, fd: Tensor | None, up: int, down: int, padding: Sequence[int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of the up-sampled image and of the output; raise ValueError if one has no pixels."""
    high = output_size("filtered_lrelu", x, fu, (up, up), _ONE, padding)
    low = resampled_size(high, fd, _ONE, (down, down), _NO_PADDING)
    # compared one by one, as min would make a compiler compare open sizes with each other
    if low[0] < 1 or low[1] < 1:
        fw, fh = filter_size(fd)
        raise ValueError(
            f"imgops.filtered_lrelu: x, up, padding and fu make an image of {high[0]} x {high[1]} (height x width), "
            f"smaller than fd of {fh} x {fw}; they must leave at least one pixel"
        )
    return high, low


def _composition(
    backend: str,
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    b: Tensor | None,
    up: int,
    down: int,
    padding: Sequence[int],
    *,
    gain: float,
    slope: float,
    clamp: float,
    flip_filter: bool,
) -> Tensor:
    """filtered_lrelu by ops that are differentiable to any order in all inputs, and take any factor and padding."""
    z = upfirdn2d(bias_act(x, b, impl=backend), fu, up, 1, padding, flip_filter, float(up**2), impl=backend)
    a = bias_act(z, None, 1, "lrelu", slope, gain, None if clamp < 0 else clamp, impl=backend)
    return upfirdn2d(a, fd, 1, down, 0, flip_filter, impl=backend)


def _fake(
    x: Tensor, fu: Any, fd: Any, b: Any, up: int, down: int, padding: Sequence[int], *rest: Any
) -> tuple[Tensor, Tensor]:
    (high_h, high_w), low = sizes(x, fu, fd, up, down, padding)
    form = dense_format(x)
    y = x.new_empty([*x.shape[:2], *low]).contiguous(memory_format=form)
    if not rest[-1]:
        return y, x.new_empty([0], dtype=torch.uint8)
    packed = [*x.shape[:2], (high_h + PACKED - 1) // PACKED, high_w]
    return y, x.new_empty(packed, dtype=torch.uint8).contiguous(memory_format=form)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, fu, fd, _, up, down, padding, gain, slope, _, flip_filter, ctx.keep = inputs
    ctx.save_for_backward(output[1], fu, fd)
    ctx.x_shape = x.shape
    ctx.arguments = up, down, padding, _NO_PADDING, flip_filter, float(up**2), 1.0, gain, slope


def _transposed(
    ops: Any,
    dy: Tensor,
    sign_mask: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    x_shape: Sequence[int],
    arguments: Any,
) -> Tensor:
    """The transpose of :func:`filtered_lrelu_slopes` with these arguments: the same op, run from its other end."""
    if 0 in x_shape:
        return dy.new_zeros(x_shape)
    up, down, padding_up, padding_down, flip_filter, gain_up, gain_down, gain, slope = arguments
    ups, downs = (up, up), (down, down)
    high = resampled_size(x_shape[2:], fu, ups, _ONE, padding_up)
    before = transposed_padding(high, dy.shape[2:], fd, _ONE, downs, padding_down)
    after = transposed_padding(x_shape[2:], high, fu, ups, _ONE, padding_up)
    return ops.filtered_lrelu_slopes(
        dy, sign_mask, fd, fu, down, up, before, after, not flip_filter, gain_down, gain_up, gain, slope
    )


def _backward(
    ops: Any, ctx: Any, needs: tuple[bool, ...], dy: Tensor | None, d_sign_mask: Tensor | None
) -> tuple[Any, ...]:
    sign_mask, fu, fd = ctx.saved_tensors
    check_kept("filtered_lrelu", "the images that the filters read", not (needs[1] or needs[2]))
    check_kept("filtered_lrelu", "the sign mask", ctx.keep)
    dx = db = None
    if dy is not None and (needs[0] or needs[3]):
        dx = _transposed(ops, dy, sign_mask, fu, fd, ctx.x_shape, ctx.arguments)
        if needs[3]:
            db = dx.sum([0, 2, 3], dtype=accumulation_dtype(dx.dtype))
    return dx if needs[0] else None, None, None, db, *[None] * 8


def _fake_slopes(
    x: Tensor, sign_mask: Tensor, fu: Any, fd: Any, up: int, down: int, padding_up: Any, padding_down: Any, *rest: Any
) -> Tensor:
    high = resampled_size(x.shape[2:], fu, (up, up), _ONE, padding_up)
    low = resampled_size(high, fd, _ONE, (down, down), padding_down)
    return x.new_empty([*x.shape[:2], *low]).contiguous(memory_format=dense_format(sign_mask))


def _setup_context_slopes(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, sign_mask, fu, fd, *ctx.arguments = inputs
    ctx.save_for_backward(sign_mask, fu, fd)
    ctx.x_shape = x.shape


def _backward_slopes(ops: Any, ctx: Any, needs: tuple[bool, ...], dy: Tensor) -> tuple[Any, ...]:
    if needs[2] or needs[3]:
        raise RuntimeError("imgops::filtered_lrelu_slopes: has no gradient for its filters")
    sign_mask, fu, fd = ctx.saved_tensors
    dx = _transposed(ops, dy, sign_mask, fu, fd, ctx.x_shape, ctx.arguments) if needs[0] else None
    return dx, *[None] * 12


def _flops(x: Any, fu: Any, fd: Any, b: Any, up: int, down: int, padding: Any, *args: Any, **kwargs: Any) -> int:
    return two_resamplings(x, fu, fd, up, padding, _NO_PADDING)


def _flops_slopes(
    x: Any,
    sign_mask: Any,
    fu: Any,
    fd: Any,
    up: int,
    down: int,
    padding_up: Any,
    padding_down: Any,
    *args: Any,
    **kwargs: Any,
) -> int:
    return two_resamplings(x, fu, fd, up, padding_up, padding_down)


register(
    "filtered_lrelu(Tensor x, Tensor? fu, Tensor? fd, Tensor? b, int up, int down, SymInt[] padding, float gain, "
    "float slope, float clamp, bool flip_filter, bool keep) -> (Tensor, Tensor)",
    fake=_fake,
    triton="filtered_lrelu",
    backward=_backward,
    setup_context=_setup_context,
    flops=_flops,
)
register(
    "filtered_lrelu_slopes(Tensor x, Tensor sign_mask, Tensor? fu, Tensor? fd, int up, int down, SymInt[] padding_up, "
    "SymInt[] padding_down, bool flip_filter, float gain_up, float gain_down, float gain, float slope) -> Tensor",
    fake=_fake_slopes,
    triton="filtered_lrelu",
    backward=_backward_slopes,
    setup_context=_setup_context_slopes,
    flops=_flops_slopes,
)
