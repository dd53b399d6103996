"""Depthwise convolution and epilogue in one pass on the CPU, and its gradients.

Each channel has taps of its own, k x k, and all gradients are convolutions of the same kind, or sums of products with
``dy``: with zeros between the pixels of x (``up``), the op is the transposed convolution as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._epilogue import Epilogue
from . import bias_act
from ._common import accumulation_dtype, dense_format
from ._flops import convolution
from ._registration import namespace, register

_PLAIN = Epilogue()


def depthwise_conv2d(
    x: Tensor, weight: Tensor, epilogue: Epilogue, stride: int, padding: tuple[int, int, int, int]
) -> Tensor:
    """The epilogue of ``conv2d(x, weight, groups=C)`` in one pass; arguments already checked.

    Shapes: x [N, C, H, W]; weight [C, 1, k, k] in x's dtype; padding (x0, x1, y0, y1).
    """
    epilogue = epilogue.to(accumulation_dtype(x.dtype))
    keep = bias_act.keeps_input((x, weight), epilogue)
    return namespace("cpu").depthwise_conv2d(x, weight, stride, padding, 1, *epilogue, keep)[0]


def _output_shape(x: Tensor, kernel: int, stride: int, padding: Sequence[int], up: int) -> list[Any]:
    n, channels, h, w = x.shape
    x0, x1, y0, y1 = padding
    height, width = ((size - 1) * up + 1 + pads - kernel for size, pads in ((h, y0 + y1), (w, x0 + x1)))
    return [n, channels, height // stride + 1, width // stride + 1]


def _fake(x: Tensor, weight: Tensor, stride: int, padding: Sequence[int], up: int, *rest: Any) -> tuple[Tensor, Tensor]:
    shape = _output_shape(x, weight.shape[2], stride, padding, up)
    y = x.new_empty(shape).contiguous(memory_format=dense_format(x))
    return y, torch.empty_like(y) if rest[-1] else y.new_empty([0])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    (x, weight, *ctx.convolution), epilogue, keep = inputs[:5], Epilogue(*inputs[5:12]), inputs[12]
    y, u = output
    needs_x, needs_weight, needs_scale = (ctx.needs_input_grad[i] for i in (0, 1, 6))
    kept = bias_act.remember_epilogue(ctx, u, y, epilogue, keep, needs_x or needs_weight, needs_scale)
    # each is a factor of the other's gradient
    ctx.save_for_backward(x if needs_weight else None, weight if needs_x else None, *kept)
    ctx.x_shape, ctx.taps = x.shape, weight.shape[2]


def _backward(ops: Any, ctx: Any, needs: tuple[bool, ...], dy: Tensor | None, du: Tensor | None) -> tuple[Any, ...]:
    x, weight, *kept = ctx.saved_tensors
    dx = dweight = None
    d, *of_epilogue = bias_act.through_epilogue(
        ops, "depthwise_conv2d", "the convolution's output", ctx, kept, dy, du, needs[5:8]
    )
    if d is not None and needs[0]:
        dx = _input_gradient(ops, d, ctx.x_shape, weight, *ctx.convolution)
    if d is not None and needs[1]:
        dweight = _weight_gradient(ops, d, x, ctx.taps, *ctx.convolution)
    return dx, dweight, *[None] * 3, *of_epilogue, *[None] * 5


def _mirrored(
    x_shape: Sequence[int], dy: Tensor, kernel: int, stride: int, padding: Sequence[int], up: int
) -> tuple[int, list[Any], int]:
    """(stride, padding, up) of the convolution of dy, by flipped taps, that is of x's shape."""
    x0, _, y0, _ = padding

    def pads(before: Any, size: Any, out: Any) -> list[Any]:
        return [kernel - 1 - before, (size - 1) * up + before - (out - 1) * stride]

    return up, [*pads(x0, x_shape[3], dy.shape[3]), *pads(y0, x_shape[2], dy.shape[2])], stride


def _input_gradient(
    ops: Any, d: Tensor, x_shape: Sequence[int], weight: Tensor, stride: int, padding: Sequence[int], up: int
) -> Tensor:
    """Gradient of the convolution for its input, of x's shape: another convolution."""
    mirrored = _mirrored(x_shape, d, weight.shape[2], stride, padding, up)
    return ops.depthwise_conv2d(d, weight.flip([2, 3]), *mirrored, *_PLAIN, False)[0]


def _weight_gradient(
    ops: Any, d: Tensor, x: Tensor, kernel: int, stride: int, padding: Sequence[int], up: int
) -> Tensor:
    """Gradient of the convolution of x for its weight."""
    if up == 1:
        return ops.depthwise_weight_gradient(d, x, stride, padding, kernel)
    # x is the mirrored convolution of d, by flipped taps
    stride, padding, _ = _mirrored(x.shape, d, kernel, stride, padding, up)
    return ops.depthwise_weight_gradient(x, d, stride, padding, kernel).flip([2, 3])


def _fake_weight_gradient(dy: Tensor, x: Tensor, stride: int, padding: Sequence[int], kernel: int) -> Tensor:
    return x.new_empty([x.shape[1], 1, kernel, kernel])


def _setup_context_weight_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    dy, x, ctx.stride, ctx.padding, _ = inputs
    # each is a factor of the other's gradient
    needs_dy, needs_x = ctx.needs_input_grad[:2]
    ctx.save_for_backward(dy if needs_x else None, x if needs_dy else None)
    ctx.x_shape = x.shape


def _backward_weight_gradient(ops: Any, ctx: Any, needs: tuple[bool, ...], v: Tensor) -> tuple[Any, ...]:
    """Gradients of <v, dweight> = <dy, conv2d(x, v)>."""
    dy, x = ctx.saved_tensors
    convolution = ctx.stride, ctx.padding, 1
    return (
        ops.depthwise_conv2d(x, v, *convolution, *_PLAIN, False)[0] if needs[0] else None,
        _input_gradient(ops, dy, ctx.x_shape, v, *convolution) if needs[1] else None,
        *[None] * 3,
    )


def _flops(x: Any, weight: Any, stride: int, padding: Any, up: int, *args: Any, out_shape: Any, **kwargs: Any) -> int:
    return convolution(weight, x if up > 1 else out_shape[0])


def _flops_weight_gradient(dy: Any, *args: Any, out_shape: Any, **kwargs: Any) -> int:
    return convolution(out_shape, dy)


register(
    "depthwise_conv2d(Tensor x, Tensor weight, int stride, SymInt[] padding, int up, Tensor? b, Tensor? scale, "
    "Tensor? noise, str act, float alpha, float gain, float clamp, bool keep) -> (Tensor, Tensor)",
    fake=_fake,
    triton=None,
    backward=_backward,
    setup_context=_setup_context,
    flops=_flops,
)
register(
    "depthwise_weight_gradient(Tensor dy, Tensor x, int stride, SymInt[] padding, int kernel) -> Tensor",
    fake=_fake_weight_gradient,
    triton=None,
    backward=_backward_weight_gradient,
    setup_context=_setup_context_weight_gradient,
    flops=_flops_weight_gradient,
)
