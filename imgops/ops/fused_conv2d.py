"""Modulation, convolution and epilogue in one pass, and its gradients.

The Triton backend convolves so whatever the shape, by products on tensor cores; the CPU backend where Winograd's
algorithm (csrc/cpu/fused_conv2d.cpp) beats the library's convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..reference.modulated_conv2d import resample_padding
from . import bias_act
from ._common import accumulation_dtype, constant_shape, dense_format, known, untraced
from ._flops import convolution
from ._registration import check_kept, namespace, register
from .upfirdn2d import choose_resampler, filter_size, fused_upfirdn2d_bias_act

_LINEAR = ("linear", 0.0, 1.0, -1.0)
_NO_PADDING, _ONE = (0, 0, 0, 0), (1, 1)
#: in smaller batches the weights, which Winograd's algorithm transforms first, outweigh the images
WINOGRAD_PIXELS = 1024
#: with fewer channels a weight's gradient spends more on the transforms than on the products
WINOGRAD_CHANNELS = 64


def fused_resampled_conv2d(
    backend: str,
    impl: str | None,
    x: Tensor,
    weight: Tensor,
    styles: Tensor | None,
    demod: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
    activation: tuple[str, float, float, float],
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    f: Tensor | None,
    flip_weight: bool,
) -> Tensor:
    """The convolution of ``modulated_conv2d`` in as few passes as there are resolutions; arguments already checked.

    One pass where nothing is resampled; two where it is: the filter before the strided convolution, or the
    transposed convolution before the filter, which then has the epilogue. ``backend`` convolves; the backend that
    filters is chosen for itself, as ``impl`` says.
    """
    kh, kw = constant_shape(weight)[2:]
    pointwise = kh == kw == 1
    # the transposed convolution flips by itself
    weight = weight if flip_weight == (up == 1 or pointwise) else weight.flip([2, 3])
    pads = resample_padding(padding, filter_size(f), up, down)
    if up == 1:
        stride = down
        if f is not None:
            # a 1x1 convolution reads only the samples that its stride keeps
            kept = down if pointwise else 1
            kept_each = (kept, kept)
            resampler = choose_resampler(x, f, _ONE, kept_each, impl)
            x = namespace(resampler).upfirdn2d(x, f, _ONE, kept_each, pads, False, 1.0)
            stride, pads = down // kept, _NO_PADDING
        return fused_conv2d(backend, x, weight, styles, demod, noise, bias, activation, stride, pads, 1)

    x0, x1, y0, y1 = pads
    if pointwise:
        factor = up
        x = fused_conv2d(backend, x, weight, styles, None, None, None, _LINEAR, 1, _NO_PADDING, 1)
    else:
        # the output of the transposed convolution starts kernel - 1 samples earlier
        factor = 1
        x0, x1, y0, y1 = x0 - (kw - 1), x1 - (kw - up), y0 - (kh - 1), y1 - (kh - up)
        x = fused_conv2d(backend, x, weight, styles, None, None, None, _LINEAR, 1, _NO_PADDING, up)
    factors = (factor, factor)
    resampler = choose_resampler(x, f, factors, _ONE, impl, activation[0])
    return fused_upfirdn2d_bias_act(
        resampler, x, f, factors, _ONE, (x0, x1, y0, y1), float(up**2), bias, demod, noise, *activation
    )


@untraced
def winograd_pays(x: Tensor, weight: Tensor, up: int, down: int) -> bool:
    """Whether the CPU backend of ``fused_conv2d`` takes the convolution, and is as a rule faster than the library."""
    if weight.shape[2:] != (3, 3) or up > 2 or down > 2 or x.dtype not in (torch.float32, torch.float64):
        return False
    n, _, h, w = x.shape
    # images of the lower resolution: what a transposed convolution reads, a strided one writes
    h, w = h // down, w // down
    # tiles reach past the edge of a small image
    if up > 1:
        products = 25 * (h // 2 + 1) * (w // 2 + 1)
    elif down > 1:
        products = 25 * ((h + 1) // 2) * ((w + 1) // 2)
    else:
        products = 36 * ((h + 3) // 4) * ((w + 3) // 4)
    return dense_format(x) == torch.contiguous_format and not (
        known(n * h * w < WINOGRAD_PIXELS) or known(products > 9 * h * w)
    )


def fused_conv2d(
    backend: str,
    x: Tensor,
    weight: Tensor,
    styles: Tensor | None,
    demod: Tensor | None,
    noise: Tensor | None,
    b: Tensor | None,
    activation: tuple[str, float, float, float],
    stride: int,
    padding: tuple[int, int, int, int],
    up: int,
) -> Tensor:
    """``bias_act(conv2d(x * styles, weight), b, demod, noise)`` in one pass; arguments already checked.

    Shapes: x [N, I, H, W]; weight [O, I, kh, kw] in x's dtype; styles [N, I]; demod [N, O]; b [O];
    noise [N or 1, 1, H', W']. With ``up`` > 1 it is the transposed convolution of that stride, unpadded.
    """
    acc_dtype = accumulation_dtype(x.dtype)
    styles, demod, noise, b = (None if t is None else t.to(acc_dtype) for t in (styles, demod, noise, b))
    keep = bias_act.keeps_input((x, weight, styles, demod, noise, b), demod, activation)
    return namespace(backend).fused_conv2d(x, weight, styles, demod, noise, b, *activation, stride, padding, up, keep)[
        0
    ]


def _output_shape(x: Tensor, weight: Tensor, stride: int, padding: Sequence[int], up: int) -> list[Any]:
    (n, _, h, w), (channels, _, kh, kw) = x.shape, weight.shape
    if up > 1:
        return [n, channels, (h - 1) * up + kh, (w - 1) * up + kw]
    return [
        n, channels, (h + padding[2] + padding[3] - kh) // stride + 1, (w + padding[0] + padding[1] - kw) // stride + 1
    ]  # fmt: skip


def _fake(
    x: Tensor,
    weight: Tensor,
    styles: Tensor | None,
    demod: Tensor | None,
    noise: Tensor | None,
    b: Tensor | None,
    act: str,
    alpha: float,
    gain: float,
    clamp: float,
    stride: int,
    padding: Sequence[int],
    up: int,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    y = x.new_empty(_output_shape(x, weight, stride, padding, up)).contiguous(memory_format=dense_format(x))
    return y, torch.empty_like(y) if keep else y.new_empty([0])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, styles, demod, noise, b, act, alpha, gain, clamp, stride, padding, up, keep = inputs
    y, u = output
    # u is an output, so that a gradient of the backward finds its way to x and the weight through it
    needs_u, needs_demod = any(ctx.needs_input_grad[:3]), ctx.needs_input_grad[3]
    kept = bias_act.saved_for_backward(u, y, b, demod, noise, (act, alpha, gain, clamp), needs_u, needs_demod)
    ctx.save_for_backward(*((x, weight, styles) if needs_u else (None,) * 3), *kept)
    ctx.convolution, ctx.epilogue = (stride, padding, up), (1, act, alpha, gain, clamp)
    ctx.plain = demod is None and noise is None and b is None and (act, gain, clamp) == ("linear", 1.0, -1.0)
    ctx.keep, ctx.noise_shape = keep, None if noise is None else noise.shape


def _backward(ops: Any, ctx: Any, needs: tuple[bool, ...], dy: Tensor | None, du: Tensor | None) -> tuple[Any, ...]:
    x, weight, styles, *kept = ctx.saved_tensors
    needs_x, needs_weight, needs_styles, needs_demod, needs_noise, needs_b = needs[:6]
    dx = dweight = dstyles = ddemod = dnoise = db = None
    d = du if ctx.keep else None
    if dy is not None and ctx.plain:
        d = dy if d is None else d + dy
    elif dy is not None:
        check_kept("fused_conv2d", "the convolution's output", ctx.keep or kept[0] is None)
        through, db, ddemod, dnoise = bias_act.gradients(
            ops, dy, tuple(kept), ctx.epilogue, ctx.noise_shape, needs_b, needs_demod, needs_noise
        )
        d = through if d is None else d + through
    if d is not None and (needs_x or needs_styles):
        dx = _input_gradient(ops, d, x, weight, *ctx.convolution)
        if styles is not None:
            of_styles = x if needs_styles else None
            dx, _, dstyles, _ = ops.bias_act_backward(
                dx, of_styles, None, None, styles, None, 1, *_LINEAR, False, needs_styles, False
            )
    if d is not None and needs_weight:
        modulated = x if styles is None else ops.bias_act(x, None, styles, None, 1, *_LINEAR)
        dweight = _weight_gradient(ops, d, modulated, weight, *ctx.convolution)
    return dx if needs_x else None, dweight, dstyles if needs_styles else None, ddemod, dnoise, db, *[None] * 8


def _input_gradient(
    ops: Any, d: Tensor, x: Tensor, weight: Tensor, stride: int, padding: Sequence[int], up: int
) -> Tensor:
    """Gradient of the convolution for its (modulated) input, of x's shape: another convolution."""
    if ops is not namespace("cpu"):
        return _library_gradients(d, x, weight, stride, padding, up, needs_weight=False)
    swapped, (x0, x1, y0, y1) = weight.transpose(0, 1), padding

    def convolve(weight: Tensor, stride: int, padding: Sequence[int], up: int) -> Tensor:
        return ops.fused_conv2d(d, weight, None, None, None, None, *_LINEAR, stride, padding, up, False)[0]

    if up > 1:
        return convolve(swapped, up, _NO_PADDING, 1)
    if stride > 1:
        padded = convolve(swapped, 1, _NO_PADDING, stride)
        # the last row and column may be ones that the stride never reads
        rest = [-x0, x0 + x.shape[3] - padded.shape[3], -y0, y0 + x.shape[2] - padded.shape[2]]
        return padded if all(known(r == 0) for r in rest) else F.pad(padded, rest)
    kh, kw = weight.shape[2:]
    return convolve(swapped.flip([2, 3]), 1, [kw - 1 - x0, kw - 1 - x1, kh - 1 - y0, kh - 1 - y1], 1)


