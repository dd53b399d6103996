"""Modulation, convolution, residual and epilogue in one pass, and its gradients.

Triton runs every convolution this way, on tensor cores; the CPU only those that suit Winograd's algorithm
(:func:`._algorithms.winograd_pays`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._epilogue import Epilogue
from . import bias_act
from ._algorithms import winograd_gradient_pays
from ._common import accumulation_dtype, constant_shape, dense_format, known, swapped_channels, without_autocast
from ._flops import convolution
from ._registration import namespace, register
from .upfirdn2d import choose_resampler, fused_upfirdn2d_bias_act

_PLAIN = Epilogue()
#: the arguments of the op for a convolution that nothing follows
_ALONE = (None, 1.0, *_PLAIN)
_NO_PADDING, _ONE = (0, 0, 0, 0), (1, 1)
#: padding and output padding of PyTorch's convolution
_NONE_EACH = [0, 0], [0, 0]


def fused_resampled_conv2d(
    backend: str,
    impl: str | None,
    x: Tensor,
    weight: Tensor,
    styles: Tensor | None,
    epilogue: Epilogue,
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    f: Tensor | None,
) -> Tensor:
    """The convolution of ``modulated_conv2d`` in as few passes as there are resolutions; arguments already checked.

    One pass where nothing is resampled; two where it is: the filter before the strided convolution, or the
    transposed convolution before the filter, which then has the epilogue. ``backend`` convolves; the backend that
    filters is chosen for itself, as ``impl`` says. ``weight`` is as each convolution takes it, and ``padding`` is that
    of the filter, as of :func:`.vendor_conv2d.vendor_resampled_conv2d`.
    """
    kh, kw = constant_shape(weight)[2:]
    pointwise = kh == kw == 1
    if up == 1:
        stride = down
        if f is not None:
            # a 1x1 convolution reads only the samples that its stride keeps
            kept = down if pointwise else 1
            kept_each = (kept, kept)
            resampler = choose_resampler(x, f, _ONE, kept_each, impl)
            x = namespace(resampler).upfirdn2d(x, f, _ONE, kept_each, padding, False, 1.0)
            stride, padding = down // kept, _NO_PADDING
        return fused_conv2d(backend, x, weight, styles, epilogue, stride, padding, 1)

    x0, x1, y0, y1 = padding
    if pointwise:
        factor = up
        x = fused_conv2d(backend, x, weight, styles, _PLAIN, 1, _NO_PADDING, 1)
    else:
        # the output of the transposed convolution starts kernel - 1 samples earlier
        factor = 1
        x0, x1, y0, y1 = x0 - (kw - 1), x1 - (kw - up), y0 - (kh - 1), y1 - (kh - up)
        x = fused_conv2d(backend, x, weight, styles, _PLAIN, 1, _NO_PADDING, up)
    factors = (factor, factor)
    resampler = choose_resampler(x, f, factors, _ONE, impl, epilogue.act)
    return fused_upfirdn2d_bias_act(resampler, x, f, factors, _ONE, (x0, x1, y0, y1), float(up**2), epilogue)


def fused_conv2d(
    backend: str,
    x: Tensor,
    weight: Tensor,
    styles: Tensor | None,
    epilogue: Epilogue,
    stride: int,
    padding: tuple[int, int, int, int],
    up: int,
    groups: int = 1,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
) -> Tensor:
    """The epilogue of ``conv2d(x * styles, weight) + residual_scale * residual`` in one pass; arguments are checked.

    Shapes: x [N, I, H, W]; weight [O, I / groups, kh, kw] and residual, of the output's shape, in x's dtype; styles
    [N, I]. ``padding`` is (x0, x1, y0, y1), negative ones crop. With ``up`` > 1 it is the transposed convolution of
    that stride, whose output padding crops; a negative x1 or y1 pads it.
    """
    acc_dtype = accumulation_dtype(x.dtype)
    styles, epilogue = None if styles is None else styles.to(acc_dtype), epilogue.to(acc_dtype)
    keep = bias_act.keeps_input((x, weight, styles, residual), epilogue)
    convolution = x, weight, styles, stride, padding, up, groups
    return namespace(backend).fused_conv2d(*convolution, residual, residual_scale, *epilogue, keep)[0]


def _output_shape(x: Tensor, weight: Tensor, stride: int, padding: Sequence[int], up: int) -> list[Any]:
    (n, _, h, w), (channels, _, kh, kw) = x.shape, weight.shape
    if up > 1:
        return [
            n, channels, (h - 1) * up + kh - padding[2] - padding[3], (w - 1) * up + kw - padding[0] - padding[1]
        ]  # fmt: skip
    return [
        n, channels, (h + padding[2] + padding[3] - kh) // stride + 1, (w + padding[0] + padding[1] - kw) // stride + 1
    ]  # fmt: skip


def _fake(
    x: Tensor, weight: Tensor, styles: Tensor | None, stride: int, padding: Sequence[int], up: int, *rest: Any
) -> tuple[Tensor, Tensor]:
    y = x.new_empty(_output_shape(x, weight, stride, padding, up)).contiguous(memory_format=dense_format(x))
    return y, torch.empty_like(y) if rest[-1] else y.new_empty([0])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    (x, weight, styles, *ctx.convolution), epilogue, keep = inputs[:7], Epilogue(*inputs[9:16]), inputs[16]
    y, u = output
    needs_x, needs_weight, needs_styles, needs_residual, needs_scale = (
        ctx.needs_input_grad[i] for i in (0, 1, 2, 7, 10)
    )
    needs_factors = needs_x or needs_weight or needs_styles
    kept = bias_act.remember_epilogue(ctx, u, y, epilogue, keep, needs_factors or needs_residual, needs_scale)
    # the gradient of x needs of x its shape alone: where the weights are frozen, images are not kept for it
    factors = x if needs_weight or needs_styles else None, weight, styles
    ctx.save_for_backward(*(factors if needs_factors else (None,) * 3), *kept)
    ctx.x_shape, ctx.residual_scale = x.shape, inputs[8]


def _backward(ops: Any, ctx: Any, needs: tuple[bool, ...], dy: Tensor | None, du: Tensor | None) -> tuple[Any, ...]:
    x, weight, styles, *kept = ctx.saved_tensors
    needs_x, needs_weight, needs_styles = needs[:3]
    dx = dweight = dstyles = dresidual = None
    d, *of_epilogue = bias_act.through_epilogue(
        ops, "fused_conv2d", "the convolution's output", ctx, kept, dy, du, needs[9:12]
    )
    if d is not None and (needs_x or needs_styles):
        dx = _input_gradient(ops, d, ctx.x_shape, weight, *ctx.convolution)
        if styles is not None:
            modulation, of_styles = Epilogue(scale=styles), x if needs_styles else None
            dx, _, dstyles, _ = ops.bias_act_backward(dx, of_styles, None, 1, *modulation, False, needs_styles, False)
    if d is not None and needs_weight:
        modulated = x if styles is None else ops.bias_act(x, 1, *Epilogue(scale=styles))
        dweight = _weight_gradient(ops, d, modulated, weight, *ctx.convolution)
    if d is not None and needs[7]:
        dresidual = d if ctx.residual_scale == 1 else d * ctx.residual_scale
    gradients = dx if needs_x else None, dweight, dstyles if needs_styles else None
    return *gradients, *[None] * 4, dresidual, None, *of_epilogue, *[None] * 5


def _input_gradient(
    ops: Any,
    d: Tensor,
    x_shape: Sequence[int],
    weight: Tensor,
    stride: int,
    padding: Sequence[int],
    up: int,
    groups: int,
) -> Tensor:
    """Gradient of the convolution for its (modulated) input, of x's shape: another convolution."""
    if ops is not namespace("cpu"):
        return _library_input_gradient(d, x_shape, weight, stride, padding, up, groups)
    x0, x1, y0, y1 = padding

    def convolve(d: Tensor, weight: Tensor, stride: int, padding: Sequence[int], up: int) -> Tensor:
        return ops.fused_conv2d(d, weight, None, stride, padding, up, groups, *_ALONE, False)[0]

    if up > 1:
        return convolve(d, swapped_channels(weight, groups), up, padding, 1)
    kh, kw = weight.shape[2:]
    if stride > 1:
        # the kernel crops both odd numbers of rows and columns, or both even ones
        more = (y0 - x0) % 2
        # the last row and column may be ones that the stride never reads
        x1, y1 = ((n - 1) * stride + taps for n, taps in ((d.shape[3], kw), (d.shape[2], kh)))
        crop = [x0, x1 - x0 - x_shape[3], y0 - more, y1 - y0 - x_shape[2]]
        dx = convolve(d, swapped_channels(weight, groups), 1, crop, stride)
        return dx[:, :, more:] if more else dx
    if known(d.numel() + math.prod(x_shape) < weight.numel()):
        # flipped images give the flipped gradient, and are smaller than the weight
        padding = [kw - 1 - x1, kw - 1 - x0, kh - 1 - y1, kh - 1 - y0]
        return convolve(d.flip([2, 3]), swapped_channels(weight, groups), 1, padding, 1).flip([2, 3])
    # a transposed weight is not flipped as quickly
    flipped = swapped_channels(weight.flip([2, 3]), groups)
    return convolve(d, flipped, 1, [kw - 1 - x0, kw - 1 - x1, kh - 1 - y0, kh - 1 - y1], 1)


