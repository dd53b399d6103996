"""``modulated_conv2d``: StyleGAN2's convolution with its noise, bias and activation.

``resampled_conv2d`` is the convolution behind it, which the plain layers of ``imgops.nn`` call without styles.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _backend
from .._epilogue import Epilogue
from ..reference import modulated_conv2d as reference
from ..reference.modulated_conv2d import resample_padding
from ._algorithms import winograd_pays
from ._common import (
    STATUSES,
    accumulation_dtype,
    autocast_off,
    check_bool,
    check_bytes,
    check_int,
    check_operand,
    check_tensor,
    constant_shape,
    is_empty,
    untraced,
)
from .bias_act import activation_arguments
from .fused_conv2d import fused_resampled_conv2d
from .squared_norm import squared_norm
from .upfirdn2d import check_filter, check_padding, filter_size
from .vendor_conv2d import vendor_resampled_conv2d


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    noise: Tensor | None = None,
    bias: Tensor | None = None,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    resample_filter: Tensor | None = None,
    demodulate: bool = True,
    input_gain: Tensor | None = None,
    flip_weight: bool = True,
    impl: str | None = None,
) -> Tensor:
    """Convolve each sample with its own modulated weight; add noise and bias, activate, clamp.

    Sample n is convolved with ``weight * styles[n]``, divided (``demodulate``) by the norm of each output
    channel's weights, ``sqrt(sum((weight * styles[n])^2) + 1e-8)``. The weight of a sample is never built: its
    styles scale the input, its norms the output, in the passes that run anyway. Differentiable to any order
    with respect to x, weight, styles, noise and bias (and resample_filter). Karras et al. 2020, section 2.2.

    Args:
        x: [N, I, H, W], float64/32/16 or bfloat16, any strides. Under autocast it is cast to autocast's dtype.
        weight: [O, I, kh, kw]; used in x's dtype.
        styles: [N, I].
        noise: [N or 1, 1, H', W'], added to every channel of the output before the bias; None adds none.
        bias: [O], added before the activation; None adds none.
        act, alpha, gain, clamp: the activation, as in :func:`imgops.bias_act`. Default "linear".
        up: up-sampling factor; convolves at the low resolution, then filters. Default 1.
        down: down-sampling factor; filters, then convolves with this stride. Default 1; not together with up.
        padding: zeros around the (up-sampled) image: p, or (x, y), or (x0, x1, y0, y1); >= 0. Default 0.
        resample_filter: low-pass filter of the re-sampling, as in :func:`imgops.upfirdn2d`; the image
            is padded for it so that ``padding`` means what it does without. None is a single tap.
        demodulate: divide by the norms. Default True.
        input_gain: a factor on x that the norms leave alone, a tensor of one number, as StyleGAN3 has it (Karras et al.
            2021); None is 1.
        flip_weight: True correlates, as ``torch.conv2d`` does; False convolves. Default True.
        impl: "reference", "cpu", "triton" or "cuda"; None takes the best that is here.

    Returns:
        [N, O, H', W'] in x's dtype, with H' = (H * up + 2 * padding - kh) // down + 1 where down divides H.

    In float16 with ``demodulate``, weights are first divided by ``sqrt(I kh kw) max|weight|`` and styles by
    ``max|styles|``, so that no sum overflows; demodulation undoes both, except that its eps of 1e-8 is added to the
    scaled sum.

    Raises:
        TypeError: wrong types or dtypes.
        ValueError: shapes or devices that do not fit, an empty weight, a factor below 1, both factors above 1,
            negative padding, an output larger than any memory.
        RuntimeError: the backend named by ``impl`` cannot run here.
    """
    op = "modulated_conv2d"
    check_tensor(op, "x", x, 4)
    check_tensor(op, "weight", weight, 4)
    check_operand(op, "weight", weight, x, (weight.shape[0], x.shape[1], *weight.shape[2:]))
    demodulate = check_bool(op, "demodulate", demodulate)
    check_operand(op, "styles", styles, x, (x.shape[0], x.shape[1]))
    if input_gain is not None:
        check_operand(op, "input_gain", input_gain, x, ())
    with autocast_off(x) as x:
        acc_dtype = accumulation_dtype(x.dtype)
        weight, styles = weight.to(acc_dtype), styles.to(acc_dtype)
        if x.dtype == torch.float16 and demodulate and weight.numel() > 0:
            # the clamp avoids a division by zero where all weights or styles are zero
            tiny = torch.finfo(acc_dtype).tiny
            largest = weight.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=tiny)
            weight = weight / (weight[0].numel() ** 0.5 * largest)
            styles = styles / styles.abs().amax(dim=1, keepdim=True).clamp(min=tiny)
        if input_gain is not None and not demodulate:
            styles, input_gain = styles * input_gain, None
        return resampled_conv2d(
            op, x, weight, styles, demodulate, input_gain=input_gain, noise=noise, bias=bias, act=act, alpha=alpha,
            gain=gain, clamp=clamp, up=up, down=down, padding=padding, resample_filter=resample_filter,
            flip_weight=flip_weight, impl=impl,
        )  # fmt: skip


def resampled_conv2d(
    op: str,
    x: Tensor,
    weight: Tensor,
    styles: Tensor | None = None,
    demodulate: bool = False,
    *,
    input_gain: Tensor | None = None,
    noise: Tensor | None = None,
    bias: Tensor | None,
    act: str,
    alpha: float | None = None,
    gain: float | None,
    clamp: float | None,
    up: int,
    down: int,
    padding: int | Sequence[int],
    resample_filter: Tensor | None,
    flip_weight: bool,
    impl: str | None = None,
) -> Tensor:
    """The convolution behind :func:`modulated_conv2d` and the layers of ``imgops.nn`` that resample (``styles`` None).

    ``weight`` [O, I, kh, kw] is used in x's dtype; called under :func:`autocast_off`. The other arguments are
    those of :func:`modulated_conv2d`.
    """
    up, down = check_int(op, "up", up, 1), check_int(op, "down", down, 1)
    if up > 1 and down > 1:
        raise ValueError(f"imgops.{op}: up and down cannot both be above 1; got up={up}, down={down}")
    pads = check_padding(op, padding)
    if min(pads) < 0:
        raise ValueError(f"imgops.{op}: padding must be >= 0; got {padding!r}")
    resample_filter = check_filter(op, "resample_filter", resample_filter, x)
    flip_weight = check_bool(op, "flip_weight", flip_weight)
    activation = activation_arguments(op, act, alpha, gain, clamp)
    if 0 in constant_shape(weight):
        # torch.conv2d too refuses such a weight, or gives a result without a gradient
        raise ValueError(
            f"imgops.{op}: weight must have input channels, output channels and taps; got shape {list(weight.shape)}"
        )
    f = resample_filter if up > 1 or down > 1 else None
    _check_epilogue(op, x, weight, noise, bias, _output_size(op, x, weight, f, up, down, pads))
    backend = _backend.choose(op, x.device.type, impl, STATUSES)
    if is_empty(x):
        # cuDNN and oneDNN refuse an image without pixels, even if the padding adds some
        backend = "reference"
    if 1 in constant_shape(weight):
        # the stride of a side of 1 is arbitrary, and PyTorch's convolution on the CPU crashes on some in its gradient
        weight = weight.contiguous()

    demod = None
    if demodulate and styles is not None:
        demod = reference.demodulation(squared_norm(backend, weight), styles)
        # what a demodulated convolution gives is proportional to its input
        demod = demod if input_gain is None else demod * input_gain
    epilogue = Epilogue(bias, demod, noise, *activation)
    if backend == "reference":
        acc_dtype = accumulation_dtype(x.dtype)
        ones = x.new_ones(x.shape[:2], dtype=acc_dtype) if styles is None else styles.to(acc_dtype)
        y = reference.modulated_conv2d(
            x.to(acc_dtype), weight.to(acc_dtype), ones, epilogue.to(acc_dtype), up, down, pads, f, flip_weight
        )
        return y.to(x.dtype)
    weight = weight.to(x.dtype)
    # the transposed convolution flips by itself
    if flip_weight != (up == 1 or constant_shape(weight)[2:] == (1, 1)):
        weight = weight.flip([2, 3])
    pads = resample_padding(pads, filter_size(f), up, down)
    if backend == "triton" or (backend == "cpu" and winograd_pays(x, weight, up, down)):
        return fused_resampled_conv2d(backend, impl, x, weight, styles, epilogue, up, down, pads, f)
    return vendor_resampled_conv2d(backend, x, weight, styles, epilogue, up, down, pads, f)


@untraced
def _output_size(
    op: str, x: Tensor, weight: Tensor, f: Tensor | None, up: int, down: int, padding: tuple[int, int, int, int]
) -> tuple[int, int]:
    """(height, width) of the output; raise ValueError if it has no pixels."""
    (h, w), (kh, kw), (fw, fh) = x.shape[2:], weight.shape[2:], filter_size(f)
    x0, x1, y0, y1 = resample_padding(padding, (fw, fh), up, down)
    filtered_h, filtered_w = h * up + y0 + y1 - fh + 1, w * up + x0 + x1 - fw + 1
    out_h, out_w = (filtered_h - kh) // down + 1, (filtered_w - kw) // down + 1
    if out_h < 1 or out_w < 1:
        raise ValueError(
            f"imgops.{op}: x of {h} x {w} (height x width), up {up}, padding {padding} is smaller than the weight of "
            f"{kh} x {kw}; x, up and padding must leave at least one pixel"
        )
    check_bytes(op, (x.shape[0], weight.shape[0], out_h, out_w))
    if down > 1:
        # the filter runs before the convolution skips
        check_bytes(op, (*x.shape[:2], filtered_h, filtered_w))
    return out_h, out_w


@untraced
def _check_epilogue(
    op: str, x: Tensor, weight: Tensor, noise: Tensor | None, bias: Tensor | None, size: tuple[int, int]
) -> None:
    if noise is not None:
        check_operand(op, "noise", noise, x, ((1, x.shape[0]), 1, *size))
    if bias is not None:
        check_operand(op, "bias", bias, x, (weight.shape[0],))
