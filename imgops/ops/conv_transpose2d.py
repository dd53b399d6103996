"""``conv_transpose2d``: PyTorch's transposed convolution with a bias, an activation and a clamp in the same pass."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .. import _backend
from .._epilogue import Epilogue
from ..reference import conv_transpose2d as reference
from ._algorithms import fused_conv2d_pays
from ._common import (
    STATUSES,
    accumulation_dtype,
    autocast_off,
    check_bytes,
    check_int,
    check_operand,
    check_pair,
    check_tensor,
    check_weight,
    constant_shape,
    is_empty,
    swapped_channels,
    untraced,
)
from .bias_act import activation_arguments
from .fused_conv2d import fused_conv2d
from .vendor_conv2d import vendor_conv_transpose2d


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    impl: str | None = None,
) -> Tensor:
    """``clamp(gain * act(conv_transpose2d(x, weight) + bias), -clamp, clamp)``, in one pass where a kernel of ours is
    the faster.

    Differentiable to any order with respect to x, weight and bias. On a CPU a planar 3 x 3 one of stride 1 or 2 is
    Winograd's in float32 and float64 (Lavin and Gray 2016), with all the rest in its own pass; in Triton all are one
    pass but dilated ones and those of several groups or of two strides. Others are the library's, with one pass after
    it.

    Args:
        x: [N, I, H, W], float64/32/16 or bfloat16, any strides. Under autocast it is cast to autocast's dtype.
        weight: [I, O / groups, kh, kw]; used in x's dtype.
        bias: [O]; None adds none.
        act, alpha, gain, clamp: the activation, as in :func:`imgops.bias_act`; its default gain is sqrt(2) for relu,
            lrelu, swish and hardswish, so give gain=1 for what PyTorch computes. Default "linear".
        stride, dilation: an int, or (height, width), >= 1. Default 1.
        padding: pixels that are cropped from all sides of the result, an int or (height, width), >= 0. Default 0.
        output_padding: rows and columns that the result has more at its end, an int or (height, width), >= 0 and
            smaller than stride or dilation. Default 0.
        groups: inputs and outputs are divided into so many, which see each other alone. Default 1.
        impl: "reference", "cpu", "triton" or "cuda"; None takes the best that is here.

    Returns:
        [N, O, H', W'] as ``torch.nn.functional.conv_transpose2d``, in x's dtype, channels-last where x is.

    Raises:
        TypeError: wrong types or dtypes.
        ValueError: shapes or devices that do not fit, an empty weight, sizes out of range, an image without pixels, a
            padding that leaves none, an output larger than any memory.
        RuntimeError: the backend named by ``impl`` cannot run here.
    """
    op = "conv_transpose2d"
    check_tensor(op, "x", x, 4)
    groups = check_int(op, "groups", groups, 1)
    check_weight(op, x, weight, groups, transposed=True)
    strides, dilations = check_pair(op, "stride", stride, 1), check_pair(op, "dilation", dilation, 1)
    pads, more = check_pair(op, "padding", padding, 0), check_pair(op, "output_padding", output_padding, 0)
    activation = activation_arguments(op, act, alpha, gain, clamp)
    if bias is not None:
        check_operand(op, "bias", bias, x, (weight.shape[1] * groups,))
    _check_sizes(op, x, weight, strides, pads, more, dilations, groups)
    backend = _backend.choose(op, x.device.type, impl, STATUSES)
    if is_empty(x):
        backend = "reference"
    if 1 in constant_shape(weight):
        # the stride of a side of 1 is arbitrary, and PyTorch's convolution on the CPU crashes on some in its gradient
        weight = weight.contiguous()
    epilogue = Epilogue(bias, None, None, *activation)
    with autocast_off(x) as x:
        if backend == "reference":
            acc_dtype = accumulation_dtype(x.dtype)
            y = reference.conv_transpose2d(
                x.to(acc_dtype), weight.to(acc_dtype), epilogue.to(acc_dtype), strides, pads, more, dilations, groups
            )
            return y.to(x.dtype)
        weight = weight.to(x.dtype)
        if dilations == (1, 1):
            convolved = swapped_channels(weight, groups)
            kh, kw = constant_shape(weight)[2:]
            if strides == (1, 1) and fused_conv2d_pays(backend, x, convolved, strides, (1, 1), groups):
                around = (kw - 1 - pads[1],) * 2 + (kh - 1 - pads[0],) * 2
                return fused_conv2d(backend, x, convolved.flip([2, 3]), None, epilogue, 1, around, 1, groups)
            crop = pads[1], pads[1] - more[1], pads[0], pads[0] - more[0]
            if fused_conv2d_pays(backend, x, convolved, strides, (1, 1), groups, crop):
                return fused_conv2d(backend, x, convolved, None, epilogue, 1, crop, strides[0], groups)
        return vendor_conv_transpose2d(backend, x, weight, epilogue, strides, pads, more, dilations, groups)


@untraced
def _check_sizes(
    op: str,
    x: Tensor,
    weight: Tensor,
    strides: tuple[int, int],
    pads: tuple[int, int],
    more: tuple[int, int],
    dilations: tuple[int, int],
    groups: int,
) -> None:
    if any(m >= max(s, d) for m, s, d in zip(more, strides, dilations, strict=True)):
        raise ValueError(
            f"imgops.{op}: output_padding must be smaller than stride {strides[0]} x {strides[1]} or dilation "
            f"{dilations[0]} x {dilations[1]} (height x width); got {more[0]} x {more[1]}"
        )
    if 0 in x.shape[2:]:
        raise ValueError(f"imgops.{op}: x must have pixels; got shape {list(x.shape)}")
    full = [
        (size - 1) * stride + dilation * (taps - 1) + 1 + m
        for size, stride, dilation, taps, m in zip(x.shape[2:], strides, dilations, weight.shape[2:], more, strict=True)
    ]
    out = [size - 2 * pad for size, pad in zip(full, pads, strict=True)]
    if any(size < 1 for size in out):
        raise ValueError(
            f"imgops.{op}: padding must leave a pixel of the result, which is {full[0]} x {full[1]} (height x width) "
            f"without; got {pads[0]} x {pads[1]}"
        )
    check_bytes(op, (x.shape[0], weight.shape[1] * groups, *out))