def _weight_gradient(
    ops: Any, d: Tensor, x: Tensor, weight: Tensor, stride: int, padding: Sequence[int], up: int, groups: int
) -> Tensor:
    """Gradient of the convolution of the (modulated) input x for its weight, of the weight's shape."""
    if ops is not namespace("cpu") or not winograd_gradient_pays(weight, groups):
        return _library_weight_gradient(d, x, weight, stride, padding, up, groups)
    # the gradient is laid out as the weight is: where another layout meets it, PyTorch copies one of the two
    dense = groups > 1 or weight.stride(0) >= weight.stride(1)
    if up > 1:
        # the transposed convolution is the gradient of the strided one for its input
        dweight = ops.conv2d_weight_gradient(x, d, up, padding, groups, dense)
    else:
        dweight = ops.conv2d_weight_gradient(d, x, stride, padding, groups, not dense)
    return dweight if dense else dweight.transpose(0, 1)


def _library_input_gradient(
    d: Tensor, x_shape: Sequence[int], weight: Tensor, stride: int, padding: Sequence[int], up: int, groups: int
) -> Tensor:
    """Gradient of the convolution for its (modulated) input, of x's shape, by PyTorch's convolutions."""
    x0, x1, y0, y1 = padding
    fits = _library_padding(padding, up)
    around, _ = fits or _NONE_EACH
    with without_autocast(d):
        if up > 1:
            return F.conv2d(_uncropped(d, padding, up), swapped_channels(weight, groups), None, up, around, 1, groups)
        sizes = x_shape[2] + y0 + y1, x_shape[3] + x0 + x1
        # rows and columns at the end that the stride never reads
        rest = [
            size - (n - 1) * stride - taps for size, n, taps in zip(sizes, d.shape[2:], weight.shape[2:], strict=True)
        ]
        dx = F.conv_transpose2d(d, weight, None, stride, around, rest, groups)
    return dx if fits else F.pad(dx, [-x0, -x1, -y0, -y1])


