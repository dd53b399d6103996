"""``conv2d``: PyTorch's convolution with a residual, a bias, an activation and a clamp in the same pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from .. import _backend
from .._epilogue import Epilogue
from ..reference import conv2d as reference
from ._algorithms import depthwise_pays, fused_conv2d_pays
from ._common import (
    STATUSES,
    accumulation_dtype,
    autocast_off,
    check_bytes,
    check_int,
    check_number,
    check_operand,
    check_pair,
    check_tensor,
    check_weight,
    constant_shape,
    is_empty,
    untraced,
)
from .bias_act import activation_arguments
from .depthwise_conv2d import depthwise_conv2d
from .fused_conv2d import fused_conv2d
from .vendor_conv2d import in_passes, vendor_conv2d

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
PADDING_MODES: tuple[PaddingMode, ...] = get_args(PaddingMode)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    padding_mode: PaddingMode = "zeros",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    impl: str | None = None,
) -> Tensor:
    """``clamp(gain * act(conv2d(x, weight) + residual_scale * residual + bias), -clamp, clamp)``, in one pass where a
    kernel of ours is the faster.

    Differentiable to any order with respect to x, weight, bias and residual. On a CPU a planar 3 x 3 convolution of
    stride 1 or 2 is Winograd's in float32 and float64 (Lavin and Gray 2016), with all the rest in its own pass; so is
    one of 3 x 3, 5 x 5 or 7 x 7 taps for each channel by itself (depthwise), which is summed directly. In Triton all
    are one pass but dilated ones and those of several groups or of two strides. Others are the library's, with one pass
    after it, and one for the residual, which a depthwise one takes as well.

    Args:
        x: [N, I, H, W], float64/32/16 or bfloat16, any strides. Under autocast it is cast to autocast's dtype.
        weight: [O, I / groups, kh, kw]; used in x's dtype.
        bias: [O]; None adds none.
        residual: [N, O, H', W'], as the result, any strides; used in x's dtype. None adds none.
        residual_scale: its factor, before the activation and the gain: gain=0.2 and residual_scale=5 make
            0.2 * conv2d(x, weight, bias) + residual. Default 1.
        act, alpha, gain, clamp: the activation, as in :func:`imgops.bias_act`; its default gain is sqrt(2) for relu,
            lrelu, swish and hardswish, so give gain=1 for what PyTorch computes. relu with gain=1 and clamp=6 is ReLU6.
            Default "linear".
        stride, dilation: an int, or (height, width), >= 1. Default 1.
        padding: pixels on both sides, an int or (height, width), >= 0. Default 0.
        padding_mode: what they hold: "zeros" (default), "reflect", "replicate" or "circular".
        groups: inputs and outputs are divided into so many, which see each other alone. Default 1.
        impl: "reference", "cpu", "triton" or "cuda"; None takes the best that is here.

    Returns:
        [N, O, H', W'] as ``torch.nn.functional.conv2d``, in x's dtype, channels-last where x is.

    Raises:
        TypeError: wrong types or dtypes.
        ValueError: shapes or devices that do not fit, an empty weight, sizes out of range, an image that is smaller
            than the weight or the padding allows, an output larger than any memory.
        RuntimeError: the backend named by ``impl`` cannot run here.
    """
    op = "conv2d"
    strides, dilations = check_pair(op, "stride", stride, 1), check_pair(op, "dilation", dilation, 1)
    pad_y, pad_x = check_pair(op, "padding", padding, 0)
    if padding_mode not in PADDING_MODES:
        raise ValueError(f"imgops.{op}: padding_mode must be one of {', '.join(PADDING_MODES)}; got {padding_mode!r}")
    epilogue = Epilogue(bias, None, None, *activation_arguments(op, act, alpha, gain, clamp))
    groups = check_int(op, "groups", groups, 1)
    residual_scale = check_number(op, "residual_scale", residual_scale)
    pads = (pad_x, pad_x, pad_y, pad_y)
    return padded_conv2d(
        x, weight, epilogue, strides, pads, padding_mode, dilations, groups, impl, residual, residual_scale
    )


def padded_conv2d(
    x: Tensor,
    weight: Tensor,
    epilogue: Epilogue,
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    padding_mode: PaddingMode,
    dilation: tuple[int, int],
    groups: int,
    impl: str | None = None,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
) -> Tensor:
    """:func:`conv2d` with a padding for each side (left, right, top, bottom) and a whole epilogue.

    It checks tensors and sizes; the rest is taken as given.
    """
    check_tensors(x, weight, epilogue.b, stride, padding, padding_mode, dilation, groups, residual)
    backend = _backend.choose("conv2d", x.device.type, impl, STATUSES)
    if is_empty(x):
        # oneDNN refuses an image without pixels, even if the padding adds some
        backend = "reference"
    if 1 in constant_shape(weight):
        # the stride of a side of 1 is arbitrary, and PyTorch's convolution on the CPU crashes on some in its gradient
        weight = weight.contiguous()
    with autocast_off(x) as x:
        depthwise = dilation == (1, 1) and depthwise_pays(backend, x, weight, stride, groups)
        fuses = dilation == (1, 1) and fused_conv2d_pays(backend, x, weight, (1, 1), stride, groups)
        x0, x1, y0, y1 = padding
        copied = (x0 != x1 or y0 != y1) and not (depthwise or fuses) if padding_mode == "zeros" else max(padding) > 0
        if copied:
            x = F.pad(x, padding, "constant" if padding_mode == "zeros" else padding_mode)
            x0, x1, y0, y1 = padding = (0, 0, 0, 0)
        if backend == "reference":
            acc_dtype = accumulation_dtype(x.dtype)
            if residual is not None:
                residual = residual.to(acc_dtype)
            y = reference.conv2d(
                x.to(acc_dtype), weight.to(acc_dtype), residual, residual_scale, epilogue.to(acc_dtype), stride,
                (y0, x0), dilation, groups,
            )  # fmt: skip
            return y.to(x.dtype)
        weight = weight.to(x.dtype)
        if residual is not None:
            residual = residual.to(x.dtype)
        if depthwise and residual is None:
            return depthwise_conv2d(x, weight, epilogue, stride[0], padding)
        if depthwise:
            return in_passes(
                backend,
                x,
                epilogue,
                lambda b: depthwise_conv2d(x, weight, Epilogue(b), stride[0], padding),
                residual,
                residual_scale,
            )
        if fuses:
            return fused_conv2d(
                backend, x, weight, None, epilogue, stride[0], padding, 1, groups, residual, residual_scale
            )
        return vendor_conv2d(backend, x, weight, epilogue, stride, (y0, x0), dilation, groups, residual, residual_scale)


def check_tensors(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    padding_mode: PaddingMode,
    dilation: tuple[int, int],
    groups: int,
    residual: Tensor | None,
) -> None:
    """Raise unless the tensors of :func:`padded_conv2d` fit each other."""
    op = "conv2d"
    check_tensor(op, "x", x, 4)
    check_weight(op, x, weight, groups)
    if bias is not None:
        check_operand(op, "bias", bias, x, (weight.shape[0],))
    out = _output_size(op, x, weight, stride, padding, padding_mode, dilation)
    if residual is not None:
        check_operand(op, "residual", residual, x, out)


@untraced
def _output_size(
    op: str,
    x: Tensor,
    weight: Tensor,
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    padding_mode: str,
    dilations: tuple[int, int],
) -> tuple[int, ...]:
    """The size of the result; raise ValueError where there is none."""
    x0, x1, y0, y1 = padding
    pads, sums, out = (max(y0, y1), max(x0, x1)), (y0 + y1, x0 + x1), [x.shape[0], weight.shape[0]]
    for axis, (size, taps) in enumerate(zip(x.shape[2:], weight.shape[2:], strict=True)):
        stride, dilation, pad, padded = strides[axis], dilations[axis], pads[axis], size + sums[axis]
        most = {"reflect": size - 1, "circular": size, "replicate": pad if size else 0}.get(padding_mode, pad)
        if pad > most:
            raise ValueError(
                f"imgops.{op}: padding must be at most {most} by {padding_mode} of x of {x.shape[2]} x {x.shape[3]} "
                f"(height x width); got {pads[0]} x {pads[1]}"
            )
        reach = dilation * (taps - 1) + 1
        if padded < reach:
            raise ValueError(
                f"imgops.{op}: x of {x.shape[2]} x {x.shape[3]} (height x width), padding {pads[0]} x {pads[1]}, is "
                f"smaller than the weight of {weight.shape[2]} x {weight.shape[3]} with dilation {dilations[0]} x "
                f"{dilations[1]}; x and padding must leave at least one pixel"
            )
        out.append((padded - reach) // stride + 1)
    check_bytes(op, out)
    return tuple(out)
