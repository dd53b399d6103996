"""``clamp(gain * act(x * scale + noise + b))`` and its backward, each in one pass over memory.

Both kernels see memory as [groups, rows, cols]: a row is a plane of an image (planar) or a pixel (channels-last). Tiles
are [R, K]. Bias, scale and noise, which run along rows or columns, are read once per tile. The backward kernel writes
one partial sum per tile and row or column, and a small reduction adds them up: without atomics, so that results are
deterministic.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._epilogue import Epilogue
from ._common import ACC_DTYPE, OPTIONS, TL_DTYPE, dense_format

_SELU_ALPHA = tl.constexpr(1.6732632423543772)
_SELU_SCALE = tl.constexpr(1.0507009873554805)


@triton.jit
def _tanh_near_zero(z):
    # Pade approximant, exact to double precision for |z| <= 0.5, where 1 - exp(-2z) would cancel
    q = z * z
    return z * (135135 + q * (17325 + q * (378 + q))) / (135135 + q * (62370 + q * (3150 + q * 28)))


@triton.jit
def _tanh(z):
    e = tl.exp(-2 * tl.abs(z))
    far = (1 - e) / (1 + e)
    return tl.where(tl.abs(z) < 0.5, _tanh_near_zero(z), tl.where(z < 0, -far, far))


@triton.jit
def _expm1(z):
    t = _tanh_near_zero(0.5 * z)
    return tl.where(tl.abs(z) < 1, 2 * t / (1 - t), tl.exp(z) - 1)


@triton.jit
def _log1p(e):
    # for 0 <= e <= 1; the series of 2 atanh(e / (2 + e)) where log(1 + e) would cancel
    s = e / (2 + e)
    q = s * s
    series = 2 * s * (1 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * (1 / 11 + q / 13))))))
    return tl.where(e < 0.1, series, tl.log(1 + e))


@triton.jit
def activate(z, ACT: tl.constexpr, ALPHA: tl.constexpr, GAIN: tl.constexpr, CLAMP: tl.constexpr):
    """``clamp(gain * act(z))`` in z's dtype; no clamp where CLAMP < 0. NaN stays NaN."""
    y = z
    if ACT == "relu":
        y = tl.where(z <= 0, tl.zeros_like(z), z)
    elif ACT == "lrelu":
        y = tl.where(z > 0, z, z * tl.full((), ALPHA, z.dtype))
    elif ACT == "tanh":
        y = _tanh(z)
    elif ACT == "sigmoid":
        y = tl.sigmoid(z)
    elif ACT == "elu":
        y = tl.where(z > 0, z, _expm1(z))
    elif ACT == "selu":
        y = tl.full((), _SELU_SCALE, z.dtype) * tl.where(z > 0, z, tl.full((), _SELU_ALPHA, z.dtype) * _expm1(z))
    elif ACT == "softplus":
        y = tl.where(z < 0, tl.zeros_like(z), z) + _log1p(tl.exp(-tl.abs(z)))
    elif ACT == "swish":
        y = z * tl.sigmoid(z)
    elif ACT == "hardswish":
        six = tl.full(z.shape, 6, z.dtype)
        y = z * tl.where(z < -3, tl.zeros_like(z), tl.where(z > 3, six, z + 3)) * (1 / 6)
    if GAIN != 1:
        y = y * tl.full((), GAIN, z.dtype)
    if CLAMP >= 0:
        limit = tl.full((), CLAMP, z.dtype)
        y = tl.where(y > limit, limit, tl.where(y < -limit, -limit, y))
    return y


