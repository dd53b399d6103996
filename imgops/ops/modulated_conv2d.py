"""``modulated_conv2d``: StyleGAN2's convolution with its noise, bias and activation, and its unmodulated sister."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _backend
from ..reference import modulated_conv2d as reference
from ..reference.modulated_conv2d import resample_padding
from ._common import STATUSES, accumulation_dtype, check_ints, check_operand, check_tensor
from .bias_act import activation_arguments, fused_bias_act
from .fused_conv2d import fused_resampled_conv2d
from .upfirdn2d import check_filter, check_padding, filter_size, fused_upfirdn2d_bias_act

_LINEAR = ("linear", 0.0, 1.0, -1.0)


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
        resample_filter: low-pass filter of the re-sampling, float32, as in :func:`imgops.upfirdn2d`; the image
            is padded for it so that ``padding`` means what it does without. None is a single tap.
        demodulate: divide by the norms. Default True.
        flip_weight: True correlates, as ``torch.conv2d`` does; False convolves. Default True.
        impl: "reference", "cpu", "triton" or "cuda"; None takes the best that is here.

    Returns:
        [N, O, H', W'] in x's dtype, with H' = (H * up + 2 * padding - kh) // down + 1.

    In float16 with ``demodulate``, weights are first divided by ``sqrt(I kh kw) max|weight|`` and styles by
    ``max|styles|``, which demodulation undoes, so that no sum overflows.

    Raises:
        TypeError: wrong types or dtypes.
        ValueError: shapes or devices that do not fit, a factor below 1, both factors above 1, negative padding.
        RuntimeError: the twin named by ``impl`` cannot run here.
    """
    op = "modulated_conv2d"
    check_tensor(op, "x", x, 4)
    check_tensor(op, "weight", weight, 4)
    check_operand(op, "weight", weight, x, (weight.shape[0], x.shape[1], *weight.shape[2:]))
    check_operand(op, "styles", styles, x, (x.shape[0], x.shape[1]))
    with _autocast_off(x.device.type) as autocast_dtype:
        x = x if autocast_dtype is None or x.dtype == torch.float64 else x.to(autocast_dtype)
        wide = accumulation_dtype(x.dtype)
        weight, styles = weight.to(wide), styles.to(wide)
        if x.dtype == torch.float16 and demodulate and weight.numel() > 0:
            weight = weight / (weight[0].numel() ** 0.5 * weight.abs().amax(dim=(1, 2, 3), keepdim=True))
            styles = styles / styles.abs().amax(dim=1, keepdim=True)
        demod = reference.demodulation(weight, styles) if demodulate else None
        return resampled_conv2d(
            op,
            x,
            weight,
            styles,
            demod,
            noise,
            bias,
            act,
            alpha,
            gain,
            clamp,
            up,
            down,
            padding,
            resample_filter,
            flip_weight,
            impl,
        )