def _library_weight_gradient(
    d: Tensor, x: Tensor, weight: Tensor, stride: int, padding: Sequence[int], up: int, groups: int
) -> Tensor:
    """Gradient of the convolution of the (modulated) input x for its weight, by PyTorch's operator."""
    fits = _library_padding(padding, up)
    around, more = fits or _NONE_EACH
    _, dweight, _ = torch.ops.aten.convolution_backward(
        _uncropped(d, padding, up),
        x if up > 1 or fits else F.pad(x, list(padding)),
        swapped_channels(weight, groups) if up > 1 else weight,
        None,
        [up if up > 1 else stride] * 2,
        around,
        [1, 1],
        up > 1,
        more,
        groups,
        [False, True, False],
    )
    return swapped_channels(dweight, groups) if up > 1 else dweight


def _library_padding(padding: Sequence[int], up: int) -> tuple[list[int], list[int]] | None:
    """(padding, output padding) of PyTorch's convolution, each along y and x; None for a padding that it has not."""
    x0, x1, y0, y1 = padding
    # what a transposed convolution has more at its end
    more = [y0 - y1, x0 - x1]
    return ([y0, x0], more) if min(x0, y0) >= 0 and all(0 <= m < up for m in more) else None


def _uncropped(d: Tensor, padding: Sequence[int], up: int) -> Tensor:
    """The gradient of a transposed convolution before its crop, where that is none of PyTorch's: what was cropped has
    the gradient 0."""
    return F.pad(d, list(padding)) if up > 1 and not _library_padding(padding, up) else d


