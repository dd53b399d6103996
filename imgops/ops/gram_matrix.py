"""``gram_matrix`` and ``feature_statistics``: products of channels over the pixels, half of them by symmetry."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _backend
from ..reference import gram_matrix as reference
from ._common import STATUSES, accumulation_dtype, check_tensor, dense_format, is_empty, untraced, without_autocast
from ._flops import channel_products
from ._registration import namespace, register

#: names of the sizes whose product divides the sums of products
NORMALIZATIONS = ("chw", "hw", "nchw", "none")


def gram_matrix(x: Tensor, *, normalization: str = "chw", impl: str | None = None) -> Tensor:
    """Products of the channels of each sample, summed over its pixels and divided by the normalizer.

    ``g[n, i, j] = sum_p x[n, i, p] * x[n, j, p] / normalizer``, the style of an image to Gatys et al. 2016. Only one of
    g[i, j] and g[j, i] is summed, and the gradient is one product. Differentiable to any order.

    Args:
        x: features [N, C, H, W], float64/32/16 or bfloat16, any strides; planar and channels-last are read in place.
        normalization: "chw" divides by C * H * W (Johnson et al. 2016), "hw" by H * W, "nchw" by N * C * H * W,
            "none" by 1. Default "chw".
        impl: "reference", "cpu" or "triton"; None takes the best that is here.

    Returns:
        A tensor [N, C, C] in the dtype of the sums, float32 (float64 where x is), so that half-precision features
        cannot overflow it; exactly symmetric. Zero where x has no pixels, as an empty sum is; a mean, which
        :func:`feature_statistics` begins with, does not exist there.

    Raises:
        TypeError: x is no tensor of a supported dtype.
        ValueError: x has not 4 dimensions, or an unknown normalization.
        RuntimeError: the backend named by ``impl`` cannot run here.
    """
    check_tensor("gram_matrix", "x", x, 4)
    check_normalization("gram_matrix", normalization)
    return fused_gram_matrix(_backend.choose("gram_matrix", x.device.type, impl, STATUSES), x, normalization)


def check_normalization(op: str, normalization: Any) -> None:
    """Raise ValueError unless this is the name of a normalization."""
    if normalization not in NORMALIZATIONS:
        raise ValueError(
            f"imgops.{op}: normalization must be one of {', '.join(NORMALIZATIONS)}; got {normalization!r}"
        )


def fused_gram_matrix(backend: str, x: Tensor, normalization: str) -> Tensor:
    """The Gram matrix on a backend; arguments already checked."""
    if backend == "reference":
        with without_autocast(x):
            return reference.gram_matrix(x.to(accumulation_dtype(x.dtype)), _normalizer(x, normalization))
    return namespace(backend).gram_matrix(x, normalization)


def _normalizer(x: Tensor, normalization: str) -> int:
    """The number that the sums of products are divided by; 1 for features without elements."""
    n, c, h, w = x.shape
    count = {"chw": c * h * w, "hw": h * w, "nchw": n * c * h * w, "none": 1}[normalization]
    return 1 if is_empty(x) else count


def feature_statistics(x: Tensor, *, impl: str | None = None) -> tuple[Tensor, Tensor]:
    """Mean of the channels over the pixels of each sample, and their covariance.

    ``covariance[n, i, j] = sum_p (x[n, i, p] - mean[n, i]) * (x[n, j, p] - mean[n, j]) / (H * W)``, which is biased
    (that of the population). The mean is subtracted before the products, so that a large one costs no digits. The
    gradients of both are one pass. Differentiable to any order.

    Args:
        x: features [N, C, H, W] of at least one pixel, float64/32/16 or bfloat16, any strides.
        impl: "reference", "cpu" or "triton"; None takes the best that is here.

    Returns:
        (mean [N, C], covariance [N, C, C]) in float32, float64 where x is; the covariance exactly symmetric.

    Raises:
        TypeError: x is no tensor of a supported dtype.
        ValueError: x has not 4 dimensions, or no pixel.
        RuntimeError: the backend named by ``impl`` cannot run here.
    """
    check_features("feature_statistics", x)
    return fused_feature_statistics(_backend.choose("feature_statistics", x.device.type, impl, STATUSES), x)


@untraced
def check_features(op: str, x: Tensor) -> None:
    """Raise unless x is [N, C, H, W] with a pixel to take a mean over."""
    check_tensor(op, "x", x, 4)
    if x.shape[2] * x.shape[3] == 0:
        raise ValueError(f"imgops.{op}: x must have at least one pixel; got shape {list(x.shape)}")


def fused_feature_statistics(backend: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """(mean, covariance) on a backend; arguments already checked."""
    if backend == "reference":
        with without_autocast(x):
            return reference.feature_statistics(x.to(accumulation_dtype(x.dtype)))
    return namespace(backend).feature_statistics(x)


def _fake(x: Tensor, normalization: str) -> Tensor:
    return x.new_empty([x.shape[0], x.shape[1], x.shape[1]], dtype=accumulation_dtype(x.dtype))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.normalization = inputs
    ctx.save_for_backward(x)


def _backward(ops: Any, ctx: Any, needs: tuple[bool, ...], d: Tensor) -> tuple[Tensor, None]:
    (x,) = ctx.saved_tensors
    return ops.mix_channels(x, _symmetric(d, _normalizer(x, ctx.normalization)), None, None), None


def _symmetric(d: Tensor, count: int) -> Tensor:
    """``(d + d^T) / count``: what multiplies x in the gradient of ``x x^T / count`` for x."""
    return (d + d.mT) / count


def _fake_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[:2], dtype=accumulation_dtype(x.dtype)), _fake(x, "hw")


def _setup_context_statistics(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    # the mean is an output of the op, so that second-order gradients reach x through it
    ctx.save_for_backward(*inputs, output[0])


def _backward_statistics(
    ops: Any, ctx: Any, needs: tuple[bool, ...], d_mean: Tensor | None, d_covariance: Tensor | None
) -> Tensor:
    x, mean = ctx.saved_tensors
    pixels = x.shape[2] * x.shape[3]
    shift: Any = None if d_mean is None else d_mean / pixels
    if d_covariance is None:
        return shift[:, :, None, None].to(x.dtype).expand(x.shape)
    # the covariance has no gradient for the mean, as the deviations from the mean add up to zero
    return ops.mix_channels(x, _symmetric(d_covariance, pixels), mean, shift)


def _fake_mix(x: Tensor, weight: Tensor, mean: Tensor | None, bias: Tensor | None) -> Tensor:
    return torch.empty_like(x, memory_format=dense_format(x))


def _setup_context_mix(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, mean, _ = inputs
    needs_x, needs_weight, needs_mean = ctx.needs_input_grad[:3]
    ctx.save_for_backward(
        x if needs_weight else None, weight if needs_x or needs_mean else None, mean if needs_weight else None
    )
    ctx.dtype = weight.dtype


def _backward_mix(ops: Any, ctx: Any, needs: tuple[bool, ...], v: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of <v, weight (x - mean) + bias>."""
    x, weight, mean = ctx.saved_tensors
    needs_x, needs_weight, needs_mean, needs_bias = needs
    dx = dweight = dmean = sums = None
    if needs_x:
        dx = ops.mix_channels(v, weight.mT, None, None)
    with without_autocast(v):
        if needs_weight:
            deviation = x.flatten(2).to(ctx.dtype)
            deviation = deviation if mean is None else deviation - mean[:, :, None]
            dweight = torch.bmm(v.flatten(2).to(ctx.dtype), deviation.mT)
        if needs_mean or needs_bias:
            sums = v.sum([2, 3], dtype=ctx.dtype)
        if needs_mean and sums is not None:
            dmean = -torch.bmm(weight.mT, sums[:, :, None])[:, :, 0]
    return dx, dweight, dmean, sums if needs_bias else None


register(
    "gram_matrix(Tensor x, str normalization) -> Tensor",
    fake=_fake,
    triton="gram_matrix",
    backward=_backward,
    setup_context=_setup_context,
    flops=channel_products,
)
register(
    "feature_statistics(Tensor x) -> (Tensor, Tensor)",
    fake=_fake_statistics,
    triton="gram_matrix",
    backward=_backward_statistics,
    setup_context=_setup_context_statistics,
    flops=channel_products,
)
register(
    "mix_channels(Tensor x, Tensor weight, Tensor? mean, Tensor? bias) -> Tensor",
    fake=_fake_mix,
    triton="gram_matrix",
    backward=_backward_mix,
    setup_context=_setup_context_mix,
    flops=channel_products,
)
