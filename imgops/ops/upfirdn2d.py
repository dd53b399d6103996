"""``upfirdn2d``: pad, up-sample, filter and down-sample in one pass, and its form with an epilogue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _backend
from .._epilogue import Epilogue
from ..reference import upfirdn2d as reference
from . import bias_act
from ._algorithms import four_taps_pay
from ._common import (
    DTYPES,
    STATUSES,
    accumulation_dtype,
    check_bool,
    check_bytes,
    check_dense,
    check_ints,
    check_number,
    check_positions,
    check_tensor,
    constant_shape,
    dense_format,
    is_empty,
    untraced,
    without_autocast,
)
from ._far import is_far, what_is_read
from ._flops import resampling
from ._registration import namespace, register

#: 1-D filters of this many taps or more stay separable in :func:`setup_filter`
SEPARABLE_TAPS = 8


def setup_filter(
    taps: Sequence[float] | Sequence[Sequence[float]] | Tensor | float | None,
    *,
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1.0,
    separable: bool | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """A float32 filter for :func:`upfirdn2d`.

    Args:
        taps: the filter, 1-D or 2-D; a number or None is a single tap.
        normalize: scale it to a sum of 1, so that it keeps the mean of an image. Default True.
        flip_filter: flip it. Default False.
        gain: factor on the filtered signal. Default 1.
        separable: keep 1-D taps 1-D, for one pass per axis; default: from 8 taps on. Shorter ones become 2-D.
        device: where the filter lies. Default: where the taps lie, or the CPU.

    Returns:
        [n] where separable, else [fh, fw].

    Raises:
        TypeError: the taps are no numbers, or a flag is no boolean.
        ValueError: no taps, taps or a gain that are not finite, more than 2 dimensions, a 2-D filter that is to be
            separable, a separable one with a negative gain, taps that sum to 0 with ``normalize``.
    """
    gain = check_number("setup_filter", "gain", gain)
    normalize = check_bool("setup_filter", "normalize", normalize)
    flip_filter = check_bool("setup_filter", "flip_filter", flip_filter)
    separable = None if separable is None else check_bool("setup_filter", "separable", separable)
    if math.isinf(gain):
        raise ValueError(f"imgops.setup_filter: gain must be finite; got {gain}")
    try:
        f = torch.as_tensor(1.0 if taps is None else taps, dtype=torch.float32, device=device)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(f"imgops.setup_filter: taps must be numbers, 1-D or 2-D; {error}") from None
    if f.ndim > 2 or f.numel() == 0:
        raise ValueError(
            f"imgops.setup_filter: taps must have 1 or 2 dimensions, none empty; got shape {list(f.shape)}"
        )
    finite = f.isfinite().all()
    if _has_value(finite) and not finite:
        raise ValueError("imgops.setup_filter: taps must be finite; got NaN or infinity")
    f = f.reshape(1) if f.ndim == 0 else f
    if separable is None:
        separable = f.ndim == 1 and f.numel() >= SEPARABLE_TAPS
    if separable and f.ndim == 2:
        raise ValueError("imgops.setup_filter: separable=True takes 1-D taps; got 2-D ones")
    if separable:
        _check_root("setup_filter", gain)
    if f.ndim == 1 and not separable:
        f = f.outer(f)
    if normalize:
        # a sum of 0 is, after rounding, a small number; dividing by it would give noise
        total, rounding = f.sum(), f.numel() * torch.finfo(f.dtype).eps * f.abs().sum()
        if _has_value(total) and total.abs() <= rounding:
            raise ValueError("imgops.setup_filter: taps that sum to 0 cannot be normalized; pass normalize=False")
        f = f / total
    if flip_filter:
        f = f.flip(list(range(f.ndim)))
    return f * gain ** (f.ndim / 2)


def _has_value(result: Tensor) -> bool:
    """Whether a result can be looked at: not on the meta device, nor of a fake tensor."""
    return not result.is_meta and type(result) is Tensor


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    *,
    impl: str | None = None,
) -> Tensor:
    """Pad, up-sample, filter and down-sample each plane of a batch of images, in one pass.

    Up-sampling inserts ``up - 1`` zeros after each sample; then the padding, in samples of that image (a
    negative one crops); then the filter, by convolution; then every ``down``-th sample is kept. The output has
    ``(size * up + padding before + padding after - taps + down) // down`` samples per axis. Differentiable to any
    order with respect to x and f; the gradient for x is another upfirdn2d. The operator of Karras et al. 2020.

    Args:
        x: [N, C, H, W], float64/32/16 or bfloat16, contiguous or channels-last or any other strides.
        f: filter in any of these dtypes: [fh, fw], or [n] applied along both axes, or None for a single tap of 1. One
            in half precision is used in float32; one in float64 is rounded to the accumulation dtype. A 2-D filter of
            rank one costs what a separable one does.
        up: factor, or (x, y). Default 1.
        down: factor, or (x, y). Default 1.
        padding: p on every side, or (x, y), or (x before, x after, y before, y after). Default 0.
        flip_filter: False convolves, True correlates (as ``torch.conv2d`` does). Default False.
        gain: factor on the output. Default 1.
        impl: "reference", "cpu", "triton" or "cuda"; None takes the best that is here.

    Returns:
        [N, C, H', W'] in x's dtype, channels-last where x is.

    Raises:
        TypeError: wrong types or dtypes.
        ValueError: x is not 4-D, f has the wrong shape or device, a factor below 1, a factor or padding beyond
            2**60, an output without pixels or larger than any memory, a separable f with a negative gain.
        RuntimeError: the backend named by ``impl`` cannot run here.
    """
    op = "upfirdn2d"
    check_tensor(op, "x", x, 4)
    f = check_filter(op, "f", f, x)
    ups, downs = _pair(op, "up", up), _pair(op, "down", down)
    pads = check_padding(op, padding)
    flip_filter = check_bool(op, "flip_filter", flip_filter)
    gain = check_number(op, "gain", gain)
    if f is not None and f.ndim == 1:
        _check_root(op, gain)
    output_size(op, x, f, ups, downs, pads)
    if is_far(ups, downs, pads):
        near = what_is_read(x, filter_size(f), ups, downs, pads)
        y = _resample(x[:, :, near.rows, near.columns], f, near.up, near.down, near.padding, flip_filter, gain, impl)
        return F.pad(y, near.zeros).contiguous(memory_format=dense_format(x))
    return _resample(x, f, ups, downs, pads, flip_filter, gain, impl)


def _check_root(op: str, gain: float) -> None:
    """Raise unless a separable filter, which is applied twice, can take the root of the gain."""
    if gain < 0:
        raise ValueError(
            f"imgops.{op}: gain must be >= 0 with a separable filter, each pass of which takes its root; got {gain:g}. "
            "Negate the result, or make the filter 2-D (setup_filter with separable=False)"
        )


def _resample(
    x: Tensor,
    f: Tensor | None,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
    impl: str | None,
) -> Tensor:
    """:func:`upfirdn2d` with arguments that were checked, on whichever backend."""
    backend = choose_resampler(x, f, up, down, impl)
    if backend == "reference":
        acc_dtype = accumulation_dtype(x.dtype)
        with without_autocast(x):
            return reference.upfirdn2d(x.to(acc_dtype), f, up, down, padding, flip_filter, gain).to(x.dtype)
    return namespace(backend).upfirdn2d(x, f, up, down, padding, flip_filter, gain)


def choose_resampler(
    x: Tensor, f: Tensor | None, up: Sequence[int], down: Sequence[int], impl: str | None, act: str = "linear"
) -> str:
    """The backend that resamples x; of those on a GPU the one in CUDA C++ is best at four taps of a planar image."""
    first = "cuda" if four_taps_pay(x, f, up, down, act) else None
    return _backend.choose("upfirdn2d", x.device.type, impl, STATUSES, first)


def check_filter(op: str, name: str, f: Any, x: Tensor) -> Tensor | None:
    """The filter, in float32 at least; raise unless it is None, or one of 1 or 2 dimensions on x's device."""
    if f is None:
        return None
    if not isinstance(f, Tensor):
        raise TypeError(
            f"imgops.{op}: {name} must be a torch.Tensor or None (see setup_filter); got {type(f).__name__}"
        )
    if f.dtype not in DTYPES:
        allowed = ", ".join(str(d).removeprefix("torch.") for d in DTYPES)
        raise TypeError(f"imgops.{op}: {name} must have one of the dtypes {allowed}, whatever x has; got {f.dtype}")
    check_dense(op, name, f)
    if f.ndim not in (1, 2) or is_empty(f):
        raise ValueError(f"imgops.{op}: {name} must have 1 or 2 dimensions, none empty; got shape {list(f.shape)}")
    if f.device != x.device:
        raise ValueError(f"imgops.{op}: {name} must be on x's device {x.device}; got {f.device}")
    return f.to(accumulation_dtype(f.dtype))