def _weight_gradient(
    ops: Any, d: Tensor, x: Tensor, weight: Tensor, stride: int, padding: Sequence[int], up: int
) -> Tensor:
    """Gradient of the convolution of the (modulated) input x for its weight, of the weight's shape."""
    if ops is not namespace("cpu") or min(weight.shape[:2]) < WINOGRAD_CHANNELS:
        return _library_gradients(d, x, weight, stride, padding, up, needs_weight=True)
    if up > 1:
        # the transposed convolution is the input's gradient of the strided one
        return ops.conv2d_weight_gradient(x, d, up, _NO_PADDING).transpose(0, 1)
    return ops.conv2d_weight_gradient(d, x, stride, padding)


def _library_gradients(
    d: Tensor, x: Tensor, weight: Tensor, stride: int, padding: Sequence[int], up: int, *, needs_weight: bool
) -> Tensor:
    """Gradient of the convolution for its weight, or for its (modulated) input x, by the library's operator."""
    x0, x1, y0, y1 = padding
    even = x0 == x1 >= 0 and y0 == y1 >= 0
    padded = x if up > 1 or even else F.pad(x, [x0, x1, y0, y1])
    dx, dweight, _ = torch.ops.aten.convolution_backward(
        d,
        padded,
        weight.transpose(0, 1) if up > 1 else weight,
        None,
        [up if up > 1 else stride] * 2,
        [y0, x0] if even and up == 1 else [0, 0],
        [1, 1],
        up > 1,
        [0, 0],
        1,
        [not needs_weight, needs_weight, False],
    )
    if needs_weight:
        return dweight.transpose(0, 1) if up > 1 else dweight
    return dx if padded is x else F.pad(dx, [-x0, -x1, -y0, -y1])