def resampled_conv2d(
    op: str,
    x: Tensor,
    weight: Tensor,
    styles: Tensor | None,
    demod: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
    act: str,
    alpha: float | None,
    gain: float | None,
    clamp: float | None,
    up: int,
    down: int,
    padding: int | Sequence[int],
    resample_filter: Tensor | None,
    flip_weight: bool,
    impl: str | None,
) -> Tensor:
    """The convolution behind :func:`modulated_conv2d` and the plain layers of ``imgops.nn`` (``styles`` None).

    ``demod`` [N, O] scales the output channels. ``weight`` is used in x's dtype. The rest is as there.
    """
    (up,), (down,) = check_ints(op, "up", up, (1,), minimum=1), check_ints(op, "down", down, (1,), minimum=1)
    if up > 1 and down > 1:
        raise ValueError(f"imgops.{op}: up and down cannot both be above 1; got up={up}, down={down}")
    pads = check_padding(op, padding)
    if min(pads) < 0:
        raise ValueError(f"imgops.{op}: padding must be >= 0; got {padding!r}")
    check_filter(op, "resample_filter", resample_filter, x)
    act_arguments = activation_arguments(op, act, alpha, gain, clamp)
    (n, _, h, w), (channels, _, kh, kw) = x.shape, weight.shape
    out_h, out_w = (h * up + pads[2] + pads[3] - kh) // down + 1, (w * up + pads[0] + pads[1] - kw) // down + 1
    if out_h < 1 or out_w < 1:
        raise ValueError(
            f"imgops.{op}: x of {h} x {w} (height x width), up {up}, padding {pads} is smaller than the weight of {kh} x {kw}; "
            "x, up and padding must leave at least one pixel"
        )
    if noise is not None:
        check_operand(op, "noise", noise, x, ((1, n), 1, out_h, out_w))
    if bias is not None:
        check_operand(op, "bias", bias, x, (channels,))
    twin = _backend.choose(op, x.device.type, impl, STATUSES)
    f = resample_filter if up > 1 or down > 1 else None

    if twin == "reference":
        wide = accumulation_dtype(x.dtype)
        noise, bias, styles = (None if t is None else t.to(wide) for t in (noise, bias, styles))
        ones = x.new_ones(x.shape[:2], dtype=wide) if styles is None else styles
        y = reference.modulated_conv2d(
            x.to(wide), weight.to(wide), ones, demod, noise, bias, act, *act_arguments, up, down, pads, f, flip_weight
        )
        return y.to(x.dtype)
    weight = weight.to(x.dtype)
    if twin == "triton":
        activation = (act, *act_arguments)
        return fused_resampled_conv2d(
            x, weight, styles, demod, noise, bias, activation, up, down, pads, f, flip_weight
        )
    return _library_conv2d(
        twin, x, weight, styles, demod, noise, bias, (act, *act_arguments), up, down, pads, f, flip_weight
    )


def _library_conv2d(
    twin: str,
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
    """The library's convolution between one fused pass over its input and one over its output."""
    kh, kw = weight.shape[2:]
    pointwise = kh == kw == 1
    x0, x1, y0, y1 = resample_padding(padding, filter_size(f), up, down)

    # before: modulate, in the same pass as whatever else must touch x
    stride = down
    if down > 1 or x0 != x1 or y0 != y1:
        if up == 1:
            # a 1x1 convolution reads only the samples that its stride keeps
            kept = (down, down) if pointwise else (1, 1)
            stride = 1 if pointwise else down
            x = fused_upfirdn2d_bias_act(twin, x, f, (1, 1), kept, (x0, x1, y0, y1), 1.0, None, styles, None, *_LINEAR)
            styles, x0, y0 = None, 0, 0
    if styles is not None:
        x = fused_bias_act(twin, x, None, styles, None, 1, *_LINEAR)

    if up == 1:
        x = F.conv2d(x, weight if flip_weight else weight.flip([2, 3]), stride=stride, padding=(y0, x0))
        return fused_bias_act(twin, x, bias, demod, noise, 1, *activation)

    # after: the up-sampling filter with the whole epilogue
    if pointwise:
        x, factor = F.conv2d(x, weight), up
    else:
        # the transposed convolution flips, and its output starts kernel - 1 samples earlier
        x = F.conv_transpose2d(x, (weight.flip([2, 3]) if flip_weight else weight).transpose(0, 1), stride=up)
        factor, x0, x1, y0, y1 = 1, x0 - (kw - 1), x1 - (kw - up), y0 - (kh - 1), y1 - (kh - up)
    pads = (x0, x1, y0, y1)
    return fused_upfirdn2d_bias_act(
        twin, x, f, (factor, factor), (1, 1), pads, float(up**2), bias, demod, noise, *activation
    )


@contextlib.contextmanager
def _autocast_off(device_type: str) -> Iterator[torch.dtype | None]:
    """Autocast's dtype for the device if it is on, else None; within, it is off: the dtypes are chosen here."""
    if not torch.is_autocast_enabled(device_type):
        yield None
        return
    dtype = torch.get_autocast_dtype(device_type)
    with torch.autocast(device_type, enabled=False):
        yield dtype