def _pair(op: str, name: str, value: Any) -> tuple[int, int]:
    values = check_ints(op, name, value, (1, 2), minimum=1)
    return values[0], values[-1]


def check_padding(op: str, padding: Any) -> tuple[int, int, int, int]:
    """The padding as (x0, x1, y0, y1)."""
    p = check_ints(op, "padding", padding, (1, 2, 4))
    if len(p) == 4:
        return p[0], p[1], p[2], p[3]
    return p[0], p[0], p[-1], p[-1]


def filter_size(f: Tensor | None) -> tuple[int, int]:
    """(width, height) of a filter; one tap for None."""
    if f is None:
        return 1, 1
    shape = constant_shape(f)
    return shape[-1], shape[0]


def resampled_size(size: Sequence[int], f: Tensor | None, up: Any, down: Any, padding: Any) -> tuple[int, int]:
    """(height, width) of an image of this size once resampled; below 1 where it has no pixels."""
    (fw, fh), (h, w) = filter_size(f), size
    return (
        (h * up[1] + padding[2] + padding[3] - fh + down[1]) // down[1],
        (w * up[0] + padding[0] + padding[1] - fw + down[0]) // down[0],
    )


@untraced
def output_size(op: str, x: Tensor, f: Tensor | None, up: Any, down: Any, padding: Any) -> tuple[int, int]:
    """(height, width) of the output; raise ValueError if it has no pixels."""
    check_positions(op, x.shape[2], x.shape[3], up)
    out_h, out_w = resampled_size(x.shape[2:], f, up, down, padding)
    if out_w < 1 or out_h < 1:
        (fw, fh), (h, w) = filter_size(f), x.shape[2:]
        raise ValueError(
            f"imgops.{op}: x of {h} x {w} (height x width), up {tuple(up)}, padding {tuple(padding)} is smaller than "
            f"the filter of {fh} x {fw}; x, up and padding must leave at least one pixel"
        )
    check_bytes(op, (*x.shape[:2], out_h, out_w))
    return out_h, out_w