def _fake_weight_gradient(dy: Tensor, x: Tensor, stride: int, padding: Sequence[int]) -> Tensor:
    return x.new_empty([dy.shape[1], x.shape[1], 3, 3])


def _setup_context_weight_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    dy, x, *ctx.convolution = inputs
    ctx.save_for_backward(dy, x)


def _backward_weight_gradient(ops: Any, ctx: Any, needs: tuple[bool, ...], v: Tensor) -> tuple[Any, ...]:
    """Gradients of <v, dweight> = <dy, conv2d(x, v)>."""
    dy, x = ctx.saved_tensors
    stride, padding = ctx.convolution
    needs_dy, needs_x = needs[:2]
    return (
        ops.fused_conv2d(x, v, None, None, None, None, *_LINEAR, stride, padding, 1, False)[0] if needs_dy else None,
        _input_gradient(ops, dy, x, v, stride, padding, 1) if needs_x else None,
        None,
        None,
    )


def _flops(x: Any, weight: Any, *args: Any, out_shape: Any, **kwargs: Any) -> int:
    up = args[-2]
    return convolution(weight, x if up > 1 else out_shape[0])


def _flops_weight_gradient(dy: Any, *args: Any, out_shape: Any, **kwargs: Any) -> int:
    return convolution(out_shape, dy)


register(
    "fused_conv2d(Tensor x, Tensor weight, Tensor? styles, Tensor? demod, Tensor? noise, Tensor? b, str act, float "
    "alpha, float gain, float clamp, int stride, SymInt[] padding, int up, bool keep) -> (Tensor, Tensor)",
    fake=_fake,
    triton="fused_conv2d",
    backward=_backward,
    setup_context=_setup_context,
    flops=_flops,
)
register(
    "conv2d_weight_gradient(Tensor dy, Tensor x, int stride, SymInt[] padding) -> Tensor",
    fake=_fake_weight_gradient,
    triton=None,
    backward=_backward_weight_gradient,
    setup_context=_setup_context_weight_gradient,
    flops=_flops_weight_gradient,
)