@triton.jit
def _slope(
    t, FROM_INPUT: tl.constexpr, ACT: tl.constexpr, ALPHA: tl.constexpr, GAIN: tl.constexpr, CLAMP: tl.constexpr
):
    """dy/dz, from t = z where FROM_INPUT, else from the output t = y, whose sign is that of z."""
    one = tl.full(t.shape, 1, t.dtype)
    s = one
    if ACT == "relu":
        s = tl.where(t > 0, one, tl.zeros_like(t))
    elif ACT == "lrelu":
        s = tl.where(t > 0, one, tl.full((), ALPHA, t.dtype))
    elif ACT == "tanh":
        h = _tanh(t)
        s = 1 - h * h
    elif ACT == "sigmoid":
        h = tl.sigmoid(t)
        s = h * (1 - h)
    elif ACT == "elu":
        s = tl.where(t > 0, one, tl.exp(tl.where(t > 0, tl.zeros_like(t), t)))
    elif ACT == "selu":
        e = tl.exp(tl.where(t > 0, tl.zeros_like(t), t))
        s = tl.full((), _SELU_SCALE, t.dtype) * tl.where(t > 0, one, tl.full((), _SELU_ALPHA, t.dtype) * e)
    elif ACT == "softplus":
        s = tl.sigmoid(t)
    elif ACT == "swish":
        h = tl.sigmoid(t)
        s = h * (1 + t * (1 - h))
    elif ACT == "hardswish":
        s = tl.where(t <= -3, tl.zeros_like(t), tl.where(t < 3, t * (1 / 3) + 0.5, one))
    s = s * tl.full((), GAIN, t.dtype)
    if CLAMP >= 0:
        y = t
        if FROM_INPUT:
            y = activate(t, ACT, ALPHA, GAIN, -1.0)
        s = tl.where(tl.abs(y) < tl.full((), CLAMP, t.dtype), s, tl.zeros_like(t))
    return s


@triton.jit
def _bias(p_b, row0, r, col, m_row, m_col, channels, CHANNELS_LAST: tl.constexpr):
    """The bias of a tile, [1, K] or [R, 1]."""
    if CHANNELS_LAST:
        b = tl.load(p_b + col, m_col, other=0)
    else:
        # one 64-bit remainder per tile and 32-bit ones per row
        b = tl.load(p_b + ((row0 % channels).to(tl.int32) + r) % channels, m_row, other=0)
    return b


@triton.jit
def _scale(p_scale, g, row0, r, col, m_row, m_col, rows, channels, CHANNELS_LAST: tl.constexpr):
    """The scale of a tile, [1, K] or [R, 1]."""
    if CHANNELS_LAST:
        scale = tl.load(p_scale + g.to(tl.int64) * channels + col, m_col, other=0)
    else:
        scale = tl.load(p_scale + g.to(tl.int64) * rows + row0 + r, m_row, other=0)
    return scale


@triton.jit
def _noise(p_noise, g, row0, r, col, m_row, m_col, stride, CHANNELS_LAST: tl.constexpr):
    """The noise of a tile, [R, 1] or [1, K]."""
    if CHANNELS_LAST:
        noise = tl.load(p_noise + g.to(tl.int64) * stride + row0 + r, m_row, other=0)
    else:
        noise = tl.load(p_noise + g.to(tl.int64) * stride + col, m_col, other=0)
    return noise


@triton.jit
def pre_activation(x, b, scale, noise):
    """``x * scale + noise + b``; terms that are None drop out."""
    z = x
    if scale is not None:
        z = z * scale
    if noise is not None:
        z = z + noise
    if b is not None:
        z = z + b
    return z