def fused_upfirdn2d_bias_act(
    backend: str,
    x: Tensor,
    f: Tensor | None,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    gain: float,
    epilogue: Epilogue,
) -> Tensor:
    """The epilogue of ``upfirdn2d(x, f)`` in one pass on a fast backend; arguments already checked."""
    epilogue = epilogue.to(accumulation_dtype(x.dtype))
    keep = bias_act.keeps_input((x, f), epilogue)
    return namespace(backend).upfirdn2d_bias_act(x, f, up, down, padding, False, gain, *epilogue, keep)[0]


def transposed_padding(
    size: Sequence[int], out_size: Sequence[int], f: Tensor | None, up: Any, down: Any, padding: Any
) -> tuple[int, int, int, int]:
    """Padding of the upfirdn2d, with the factors swapped, that is the transpose of the one from size to out_size."""
    (fw, fh), (h, w), (out_h, out_w) = filter_size(f), size, out_size
    return (
        fw - padding[0] - 1,
        w * up[0] - out_w * down[0] + padding[0] - up[0] + 1,
        fh - padding[2] - 1,
        h * up[1] - out_h * down[1] + padding[2] - up[1] + 1,
    )


def _transposed(
    dy: Tensor,
    x_shape: Sequence[int],
    f: Tensor | None,
    up: Any,
    down: Any,
    padding: Any,
    flip_filter: bool,
    gain: float,
) -> tuple[Any, ...]:
    """Arguments of the upfirdn2d that is the gradient for x: factors swapped, filter flipped, padding mirrored."""
    pads = transposed_padding(x_shape[2:], dy.shape[2:], f, up, down, padding)
    return dy, f, down, up, pads, not flip_filter, gain


