"""Adaptive instance normalization, of style transfer (``adain``) and of StyleGAN (``adaptive_instance_norm``)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _backend
from ..reference import adain as reference
from ._common import (
    STATUSES,
    accumulation_dtype,
    check_bool,
    check_number,
    check_operand,
    check_tensor,
    dense_format,
    untraced,
)
from ._registration import namespace, register


def adain(
    content: Tensor, style: Tensor, *, eps: float = 1e-5, unbiased: bool = True, impl: str | None = None
) -> Tensor:
    """Give the content's channels the mean and standard deviation of the style's (Huang and Belongie 2017, eq. 8).

    ``std(style) * (content - mean(content)) / std(content) + mean(style)``, with ``std = sqrt(variance + eps)`` over
    the pixels of each channel of each sample. Statistics are summed in float32 at least, by a method that does not
    cancel. Differentiable to any order with respect to both.

    Args:
        content: [N, C, H, W], float64/32/16 or bfloat16, any strides.
        style: [N or 1, C, H', W'] in any of these dtypes; the height and width may differ from the content's.
        eps: added to each variance, >= 0. Default 1e-5.
        unbiased: divide by one less than the pixels, as published decoders were trained with. Default True.
        impl: "reference", "cpu" or "triton"; None takes the best that is here.

    Returns:
        A tensor of the content's shape and dtype, channels-last where it is.

    Raises:
        TypeError: content or style is no tensor of a supported dtype, or eps no number.
        ValueError: they do not fit each other, have no pixels (with ``unbiased`` a single one), or eps is below 0.
        RuntimeError: the backend named by ``impl`` cannot run here.
    """
    check_tensor("adain", "content", content, 4)
    check_tensor("adain", "style", style, 4)
    unbiased = check_bool("adain", "unbiased", unbiased)
    _check_style(content, style)
    _check_pixels("adain", "content", content, unbiased)
    _check_pixels("adain", "style", style, unbiased)
    eps = check_number("adain", "eps", eps, minimum=0)
    backend = _backend.choose("adain", content.device.type, impl, STATUSES)
    mean, std = mean_std(backend, style, eps, unbiased)
    return _adaptive_instance_norm(backend, content, std, mean, eps, unbiased)


def adaptive_instance_norm(
    x: Tensor, scale: Tensor, bias: Tensor, *, eps: float = 1e-8, impl: str | None = None
) -> Tensor:
    """``(1 + scale) * (x - mean) / sqrt(variance + eps) + bias``, StyleGAN's (Karras et al. 2019, section 2).

    Mean and (biased) variance are over the pixels of each channel of each sample, summed in float32 at least, by a
    method that does not cancel. Differentiable to any order with respect to x, scale and bias.

    Args:
        x: [N, C, H, W], float64/32/16 or bfloat16, any strides.
        scale, bias: [N or 1, C] in any of these dtypes.
        eps: added to the variance, >= 0. Default 1e-8.
        impl: "reference", "cpu" or "triton"; None takes the best that is here.

    Returns:
        A tensor of x's shape and dtype, channels-last where x is.

    Raises:
        TypeError: an argument is no tensor of a supported dtype, or eps no number.
        ValueError: scale or bias does not fit x, x has no pixels, or eps is below 0.
        RuntimeError: the backend named by ``impl`` cannot run here.
    """
    op = "adaptive_instance_norm"
    check_tensor(op, "x", x, 4)
    shape = ((x.shape[0], 1), x.shape[1])
    check_operand(op, "scale", scale, x, shape)
    check_operand(op, "bias", bias, x, shape)
    _check_pixels(op, "x", x, unbiased=False)
    eps = check_number(op, "eps", eps, minimum=0)
    backend = _backend.choose(op, x.device.type, impl, STATUSES)
    acc_dtype = accumulation_dtype(x.dtype)
    return _adaptive_instance_norm(backend, x, 1 + scale.to(acc_dtype), bias, eps, unbiased=False)


def instance_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """``weight * (x - mean) / sqrt(variance + eps) + bias``, each [C] or None, otherwise as of
    :func:`adaptive_instance_norm`; x [N, C, H, W]."""
    op = "adaptive_instance_norm"
    check_tensor(op, "x", x, 4)
    for name, t in ("weight", weight), ("bias", bias):
        if t is not None:
            check_operand(op, name, t, x, (x.shape[1],))
    _check_pixels(op, "x", x, unbiased=False)
    backend = _backend.choose(op, x.device.type, None, STATUSES)
    dtype = accumulation_dtype(x.dtype)
    scale = x.new_ones(1, x.shape[1], dtype=dtype) if weight is None else weight[None]
    shift = x.new_zeros(1, x.shape[1], dtype=dtype) if bias is None else bias[None]
    return _adaptive_instance_norm(backend, x, scale, shift, eps, unbiased=False)


@untraced
def _check_style(content: Tensor, style: Tensor) -> None:
    n, c = content.shape[:2]
    if style.device != content.device:
        raise ValueError(f"imgops.adain: style must be on the content's device {content.device}; got {style.device}")
    if style.shape[1] != c or style.shape[0] not in (n, 1):
        raise ValueError(f"imgops.adain: style must have shape [{n} or 1, {c}, H, W]; got {list(style.shape)}")


@untraced
def _check_pixels(op: str, name: str, x: Tensor, unbiased: bool) -> None:
    least = 2 if unbiased else 1
    if x.shape[2] * x.shape[3] < least:
        raise ValueError(f"imgops.{op}: {name} must have at least {least} pixels; got shape {list(x.shape)}")


def mean_std(backend: str, x: Tensor, eps: float, unbiased: bool) -> tuple[Tensor, Tensor]:
    """Mean and root of (variance + eps) of each plane of x [N, C, H, W], both [N, C] in float32 at least; arguments
    already checked."""
    if backend == "reference":
        return reference.mean_std(x.to(accumulation_dtype(x.dtype)), eps, unbiased)
    return namespace(backend).mean_std(x, eps, unbiased)


def _adaptive_instance_norm(backend: str, x: Tensor, scale: Tensor, bias: Tensor, eps: float, unbiased: bool) -> Tensor:
    acc_dtype = accumulation_dtype(x.dtype)
    scale, bias = (t.to(acc_dtype).expand(x.shape[:2]) for t in (scale, bias))
    if backend == "reference":
        return reference.adaptive_instance_norm(x.to(acc_dtype), scale, bias, eps, unbiased).to(x.dtype)
    return namespace(backend).adaptive_instance_norm(x, scale, bias, eps, unbiased)


def _fake_mean_std(x: Tensor, eps: float, unbiased: bool) -> tuple[Tensor, Tensor]:
    acc_dtype = accumulation_dtype(x.dtype)
    return x.new_empty(x.shape[:2], dtype=acc_dtype), x.new_empty(x.shape[:2], dtype=acc_dtype)


def _setup_context_mean_std(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, _, unbiased = inputs
    ctx.save_for_backward(x, *output)
    ctx.freedom = x.shape[2] * x.shape[3] - unbiased


def _backward_mean_std(
    ops: Any, ctx: Any, needs: tuple[bool, ...], dmean: Tensor | None, dstd: Tensor | None
) -> tuple[Tensor, None, None]:
    x, mean, std = ctx.saved_tensors
    dx: Any = None if dmean is None else _of_planes(dmean / (x.shape[2] * x.shape[3]))
    if dstd is not None:
        slope, deviations = _of_planes(dstd / (std * ctx.freedom)), _deviations(x, mean)
        dx = deviations * slope if dx is None else torch.addcmul(dx, deviations, slope)
    return dx.to(x.dtype).expand(x.shape), None, None


def _deviations(x: Tensor, mean: Tensor) -> Tensor:
    """x minus the mean of its planes; the second subtraction removes the rounding error of the mean."""
    d = x - _of_planes(mean)
    return d - d.mean([2, 3], keepdim=True)


def _of_planes(t: Tensor) -> Tensor:
    return t[:, :, None, None]


def _fake(x: Tensor, *args: Any) -> Tensor:
    return torch.empty_like(x, memory_format=dense_format(x))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, scale, _, *ctx.arguments = inputs
    needs_x, needs_scale = ctx.needs_input_grad[:2]
    # only the gradient of x needs the scale, and no gradient needs the bias
    ctx.save_for_backward(x if needs_x or needs_scale else None, scale if needs_x else None)


def _backward(ops: Any, ctx: Any, needs: tuple[bool, ...], dy: Tensor) -> tuple[Any, ...]:
    x, scale = ctx.saved_tensors
    if x is None:
        return None, None, dy.sum([2, 3], dtype=accumulation_dtype(dy.dtype)), None, None
    if scale is None:
        scale = dy.new_zeros(dy.shape[:2], dtype=accumulation_dtype(dy.dtype))
    gradients = ops.adaptive_instance_norm_backward(dy.to(x.dtype), x, scale, *ctx.arguments)
    return *(g if needed else None for g, needed in zip(gradients, needs, strict=False)), None, None


def _fake_backward(dy: Tensor, x: Tensor, scale: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty_like(x, memory_format=dense_format(x))
    return dx, scale.new_empty(scale.shape), scale.new_empty(scale.shape)


def _setup_context_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    dy, x, scale, *ctx.arguments = inputs
    ctx.save_for_backward(dy, x, scale)


def _double_backward(
    ops: Any, ctx: Any, needs: tuple[bool, ...], vx: Tensor | None, vscale: Tensor | None, vbias: Tensor | None
) -> tuple[Any, ...]:
    """Gradients of <v, (dx, dscale, dbias)>, in ops that are differentiable themselves.

    With x_hat the normalized x, r = 1 / std, f the variance's divisor, d and v the deviations of dy and vx from their
    means, p = sum(v * x_hat) and s = sum(d * x_hat): dscale = s, dbias = sum(dy), and
    <vx, dx> = scale * r * (sum(v * d) - p * s / f), which is symmetric in dy and vx.
    """
    dy, x, scale = ctx.saved_tensors
    eps, unbiased = ctx.arguments
    acc_dtype = accumulation_dtype(x.dtype)
    ddy = dx = dscale = None
    if vbias is not None:
        ddy = _of_planes(vbias)
    if vx is not None or vscale is not None:
        mean, std = reference.mean_std(x.to(acc_dtype), eps, unbiased)
        freedom = x.shape[2] * x.shape[3] - unbiased
        r = _of_planes(1 / std)
        x_hat = _deviations(x, mean) * r
        d = _centered(dy.to(acc_dtype))
        s = (d * x_hat).sum([2, 3], keepdim=True)
    if vscale is not None:
        vs = _of_planes(vscale)
        ddy = vs * x_hat if ddy is None else ddy + vs * x_hat
        dx = vs * r * (d - x_hat * (s / freedom))
    if vx is not None:
        v, k = _centered(vx.to(acc_dtype)), _of_planes(scale) * r
        p = (v * x_hat).sum([2, 3], keepdim=True)
        product = (v * d).sum([2, 3], keepdim=True)
        of_dy = k * (v - x_hat * (p / freedom))
        of_x = (k * r / freedom) * (x_hat * (3 * p * s / freedom - product) - s * v - p * d)
        ddy, dx = (of if t is None else t + of for t, of in ((ddy, of_dy), (dx, of_x)))
        dscale = (r * (product - p * s / freedom))[:, :, 0, 0]
    ddy = None if ddy is None else ddy.to(dy.dtype).expand(dy.shape)
    return ddy, None if dx is None else dx.to(x.dtype), dscale, None, None


def _centered(t: Tensor) -> Tensor:
    return t - t.mean([2, 3], keepdim=True)


register(
    "mean_std(Tensor x, float eps, bool unbiased) -> (Tensor, Tensor)",
    fake=_fake_mean_std,
    triton="adain",
    backward=_backward_mean_std,
    setup_context=_setup_context_mean_std,
)
register(
    "adaptive_instance_norm(Tensor x, Tensor scale, Tensor bias, float eps, bool unbiased) -> Tensor",
    fake=_fake,
    triton="adain",
    backward=_backward,
    setup_context=_setup_context,
)
register(
    "adaptive_instance_norm_backward(Tensor dy, Tensor x, Tensor scale, float eps, bool unbiased) -> (Tensor, "
    "Tensor, Tensor)",
    fake=_fake_backward,
    triton="adain",
    backward=_double_backward,
    setup_context=_setup_context_backward,
)