@triton.jit
def bias_act_kernel(
    p_x,
    p_b,
    p_scale,
    p_noise,
    p_y,
    rows, cols, channels, noise_stride,
    row_blocks, col_blocks,
    ACT: tl.constexpr, ALPHA: tl.constexpr, GAIN: tl.constexpr, CLAMP: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, ACC_DTYPE: tl.constexpr, R: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    col0 = (pid % col_blocks).to(tl.int64) * K
    g = pid // col_blocks // row_blocks
    row0 = (pid // col_blocks % row_blocks).to(tl.int64) * R
    r = tl.arange(0, R)[:, None]
    k = tl.arange(0, K)[None, :]
    m_row, m_col = row0 + r < rows, col0 + k < cols  # [R, 1], [1, K]
    offset = (g.to(tl.int64) * rows + row0) * cols + col0 + (r * cols + k)  # [R, K]
    x = tl.load(p_x + offset, m_row & m_col, other=0).to(ACC_DTYPE)
    b = None
    scale = None
    noise = None
    if p_b is not None:
        b = _bias(p_b, row0, r, col0 + k, m_row, m_col, channels, CHANNELS_LAST)
    if p_scale is not None:
        scale = _scale(p_scale, g, row0, r, col0 + k, m_row, m_col, rows, channels, CHANNELS_LAST)
    if p_noise is not None:
        noise = _noise(p_noise, g, row0, r, col0 + k, m_row, m_col, noise_stride, CHANNELS_LAST)
    y = activate(pre_activation(x, b, scale, noise), ACT, ALPHA, GAIN, CLAMP)
    tl.store(p_y + offset, y.to(p_y.dtype.element_ty), m_row & m_col)


@triton.jit
def bias_act_backward_kernel(
    p_dy,
    p_x,  # the input, or None
    p_y,  # the output, or None
    p_b,
    p_scale,
    p_noise,
    p_dx,
    p_row_sum,  # [col_blocks, groups * rows], of dy * slope along a row, or None
    p_col_sum,  # [groups, chunks, cols], down a column
    p_row_dot,  # the same of dy * slope * x
    p_col_dot,
    groups, rows, cols, channels, noise_stride,
    chunks, col_blocks, steps,
    ACT: tl.constexpr, ALPHA: tl.constexpr, GAIN: tl.constexpr, CLAMP: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, ACC_DTYPE: tl.constexpr, R: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    col_block = pid % col_blocks
    chunk = pid // col_blocks % chunks
    g = (pid // col_blocks // chunks).to(tl.int64)
    col0 = col_block.to(tl.int64) * K
    r = tl.arange(0, R)[:, None]
    k = tl.arange(0, K)[None, :]
    m_col = col0 + k < cols  # [1, K]
    col_sum = tl.zeros((R, K), ACC_DTYPE)
    col_dot = tl.zeros((R, K), ACC_DTYPE)
    for step in range(steps):
        row0 = (chunk.to(tl.int64) * steps + step) * R
        m_row = row0 + r < rows  # [R, 1]
        mask = m_row & m_col
        offset = (g * rows + row0) * cols + col0 + (r * cols + k)  # [R, K]
        dz = tl.load(p_dy + offset, mask, other=0).to(ACC_DTYPE)
        b = None
        scale = None
        noise = None
        if p_b is not None:
            b = _bias(p_b, row0, r, col0 + k, m_row, m_col, channels, CHANNELS_LAST)
        if p_scale is not None:
            scale = _scale(p_scale, g, row0, r, col0 + k, m_row, m_col, rows, channels, CHANNELS_LAST)
        if p_noise is not None:
            noise = _noise(p_noise, g, row0, r, col0 + k, m_row, m_col, noise_stride, CHANNELS_LAST)
        x = dz
        if p_x is not None:
            x = tl.load(p_x + offset, mask, other=0).to(ACC_DTYPE)
            dz = dz * _slope(pre_activation(x, b, scale, noise), True, ACT, ALPHA, GAIN, CLAMP)
        elif p_y is not None:
            y = tl.load(p_y + offset, mask, other=0)
            # a clamped output is the clamp as rounded to the output's dtype
            s = _slope(y.to(ACC_DTYPE), False, ACT, ALPHA, GAIN, -1.0)
            if CLAMP >= 0:
                limit = tl.full((), CLAMP, ACC_DTYPE).to(y.dtype).to(ACC_DTYPE)
                s = tl.where(tl.abs(y.to(ACC_DTYPE)) < limit, s, tl.zeros_like(s))
            dz = dz * s
        else:
            dz = dz * tl.full((), GAIN, ACC_DTYPE)
        dx = dz
        if scale is not None:
            dx = dz * scale
        tl.store(p_dx + offset, dx.to(p_dx.dtype.element_ty), mask)

        row_offset = col_block.to(tl.int64) * groups * rows + g * rows + row0 + tl.arange(0, R)  # [R]
        if p_row_sum is not None:
            tl.store(p_row_sum + row_offset, tl.sum(dz, 1), row0 + tl.arange(0, R) < rows)
        if p_row_dot is not None:
            tl.store(p_row_dot + row_offset, tl.sum(dz * x, 1), row0 + tl.arange(0, R) < rows)
        if p_col_sum is not None:
            col_sum += dz
        if p_col_dot is not None:
            col_dot += dz * x

    col_offset = (g * chunks + chunk) * cols + col0 + tl.arange(0, K)  # [K]
    if p_col_sum is not None:
        tl.store(p_col_sum + col_offset, tl.sum(col_sum, 0), col0 + tl.arange(0, K) < cols)
    if p_col_dot is not None:
        tl.store(p_col_dot + col_offset, tl.sum(col_dot, 0), col0 + tl.arange(0, K) < cols)


class _View(NamedTuple):
    """A dense tensor's memory as [groups, rows, cols], and where the channels run."""

    groups: int
    rows: int
    cols: int
    channels: int
    channels_last: bool


def _view(x: Tensor, dim: int, biased: bool, scaled: bool, noisy: bool) -> _View:
    """The view of x, dense, for a bias along ``dim``; scale and noise have their channels in dimension 1."""
    if not (biased or scaled or noisy):
        return _View(1, 1, x.numel(), 1, False)
    last = dense_format(x) == torch.channels_last
    order = [0, 2, 3, 1] if last else list(range(x.ndim))
    shape = [x.shape[i] for i in order]
    at = order.index(dim)
    outer, channels, inner = math.prod(shape[:at]), shape[at], math.prod(shape[at + 1 :])
    if inner > 1:
        # noise is shared by the planes of a sample
        groups = outer if noisy else 1
        return _View(groups, outer * channels // groups, inner, channels, False)
    groups = x.shape[0] if scaled or noisy else 1
    return _View(groups, outer // groups, channels, channels, True)


def _tile(view: _View, dtype: torch.dtype, least_rows: int) -> tuple[int, int]:
    """(R, K): 32 bytes for each of 128 threads; K is reduced so far that a tile has at least ``least_rows`` rows."""
    block = 4096 // dtype.itemsize
    k = min(triton.next_power_of_2(view.cols), block // least_rows)
    return min(block // k, triton.next_power_of_2(view.rows)), k


def bias_act(x: Tensor, dim: int, *epilogue: Any) -> Tensor:
    """The :class:`~imgops._epilogue.Epilogue` of x in x's dtype, channels-last where x is.

    Shapes: x any; b [x.shape[dim]]; with dim = 1, scale [N, C] and noise [N or 1, 1, ...]; these in float32, or
    float64 where x is.
    """
    b, scale, noise, act, alpha, gain, clamp = Epilogue(*epilogue).contiguous()
    x = x.contiguous(memory_format=dense_format(x))
    y = torch.empty_like(x)
    if x.numel() == 0:
        return y
    view = _view(x, dim, b is not None, scale is not None, noise is not None)
    r, k = _tile(view, x.dtype, 1)
    row_blocks, col_blocks = triton.cdiv(view.rows, r), triton.cdiv(view.cols, k)
    noise_stride = noise[0].numel() if noise is not None and noise.shape[0] > 1 else 0
    with torch.cuda.device_of(x):
        bias_act_kernel[(view.groups * row_blocks * col_blocks,)](
            x, b, scale, noise, y,
            view.rows, view.cols, view.channels, noise_stride, row_blocks, col_blocks,
            ACT=act, ALPHA=alpha, GAIN=gain, CLAMP=clamp,
            CHANNELS_LAST=view.channels_last, ACC_DTYPE=TL_DTYPE[ACC_DTYPE[x.dtype]], R=r, K=k, num_warps=4, **OPTIONS,
        )  # fmt: skip
    return y


def bias_act_backward(
    dy: Tensor, x: Tensor | None, y: Tensor | None, dim: int, *epilogue_and_needs: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(dx, db, dscale, dnoise) of :func:`bias_act` in one pass, the last three in the accumulation dtype.

    After the epilogue come three booleans: whether db, dscale and dnoise are needed; those that are not are [0].
    The slope comes from x or from y, whichever is given, and is ``gain`` where neither is.
    dnoise is [N, 1, ...], also where one noise was shared by the batch.
    """
    *epilogue, needs_b, needs_scale, needs_noise = epilogue_and_needs
    b, scale, noise, act, alpha, gain, clamp = Epilogue(*epilogue).contiguous()
    like = x if x is not None else y if y is not None else dy
    form = dense_format(like)
    dy = dy.contiguous(memory_format=form)
    x, y = (None if t is None else t.contiguous(memory_format=form) for t in (x, y))
    dx = torch.empty_like(dy, memory_format=form)
    acc_dtype = ACC_DTYPE[dy.dtype]
    if x is None:
        # the slope is not computed from x, so these are not needed
        b = noise = None

    n, c = dy.shape[:2] if needs_scale or needs_noise else (1, 1)
    db_shape = [dy.shape[dim]] if needs_b else [0]
    dscale_shape = [n, c] if needs_scale else [0]
    dnoise_shape = [n, 1, *dy.shape[2:]] if needs_noise else [0]
    if dy.numel() == 0:
        return (dx, *(dy.new_zeros(shape, dtype=acc_dtype) for shape in (db_shape, dscale_shape, dnoise_shape)))

    view = _view(dy, dim, b is not None or needs_b, scale is not None or needs_scale, noise is not None or needs_noise)
    last = view.channels_last
    col_sums = needs_b or needs_scale if last else needs_noise
    r, k = _tile(view, dy.dtype, 8 if col_sums else 1)
    row_tiles, col_blocks = triton.cdiv(view.rows, r), triton.cdiv(view.cols, k)
    # several tiles per program leave fewer partial sums, as long as there are enough programs to fill a GPU
    steps = max(1, min(16, view.groups * row_tiles * col_blocks // 2048, row_tiles)) if col_sums else 1
    chunks = triton.cdiv(row_tiles, steps)

    def partial(along_row: bool, needed: bool) -> Tensor | None:
        shape = (col_blocks, view.groups * view.rows) if along_row else (view.groups, chunks, view.cols)
        return dy.new_empty(shape, dtype=acc_dtype) if needed else None

    row_sum, col_sum = partial(True, needs_noise if last else needs_b), partial(False, needs_b if last else needs_noise)
    row_dot, col_dot = partial(True, needs_scale and not last), partial(False, needs_scale and last)
    noise_stride = noise[0].numel() if noise is not None and noise.shape[0] > 1 else 0
    with torch.cuda.device_of(dy):
        bias_act_backward_kernel[(view.groups * chunks * col_blocks,)](
            dy, x, y, b, scale, noise, dx, row_sum, col_sum, row_dot, col_dot,
            view.groups, view.rows, view.cols, view.channels, noise_stride, chunks, col_blocks, steps,
            ACT=act, ALPHA=alpha, GAIN=gain, CLAMP=clamp,
            CHANNELS_LAST=last, ACC_DTYPE=TL_DTYPE[acc_dtype], R=r, K=k, num_warps=4, **OPTIONS,
        )  # fmt: skip

    db, dscale, dnoise = (dy.new_empty([0], dtype=acc_dtype) for _ in range(3))
    if needs_b:
        db = col_sum.sum((0, 1)) if last else row_sum.view(-1, view.channels).sum(0)
    if needs_scale:
        dscale = col_dot.sum(1) if last else row_dot.sum(0).view(n, c)
    if needs_noise:
        dnoise = (row_sum.sum(0) if last else col_sum.sum(1)).view(dnoise_shape)
    return dx, db, dscale, dnoise