def _filter_gradient(
    ops: Any, x: Tensor, dy: Tensor, f: Tensor, up: Any, down: Any, padding: Any, flip_filter: bool, gain: float
) -> Tensor:
    """Gradient for f: the correlation of the up-sampled, padded x with dy, tap by tap."""
    (fw, fh), (out_h, out_w) = filter_size(f), dy.shape[2:]
    acc_dtype = accumulation_dtype(x.dtype)
    padded = ops.upfirdn2d(x, None, up, (1, 1), padding, False, 1.0).to(acc_dtype)
    dy = dy.to(acc_dtype)
    taps = [
        (
            padded[:, :, i : i + (out_h - 1) * down[1] + 1 : down[1], j : j + (out_w - 1) * down[0] + 1 : down[0]] * dy
        ).sum()
        for i in range(fh)
        for j in range(fw)
    ]
    df = torch.stack(taps).reshape(fh, fw) * gain
    df = (df if flip_filter else df.flip([0, 1])).to(f.dtype)
    # a separable filter means its outer product with itself
    with without_autocast(f):
        return df if f.ndim == 2 else df @ f + df.t() @ f


def _fake(
    x: Tensor, f: Tensor | None, up: Sequence[int], down: Sequence[int], padding: Sequence[int], *rest: Any
) -> Tensor:
    size = output_size("upfirdn2d", x, f, up, down, padding)
    return x.new_empty([*x.shape[:2], *size]).contiguous(memory_format=dense_format(x))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, f, *arguments = inputs
    # x itself is needed for the gradient of f alone
    ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, f)
    ctx.x_shape, ctx.arguments = x.shape, arguments


def _backward(ops: Any, ctx: Any, needs: tuple[bool, ...], dy: Tensor) -> tuple[Any, ...]:
    x, f = ctx.saved_tensors
    dx = df = None
    if needs[0]:
        # an image without pixels has nothing to filter
        dx = (
            dy.new_zeros(ctx.x_shape)
            if 0 in ctx.x_shape
            else ops.upfirdn2d(*_transposed(dy, ctx.x_shape, f, *ctx.arguments))
        )
    if needs[1]:
        df = _filter_gradient(ops, x, dy, f, *ctx.arguments)
    return dx, df, *[None] * 5


def _fake_bias_act(x: Tensor, f: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    y, keep = _fake(x, f, *rest), rest[-1]
    return y, torch.empty_like(y) if keep else y.new_empty([0])


def _setup_context_bias_act(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    (x, f, *ctx.resample), epilogue, keep = inputs[:7], Epilogue(*inputs[7:14]), inputs[14]
    y, filtered = output
    needs_x, needs_f, needs_scale = (ctx.needs_input_grad[i] for i in (0, 1, 8))
    kept = bias_act.remember_epilogue(ctx, filtered, y, epilogue, keep, needs_x or needs_f, needs_scale)
    ctx.save_for_backward(x if needs_f else None, f if needs_x or needs_f else None, *kept)
    ctx.x_shape = x.shape


def _backward_bias_act(
    ops: Any, ctx: Any, needs: tuple[bool, ...], dy: Tensor | None, dfiltered: Tensor | None
) -> tuple[Any, ...]:
    x, f, *kept = ctx.saved_tensors
    dx = df = None
    d, *of_epilogue = bias_act.through_epilogue(
        ops, "upfirdn2d_bias_act", "the filtered image", ctx, kept, dy, dfiltered, needs[7:10]
    )
    if needs[0] and d is not None:
        dx = ops.upfirdn2d(*_transposed(d, ctx.x_shape, f, *ctx.resample))
    if needs[1] and d is not None:
        df = _filter_gradient(ops, x, d, f, *ctx.resample)
    return dx, df, *[None] * 5, *of_epilogue, *[None] * 5


def _flops(x: Any, f: Any, up: Any, down: Any, padding: Any, *args: Any, **kwargs: Any) -> int:
    return resampling(x, f, up, padding)


register(
    "upfirdn2d(Tensor x, Tensor? f, int[] up, int[] down, SymInt[] padding, bool flip_filter, float gain) -> Tensor",
    fake=_fake,
    triton="upfirdn2d",
    backward=_backward,
    setup_context=_setup_context,
    flops=_flops,
)
register(
    "upfirdn2d_bias_act(Tensor x, Tensor? f, int[] up, int[] down, SymInt[] padding, bool flip_filter, float gain, "
    "Tensor? b, Tensor? scale, Tensor? noise, str act, float alpha, float act_gain, float clamp, bool keep) -> "
    "(Tensor, Tensor)",
    fake=_fake_bias_act,
    triton="upfirdn2d",
    backward=_backward_bias_act,
    setup_context=_setup_context_bias_act,
    flops=_flops,
)
