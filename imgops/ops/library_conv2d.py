"""The convolution of the cpu and cuda twins: the library's, between one fused pass before it and one after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..reference.modulated_conv2d import resample_padding
from . import bias_act
from ._common import accumulation_dtype, dense_format, register
from .bias_act import fused_bias_act
from .fused_conv2d import fused_conv2d, winograd_pays
from .upfirdn2d import filter_gradient, filter_size, fused_upfirdn2d_bias_act, transposed

_LINEAR = ("linear", 0.0, 1.0, -1.0)
#: the most phases, along an axis, that csrc/cpu/upfirdn2d.h merges
MAX_PHASES = 8
#: in smaller batches the weights, which phases must be cut from, outweigh the images
PHASE_PIXELS = 4096


def library_resampled_conv2d(
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
    """The convolution of ``modulated_conv2d``; arguments already checked."""
    kh, kw = weight.shape[2:]
    pointwise = kh == kw == 1
    x0, x1, y0, y1 = resample_padding(padding, filter_size(f), up, down)
    weight = weight if flip_weight else weight.flip([2, 3])

    # before: modulate, in the same pass as whatever else must touch x
    stride = down
    if up == 1 and (down > 1 or x0 != x1 or y0 != y1):
        # a 1x1 convolution reads only the samples that its stride keeps
        kept = (down, down) if pointwise else (1, 1)
        stride = 1 if pointwise else down
        x = fused_upfirdn2d_bias_act(twin, x, f, (1, 1), kept, (x0, x1, y0, y1), 1.0, None, styles, None, *_LINEAR)
        styles, x0, y0 = None, 0, 0
    elif up == down == 1 and twin == "cpu" and winograd_pays(x, weight):
        return fused_conv2d(twin, x, weight, styles, demod, noise, bias, activation, 1, (x0, x1, y0, y1), 1)
    if styles is not None:
        x = fused_bias_act(twin, x, None, styles, None, 1, *_LINEAR)

    if up == 1:
        x = F.conv2d(x, weight, stride=stride, padding=(y0, x0))
        return fused_bias_act(twin, x, bias, demod, noise, 1, *activation)

    # after: the up-sampling filter with the whole epilogue
    gain = float(up**2)
    if pointwise:
        x = F.conv2d(x, weight)
        pads = (x0, x1, y0, y1)
        return fused_upfirdn2d_bias_act(twin, x, f, (up, up), (1, 1), pads, gain, bias, demod, noise, *activation)
    # the transposed convolution flips, and its output starts kernel - 1 samples earlier
    pads = (x0 - (kw - 1), x1 - (kw - up), y0 - (kh - 1), y1 - (kh - up))
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    planar = dense_format(x) == torch.contiguous_format
    if twin == "cpu" and planar and up <= min(kh, kw, MAX_PHASES) and pixels >= PHASE_PIXELS:
        # planar images: convolutions phase by phase run faster than the library's transposed one
        images = [F.conv2d(x, k, padding=(k.shape[2] - 1, k.shape[3] - 1)) for k in _phase_weights(weight, up)]
        wide = accumulation_dtype(x.dtype)
        operands = [None if t is None else t.to(wide) for t in (bias, demod, noise)]
        keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (*images, f, *operands))
        return torch.ops.imgops.phases_upfirdn2d_bias_act(images, f, up, pads, gain, *operands, *activation, keep)[0]
    x = F.conv_transpose2d(x, weight.flip([2, 3]).transpose(0, 1), stride=up)
    return fused_upfirdn2d_bias_act(twin, x, f, (1, 1), (1, 1), pads, gain, bias, demod, noise, *activation)


def _phase_weights(weight: Tensor, up: int) -> list[Tensor]:
    """Weights whose convolutions at the low resolution are the phases of the transposed one, row by row.

    Output ``up * a + r`` meets the taps ``(K - 1 - r) % up``, and every up-th from there, on inputs a, a - 1, ...
    """
    kh, kw = weight.shape[2:]
    return [weight[:, :, (kh - 1 - ry) % up :: up, (kw - 1 - rx) % up :: up] for ry in range(up) for rx in range(up)]


def _fake_phases(
    images: Sequence[Tensor],
    f: Tensor | None,
    phases: int,
    padding: Sequence[int],
    gain: float,
    b: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    act: str,
    alpha: float,
    act_gain: float,
    clamp: float,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    (n, c, h, w), (fw, fh) = _merged_shape(images, phases), filter_size(f)
    y = images[0].new_empty([n, c, h + padding[2] + padding[3] - fh + 1, w + padding[0] + padding[1] - fw + 1])
    return y, torch.empty_like(y) if keep else y.new_empty([0])


def _merged_shape(images: Sequence[Tensor], phases: int) -> tuple[int, int, int, int]:
    n, c = images[0].shape[:2]
    return n, c, sum(t.shape[2] for t in images[::phases]), sum(t.shape[3] for t in images[:phases])


def _setup_context_phases(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    images, f, phases, padding, gain, b, scale, noise, act, alpha, act_gain, clamp, ctx.keep = inputs
    y, filtered = output
    # asked of the tensors: with a list among the inputs, ctx.needs_input_grad is flat here
    needs_x = scale is not None and scale.requires_grad
    kept = bias_act.saved_for_backward(filtered, y, act, alpha, act_gain, clamp, needs_x)
    ctx.save_for_backward(f, *kept, b, scale, noise, *(images if f is not None and f.requires_grad else []))
    ctx.phases, ctx.shape = phases, _merged_shape(images, phases)
    ctx.resample = ((1, 1), (1, 1), padding, False, gain)
    ctx.epilogue = (1, act, alpha, act_gain, clamp)
    ctx.set_materialize_grads(False)


def _backward_phases(ops: Any, ctx: Any, dy: Tensor | None, dfiltered: Tensor | None) -> tuple[Any, ...]:
    f, *rest = ctx.saved_tensors
    kept, images, phases = tuple(rest[:5]), rest[5:], ctx.phases
    db = dscale = dnoise = df = None
    d = dfiltered if ctx.keep else None
    if dy is not None:
        through, db, dscale, dnoise = bias_act.gradients(ops, dy, kept, ctx.epilogue, ctx.needs_input_grad[5:8])
        d = through if d is None else d + through
    dimages: list[Tensor | None] = [None] * phases**2
    if d is not None:
        whole = ops.upfirdn2d(*transposed(d, ctx.shape, f, *ctx.resample))
        dimages = [whole[:, :, ry::phases, rx::phases] for ry in range(phases) for rx in range(phases)]
        if ctx.needs_input_grad[1]:
            merge = (phases, (0, 0, 0, 0), 1.0, None, None, None, *_LINEAR, False)
            df = filter_gradient(ops, ops.phases_upfirdn2d_bias_act(images, None, *merge)[0], d, f, *ctx.resample)
    return dimages, df, *[None] * 3, db, dscale, dnoise, *[None] * 5


def _fake_energy(weight: Tensor) -> Tensor:
    return weight.new_empty(weight.shape[:2])


def _setup_context_energy(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward_energy(ops: Any, ctx: Any, d: Tensor) -> Tensor:
    return 2 * ctx.saved_tensors[0] * d[:, :, None, None]


register(
    "phases_upfirdn2d_bias_act",
    fake=_fake_phases,
    triton=None,
    backward=_backward_phases,
    setup_context=_setup_context_phases,
)
register(
    "weight_energy", fake=_fake_energy, triton=None, backward=_backward_energy, setup_context=_setup_context_energy
)
