"""Convolution on tensor cores with the modulation on load and the whole epilogue on store, as an implicit GEMM.

    y[n, o, p] = clamp(gain * act(demod[n, o] * u[n, o, p] + noise[n, p] + b[o])),
    u[n, o, p] = residual_scale * residual[n, o, p]
        + sum over i and taps of weight[o, i, tap] * styles[n, i] * x[n, i, p * stride + tap - pad]

Rows of the product are output positions, columns are output channels, and the sum runs over input channels and taps.
The transposed convolution (up-sampling) runs phase by phase: all outputs of one phase meet the same few taps, so that
each phase is a plain convolution of x and nothing is multiplied by an inserted zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._epilogue import Epilogue
from ._common import ACC_DTYPE, OPTIONS, TL_DTYPE, dense_format
from .bias_act import activate, pre_activation


@triton.jit
def conv2d_kernel(
    p_x,
    p_w,  # [O, KH, KW, I]
    p_styles,  # [N, I], or None
    p_residual,  # laid out as y, or None
    p_demod,  # [N, O], or None
    p_noise,  # [N or 1, out_h, out_w], or None
    p_b,  # [O], or None
    p_y,
    p_kept,  # u, or None
    samples, channels, h, w,
    out_channels, out_h, out_w,
    x_n, x_c, x_h, x_w,
    y_n, y_c, y_h, y_w,
    pad_x, pad_y, noise_stride,
    grid_h, grid_w,  # output positions of a phase, those that the padding of a transposed convolution crops too
    m_blocks, o_blocks,
    STRIDE: tl.constexpr,
    UP: tl.constexpr,  # 1: a convolution; more: the transposed one of this stride
    KH: tl.constexpr, KW: tl.constexpr,
    RESIDUAL_SCALE: tl.constexpr,
    ACT: tl.constexpr, ALPHA: tl.constexpr, GAIN: tl.constexpr, CLAMP: tl.constexpr,
    PER_SAMPLE: tl.constexpr,  # a tile has positions of one sample, else of several small ones
    INDEX: tl.constexpr, ACC_DTYPE: tl.constexpr,
    UPCAST: tl.constexpr,  # in the interpreter, whose product of bfloat16 multiplies the bits
    PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    # neighboring programs read the same x, and the phases with the most taps start first
    o = pid % o_blocks * BN + tl.arange(0, BN)[None, :]  # [1, BN]
    pid = pid // o_blocks
    m = pid % m_blocks * BM + tl.arange(0, BM)[:, None]  # [BM, 1]
    pid = pid // m_blocks
    if PER_SAMPLE:
        n = pid % samples
        pid = pid // samples
        position = m
        m_m = m < grid_h * grid_w
    else:
        n = m // (grid_h * grid_w)
        position = m % (grid_h * grid_w)
        m_m = n < samples
    phase_y = pid // UP
    phase_x = pid % UP
    row = position // grid_w
    col = position % grid_w
    k = tl.arange(0, BK)
    m_o = o < out_channels

    taps_y = (KH - phase_y + UP - 1) // UP
    taps_x = (KW - phase_x + UP - 1) // UP
    taps = taps_y * taps_x
    step_in: tl.constexpr = STRIDE if UP == 1 else 1
    y0 = row * step_in  # the input row under tap 0, before padding
    x0 = col * step_in
    p_position = p_x + n.to(INDEX) * x_n + y0.to(INDEX) * x_h + x0.to(INDEX) * x_w  # [BM, 1]
    p_filter = p_w + o.to(INDEX) * (KH * KW) * channels  # [1, BN]
    acc = tl.zeros((BM, BN), ACC_DTYPE)
    for step in range(taps * tl.cdiv(channels, BK)):
        # taps are the inner loop, so that the shifted windows of the same channels meet in the cache
        tap = step % taps
        c = step // taps * BK + k  # [BK]
        j_y = tap // taps_x
        j_x = tap % taps_x
        if UP == 1:
            shift_y = j_y - pad_y
            shift_x = j_x - pad_x
            w_tap = tap
        else:
            shift_y = -j_y
            shift_x = -j_x
            w_tap = (phase_y + j_y * UP) * KW + phase_x + j_x * UP
        m_x = m_m & (y0 + shift_y >= 0) & (y0 + shift_y < h) & (x0 + shift_x >= 0) & (x0 + shift_x < w)
        m_c = c < channels
        shift = shift_y.to(INDEX) * x_h + shift_x.to(INDEX) * x_w
        b_x = tl.load(p_position + (shift + c.to(INDEX) * x_c)[None, :], m_x & m_c[None, :], other=0)  # [BM, BK]
        b_w = tl.load(p_filter + (w_tap * channels + c)[:, None], m_o & m_c[:, None], other=0)  # [BK, BN]
        if p_styles is not None:
            # one row of styles per tile, or one per position; positions past the end read nothing
            m_s = m_c[None, :]
            if not PER_SAMPLE:
                m_s = m_s & m_m
            styles = tl.load(p_styles + n * channels + c[None, :], m_s, other=0)
            b_x = (b_x.to(ACC_DTYPE) * styles).to(b_x.dtype)
        if UPCAST:
            b_x = b_x.to(ACC_DTYPE)
            b_w = b_w.to(ACC_DTYPE)
        acc = tl.dot(b_x, b_w, acc, input_precision=PRECISION, out_dtype=ACC_DTYPE)

    row = row * UP + phase_y
    col = col * UP + phase_x
    if UP > 1:
        row -= pad_y
        col -= pad_x
        m_m = m_m & (row >= 0) & (col >= 0)
    m_m = m_m & (row < out_h) & (col < out_w)
    place = position.to(INDEX) * y_w if UP == 1 else row.to(INDEX) * y_h + col.to(INDEX) * y_w
    place = n.to(INDEX) * y_n + place + o.to(INDEX) * y_c
    if p_residual is not None:
        residual = tl.load(p_residual + place, m_m & m_o, other=0).to(ACC_DTYPE)
        acc += residual * tl.full((), RESIDUAL_SCALE, ACC_DTYPE)
    if p_kept is not None:
        tl.store(p_kept + place, acc.to(p_kept.dtype.element_ty), m_m & m_o)
    b = None
    demod = None
    noise = None
    if p_b is not None:
        b = tl.load(p_b + o, m_o, other=0)
    if p_demod is not None:
        m_d = m_o
        if not PER_SAMPLE:
            m_d = m_o & m_m
        demod = tl.load(p_demod + n * out_channels + o, m_d, other=0)
    if p_noise is not None:
        noise = tl.load(p_noise + n.to(INDEX) * noise_stride + row * out_w + col, m_m, other=0)
    out = activate(pre_activation(acc, b, demod, noise), ACT, ALPHA, GAIN, CLAMP)
    tl.store(p_y + place, out.to(p_y.dtype.element_ty), m_m & m_o)


class Configuration(NamedTuple):
    """Tile of a program, its number of warps, and how many stages the compiler pipelines."""

    bm: int
    bn: int
    bk: int
    warps: int
    stages: int


def configuration(
    positions: int,
    batches: int,
    channels: int,
    out_channels: int,
    dtype: torch.dtype,
    precision: str,
    planar: bool,
    transposed: bool,
) -> Configuration:
    """The tile for ``batches`` products of [positions, channels] and [channels, out_channels].

    The tile is chosen by rule and not by trial, so that it is the same in every run and inside a captured graph.
    """

    def fit(size: int, widest: int) -> int:
        return max(16, min(widest, triton.next_power_of_2(size)))

    # AMD has 64 KiB of shared memory, and its compiler counts one stage more than it buffers
    stages = 2 if torch.version.hip else 3
    if dtype == torch.float64 or (dtype == torch.float32 and precision == "ieee"):
        # registers are the limit
        widest = 64 if dtype == torch.float32 else 32
        return Configuration(fit(positions, widest), fit(out_channels, widest), 16, 4, stages)
    # adjacent outputs of a phase are apart in a plane: each needs an address, and registers are the limit
    widest = 64 if planar and transposed else 128
    bm, bn = fit(positions, widest), fit(out_channels, 128)
    # smaller tiles where large ones would leave multiprocessors idle
    if bm == widest and bn == 128 and triton.cdiv(positions, bm) * triton.cdiv(out_channels, bn) * batches < 132:
        bm = bn = 64
    # 128 bytes of channels per step; half of that where channels are not adjacent, as each value then needs an address
    bk = 128 // dtype.itemsize // (2 if planar else 1)
    warps = 8 if bm * bn > 64 * 128 or (planar and bm * bn >= 64 * 64) else 4
    return Configuration(bm, bn, fit(channels, bk), warps, stages)


def fused_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor | None,
    stride: int,
    padding: Sequence[int],
    up: int,
    groups: int,
    residual: Tensor | None,
    residual_scale: float,
    *epilogue_and_keep: Any,
) -> tuple[Tensor, Tensor]:
    """(y, u) of the module, in x's dtype, channels-last where x is; u is [0] unless ``keep``, the last argument.

    Shapes: x [N, I, H, W]; weight [O, I, kh, kw] and residual [N, O, H', W'] in x's dtype; styles [N, I] and the
    epilogue's b [O], scale [N, O] and noise [N or 1, 1, H', W'] in float32 (float64 where x is). ``padding`` is
    (x0, x1, y0, y1), negative ones crop. With ``up`` > 1 it is the transposed convolution of that stride, with stride
    1: u[up * p + tap] += weight[tap] * x[p], [(H - 1) * up + kh, (W - 1) * up + kw] large, which ``padding`` crops; a
    negative x1 or y1 pads it.

    float32 runs as TF32 where ``torch.backends.cudnn.conv.fp32_precision`` says so, as PyTorch's own convolutions do.
    """
    if groups > 1:
        raise ValueError(f"imgops::fused_conv2d: groups must be 1 in Triton; got {groups}")
    if up > 1 and min(padding[0], padding[2]) < 0:
        raise ValueError(f"imgops::fused_conv2d: a transposed convolution in Triton only pads the end; got {padding}")
    *epilogue, keep = epilogue_and_keep
    b, scale, noise, act, alpha, gain, clamp = Epilogue(*epilogue).contiguous()
    (n, channels, h, w), (out_channels, _, kh, kw) = x.shape, weight.shape
    if up > 1:
        out_h = (h - 1) * up + kh - padding[2] - padding[3]
        out_w = (w - 1) * up + kw - padding[0] - padding[1]
    else:
        out_h = (h + padding[2] + padding[3] - kh) // stride + 1
        out_w = (w + padding[0] + padding[1] - kw) // stride + 1
    form = dense_format(x)
    x = x.contiguous(memory_format=form)
    y = torch.empty([n, out_channels, out_h, out_w], dtype=x.dtype, device=x.device, memory_format=form)
    kept = torch.empty_like(y) if keep else None
    if y.numel() > 0:
        weight = weight.permute(0, 2, 3, 1).contiguous()
        styles = None if styles is None else styles.contiguous()
        residual = None if residual is None else residual.contiguous(memory_format=form)
        precision = "ieee"
        if x.dtype == torch.float32 and torch.backends.cudnn.conv.fp32_precision == "tf32":
            precision = "tf32"
        grid_h, grid_w = out_h, out_w
        if up > 1:
            grid_h, grid_w = triton.cdiv(out_h + padding[2], up), triton.cdiv(out_w + padding[0], up)
        positions = grid_h * grid_w
        per_sample = positions >= 64
        batches = (n if per_sample else 1) * up * up
        positions = positions if per_sample else positions * n
        planar = x.stride(1) != 1
        tile = configuration(positions, batches, channels, out_channels, x.dtype, precision, planar, up > 1)
        m_blocks, o_blocks = triton.cdiv(positions, tile.bm), triton.cdiv(out_channels, tile.bn)
        noise_stride = out_h * out_w if noise is not None and noise.shape[0] > 1 else 0
        large = max(x.numel(), y.numel()) >= 2**31
        with torch.cuda.device_of(x):
            conv2d_kernel[(o_blocks * m_blocks * batches,)](
                x, weight, styles, residual, scale, noise, b, y, kept,
                n, channels, h, w, out_channels, out_h, out_w, *x.stride(), *y.stride(),
                padding[0], padding[2], noise_stride, grid_h, grid_w, m_blocks, o_blocks,
                STRIDE=stride, UP=up, KH=kh, KW=kw, RESIDUAL_SCALE=residual_scale,
                ACT=act, ALPHA=alpha, GAIN=gain, CLAMP=clamp,
                PER_SAMPLE=per_sample, INDEX=tl.int64 if large else tl.int32, ACC_DTYPE=TL_DTYPE[ACC_DTYPE[x.dtype]],
                UPCAST=x.device.type == "cpu" and x.dtype == torch.bfloat16 and triton.knobs.runtime.interpret,
                PRECISION=precision, BM=tile.bm, BN=tile.bn, BK=tile.bk,
                num_warps=tile.warps, num_stages=tile.stages, **OPTIONS,
            )  # fmt: skip
    return y, y.new_empty([0]) if kept is None else kept