def _fake_weight_gradient(
    dy: Tensor, x: Tensor, stride: int, padding: Sequence[int], groups: int, swapped: bool
) -> Tensor:
    outer, inner = (x, dy) if swapped else (dy, x)
    return x.new_empty([outer.shape[1], inner.shape[1] // groups, 3, 3])


def _setup_context_weight_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    dy, x, ctx.stride, ctx.padding, ctx.groups, ctx.swapped = inputs
    # each is a factor of the other's gradient
    needs_dy, needs_x = ctx.needs_input_grad[:2]
    ctx.save_for_backward(dy if needs_x else None, x if needs_dy else None)
    ctx.x_shape = x.shape


def _backward_weight_gradient(ops: Any, ctx: Any, needs: tuple[bool, ...], v: Tensor) -> tuple[Any, ...]:
    """Gradients of <v, dweight> = <dy, conv2d(x, v)>."""
    dy, x = ctx.saved_tensors
    needs_dy, needs_x = needs[:2]
    if ctx.swapped:
        v = swapped_channels(v, ctx.groups)
    convolution = ctx.stride, ctx.padding, 1, ctx.groups
    return (
        ops.fused_conv2d(x, v, None, *convolution, *_ALONE, False)[0] if needs_dy else None,
        _input_gradient(ops, dy, ctx.x_shape, v, *convolution) if needs_x else None,
        *[None] * 4,
    )


def _flops(
    x: Any, weight: Any, styles: Any, stride: int, padding: Any, up: int, *args: Any, out_shape: Any, **kwargs: Any
) -> int:
    return convolution(weight, x if up > 1 else out_shape[0])


def _flops_weight_gradient(dy: Any, *args: Any, out_shape: Any, **kwargs: Any) -> int:
    return convolution(out_shape, dy)


register(
    "fused_conv2d(Tensor x, Tensor weight, Tensor? styles, int stride, SymInt[] padding, int up, int groups, "
    "Tensor? residual, float residual_scale, Tensor? b, Tensor? scale, Tensor? noise, str act, float alpha, "
    "float gain, float clamp, bool keep) -> (Tensor, Tensor)",
    fake=_fake,
    triton="fused_conv2d",
    backward=_backward,
    setup_context=_setup_context,
    flops=_flops,
)
register(
    "conv2d_weight_gradient(Tensor dy, Tensor x, int stride, SymInt[] padding, int groups, bool swapped) -> Tensor",
    fake=_fake_weight_gradient,
    triton=None,
    backward=_backward_weight_gradient,
    setup_context=_setup_context_weight_gradient,
    flops=_flops_weight_gradient,
)
