"""The kernels that ``upfirdn2d`` launches; the docstring of that module explains phases and leads.

Polyphase: an output sample reads only the input samples under its taps, never an inserted zero. A program of the
unrolled kernel walks down a strip of the output with its window of the input in registers, so that each input row is
read (and, for a separable filter, filtered along x) once per strip.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .bias_act import activate, pre_activation


@triton.constexpr_function
def _first(q, UP, DOWN, PHASE):
    """The first input row under output row q."""
    return (q * DOWN + PHASE + UP - 1) // UP


@triton.constexpr_function
def _end(q, UP, DOWN, PHASE, TAPS):
    """One past the last input row under output row q; 0 before the first output row."""
    return (q * DOWN + PHASE + TAPS - 1) // UP + 1 if q >= 0 else 0


@triton.constexpr_function
def _first_tap(q, UP, DOWN, PHASE):
    """The tap that lies on the first input row under output row q."""
    return -(q * DOWN + PHASE) % UP


@triton.jit
def tap(p_f, k, m_k, TAPS: tl.constexpr, FLIP: tl.constexpr, GAIN: tl.constexpr, ACC_DTYPE: tl.constexpr):
    """Tap k of a filter, times the gain, in the filter's dtype; a convolution reads the filter backwards."""
    if not FLIP:
        k = TAPS - 1 - k
    tap = tl.load(p_f + k, m_k, other=0)
    return (tap * tl.full((), GAIN, tap.dtype)).to(ACC_DTYPE)


@triton.jit
def _place(
    pid, col_blocks, row_blocks, planes, channels, A: tl.constexpr, B: tl.constexpr, CHANNELS_LAST: tl.constexpr
):
    """(row block, column, plane, channel, sample, mask of planes, mask of samples) of a program's [A, B] tile.

    Planar tiles are [planes, columns] over all samples, channels-last ones [columns, channels] of one sample.
    """
    a = tl.arange(0, A)[:, None]
    b = tl.arange(0, B)[None, :]
    if CHANNELS_LAST:
        channel_blocks = tl.cdiv(channels, B)
        channel = pid % channel_blocks * B + b
        pid = pid // channel_blocks
        col = pid % col_blocks * A + a
        pid = pid // col_blocks
        row_block = pid % row_blocks
        sample = pid // row_blocks
        plane = sample.to(tl.int64) * channels + channel
        m_plane = channel < channels
        m_sample = True
    else:
        col = pid % col_blocks * B + b
        pid = pid // col_blocks
        row_block = pid % row_blocks
        plane = (pid // row_blocks).to(tl.int64) * A + a
        channel = (plane % channels).to(tl.int32)
        sample = plane // channels
        m_plane = plane < planes
        m_sample = m_plane
    return row_block, col, plane, channel, sample, m_plane, m_sample


@triton.jit
def _start(plane, sample, channel, size, channels, CHANNELS_LAST: tl.constexpr):
    """Offset of the first sample of each plane, each of ``size`` samples."""
    return sample.to(tl.int64) * size * channels + channel if CHANNELS_LAST else plane * size


@triton.jit
def _finish(
    acc,
    p_y,
    p_kept,
    b,
    scale,
    noise,
    offset,
    m_out,
    ACT: tl.constexpr,
    ALPHA: tl.constexpr,
    GAIN: tl.constexpr,
    CLAMP: tl.constexpr,
):
    """The epilogue of one row of a tile."""
    if p_kept is not None:
        tl.store(p_kept + offset, acc.to(p_kept.dtype.element_ty), m_out)
    y = activate(pre_activation(acc, b, scale, noise), ACT, ALPHA, GAIN, CLAMP)
    tl.store(p_y + offset, y.to(p_y.dtype.element_ty), m_out)


@triton.jit
def upfirdn2d_kernel(
    p_x,
    p_fx,  # [FW], or [FH, FW] where not SEPARABLE, or None for a single tap of 1
    p_fy,  # [FH] where SEPARABLE
    p_rank_one,  # runs only where its flag equals SEPARABLE, or None: runs
    p_b, p_scale, p_noise,
    p_y, p_kept,
    planes, channels, h, w, out_h, out_w,
    lead_x, lead_y, noise_stride,
    row_blocks, col_blocks,
    UP_X: tl.constexpr, UP_Y: tl.constexpr, DOWN_X: tl.constexpr, DOWN_Y: tl.constexpr,
    PHASE_X: tl.constexpr, PHASE_Y: tl.constexpr,
    FW: tl.constexpr, FH: tl.constexpr, SEPARABLE: tl.constexpr,
    LOOP_X: tl.constexpr,  # over the taps along x, of which there are many
    FLIP: tl.constexpr, GAIN_X: tl.constexpr, GAIN_Y: tl.constexpr,
    ACT: tl.constexpr, ALPHA: tl.constexpr, GAIN: tl.constexpr, CLAMP: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, ACC_DTYPE: tl.constexpr,
    ROWS: tl.constexpr, A: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    if p_rank_one is not None:  # noqa: SIM102 -- a kernel's `and` evaluates both sides
        if (tl.load(p_rank_one) != 0) != SEPARABLE:
            return
    row_block, col, plane, channel, sample, m_plane, m_sample = _place(
        tl.program_id(0), col_blocks, row_blocks, planes, channels, A, B, CHANNELS_LAST
    )
    x_step = channels if CHANNELS_LAST else 1
    row0 = row_block * ROWS
    TX: tl.constexpr = (FW + UP_X - 1) // UP_X
    KX: tl.constexpr = 0 if LOOP_X else TX

    # along x, each lane has its own phase
    first_x = (col * DOWN_X + PHASE_X + UP_X - 1) // UP_X
    tap_x = first_x * UP_X - (col * DOWN_X + PHASE_X)
    first_x = first_x - lead_x
    first_y = row0 // UP_Y * DOWN_Y - lead_y
    p_col = p_x + _start(plane, sample, channel, tl.cast(h, tl.int64) * w, channels, CHANNELS_LAST) + first_x * x_step

    m_in = ()
    for i in tl.static_range(KX):
        m = m_plane & (first_x + i >= 0) & (first_x + i < w)
        if FW % UP_X != 0:
            # a lane of a later phase has one tap less: mask it, for a weight of zero times infinity would be NaN
            m = m & (tap_x + i * UP_X < FW)
        m_in += (m,)
    taps_x = ()
    taps_y = ()
    if p_fx is not None:
        for k in tl.static_range(1 if SEPARABLE else FH):
            for i in tl.static_range(KX):
                if UP_X == 1:
                    index = i
                    m_tap = True
                else:
                    index = tap_x + i * UP_X
                    m_tap = index < FW
                if SEPARABLE:
                    taps_x += (tap(p_fx, index, m_tap, FW, FLIP, GAIN_X, ACC_DTYPE),)
                else:
                    taps_x += (tap(p_fx, k * FW + index, m_tap, FH * FW, FLIP, GAIN_X, ACC_DTYPE),)
        if SEPARABLE:
            for k in tl.static_range(FH):
                taps_y += (tap(p_fy, k, True, FH, FLIP, GAIN_Y, ACC_DTYPE),)

    b = tl.load(p_b + channel, m_plane, other=0) if p_b is not None else None
    scale = tl.load(p_scale + plane, m_plane, other=0) if p_scale is not None else None
    start = _start(plane, sample, channel, tl.cast(out_h, tl.int64) * out_w, channels, CHANNELS_LAST) + col * x_step

    # the window: input rows filtered along x where SEPARABLE, else the samples under each tap
    zero = tl.zeros((1, 1), tl.int32)  # makes a block of a scalar: the interpreter mistakes the type of a scalar mask
    rows = ()
    for q in tl.static_range(ROWS):
        for r in tl.static_range(_end(q - 1, UP_Y, DOWN_Y, PHASE_Y, FH), _end(q, UP_Y, DOWN_Y, PHASE_Y, FH)):
            y = first_y + r
            m_row = (y + zero >= 0) & (y + zero < h)
            filtered = tl.zeros((A, B), ACC_DTYPE)
            if LOOP_X:
                for i in range(TX):
                    m_tap = tap_x + i * UP_X < FW
                    m = m_plane & m_row & (first_x + i >= 0) & (first_x + i < w) & m_tap
                    x = tl.load(p_col + (y.to(tl.int64) * w + i) * x_step, m, other=0).to(ACC_DTYPE)
                    filtered += x * tap(p_fx, tap_x + i * UP_X, m_tap, FW, FLIP, GAIN_X, ACC_DTYPE)
            for i in tl.static_range(KX):
                x = tl.load(p_col + (y.to(tl.int64) * w + i) * x_step, m_in[i] & m_row, other=0).to(ACC_DTYPE)
                if not SEPARABLE:
                    rows += (x,)
                elif p_fx is not None:
                    filtered += x * taps_x[i]
                else:
                    # a filter of None counts as float32, so the gain is rounded to that
                    filtered = x * tl.full((), GAIN_X, tl.float32).to(ACC_DTYPE)
            if SEPARABLE:
                rows += (filtered,)
        acc = tl.zeros((A, B), ACC_DTYPE)
        for r in tl.static_range(_first(q, UP_Y, DOWN_Y, PHASE_Y), _end(q, UP_Y, DOWN_Y, PHASE_Y, FH)):
            if p_fx is None:
                acc = rows[r]
            elif SEPARABLE:
                acc += (
                    rows[r]
                    * taps_y[_first_tap(q, UP_Y, DOWN_Y, PHASE_Y) + (r - _first(q, UP_Y, DOWN_Y, PHASE_Y)) * UP_Y]
                )
            else:
                for i in tl.static_range(TX):
                    acc += (
                        rows[r * TX + i]
                        * taps_x[
                            (_first_tap(q, UP_Y, DOWN_Y, PHASE_Y) + (r - _first(q, UP_Y, DOWN_Y, PHASE_Y)) * UP_Y) * TX
                            + i
                        ]
                    )
        m_pixel = (col < out_w) & (row0 + q + zero < out_h)
        row = (row0 + q).to(tl.int64) * out_w
        noise = None
        if p_noise is not None:
            noise = tl.load(p_noise + sample.to(tl.int64) * noise_stride + row + col, m_pixel & m_sample, other=0)
        _finish(acc, p_y, p_kept, b, scale, noise, start + row * x_step, m_pixel & m_plane, ACT, ALPHA, GAIN, CLAMP)


@triton.jit
def upfirdn2d_loop_kernel(
    p_x,
    p_f,  # [fh, fw], of any strides
    p_rank_one,
    p_b, p_scale, p_noise,
    p_y, p_kept,
    planes, channels, h, w, out_h, out_w,
    fh, fw, f_stride_y, f_stride_x,
    up_x, up_y, down_x, down_y,
    phase_x, phase_y, lead_x, lead_y, noise_stride,
    row_blocks, col_blocks,
    FLIP: tl.constexpr, GAIN_F: tl.constexpr,
    ACT: tl.constexpr, ALPHA: tl.constexpr, GAIN: tl.constexpr, CLAMP: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, ACC_DTYPE: tl.constexpr, A: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """Any filter, tap by tap, one output row per program."""
    if p_rank_one is not None:  # noqa: SIM102 -- a kernel's `and` evaluates both sides
        if tl.load(p_rank_one) != 0:
            return
    row, col, plane, channel, sample, m_plane, m_sample = _place(
        tl.program_id(0), col_blocks, row_blocks, planes, channels, A, B, CHANNELS_LAST
    )
    x_step = channels if CHANNELS_LAST else 1
    first_x = (col * down_x + phase_x + up_x - 1) // up_x
    tap_x = first_x * up_x - (col * down_x + phase_x)
    first_x = first_x - lead_x
    first_y = (row * down_y + phase_y + up_y - 1) // up_y
    tap_y = first_y * up_y - (row * down_y + phase_y)
    first_y = first_y - lead_y
    p_col = p_x + _start(plane, sample, channel, tl.cast(h, tl.int64) * w, channels, CHANNELS_LAST) + first_x * x_step
    acc = tl.zeros((A, B), ACC_DTYPE)
    for j in range(tl.cdiv(fh - tap_y, up_y)):
        y = first_y + j + tl.zeros((1, 1), tl.int32)
        k_y = tap_y + j * up_y
        if not FLIP:
            k_y = fh - 1 - k_y
        for i in range(tl.cdiv(fw, up_x)):
            k_x = tap_x + i * up_x
            m_tap = k_x < fw
            if not FLIP:
                k_x = fw - 1 - k_x
            tap = tl.load(p_f + k_y * f_stride_y + k_x * f_stride_x, m_tap, other=0)
            tap = (tap * tl.full((), GAIN_F, tap.dtype)).to(ACC_DTYPE)
            m_in = m_plane & m_tap & (first_x + i >= 0) & (first_x + i < w) & (y >= 0) & (y < h)
            acc += tl.load(p_col + (y.to(tl.int64) * w + i) * x_step, m_in, other=0).to(ACC_DTYPE) * tap
    b = tl.load(p_b + channel, m_plane, other=0) if p_b is not None else None
    scale = tl.load(p_scale + plane, m_plane, other=0) if p_scale is not None else None
    pixel = row.to(tl.int64) * out_w + col
    noise = None
    if p_noise is not None:
        noise = tl.load(p_noise + sample.to(tl.int64) * noise_stride + pixel, (col < out_w) & m_sample, other=0)
    start = _start(plane, sample, channel, tl.cast(out_h, tl.int64) * out_w, channels, CHANNELS_LAST)
    m_out = m_plane & (col < out_w)
    _finish(acc, p_y, p_kept, b, scale, noise, start + pixel * x_step, m_out, ACT, ALPHA, GAIN, CLAMP)


@triton.jit
def rank_one_kernel(
    p_f,
    p_fx,
    p_fy,
    p_rank_one,
    FH: tl.constexpr,
    FW: tl.constexpr,
    P_H: tl.constexpr,
    P_W: tl.constexpr,
    EPS: tl.constexpr,
):
    """Write the factors of f = fy fx, and whether their product is f up to rounding; the pivot is the largest tap."""
    y, x = tl.arange(0, P_H), tl.arange(0, P_W)
    mask = (y < FH)[:, None] & (x < FW)[None, :]
    f = tl.load(p_f + y[:, None] * FW + x[None, :], mask, other=0).to(p_fx.dtype.element_ty)
    largest = tl.abs(f)
    pivot_y, pivot_x = tl.argmax(tl.max(largest, 1), 0), tl.argmax(tl.max(largest, 0), 0)
    fx = tl.sum(tl.where((y == pivot_y)[:, None], f, 0.0), 0)
    fy = tl.sum(tl.where((x == pivot_x)[None, :], f, 0.0), 1)
    pivot = tl.sum(tl.where(x == pivot_x, fx, 0.0), 0)
    fy = fy / tl.where(pivot == 0, tl.full((), 1, pivot.dtype), pivot)
    residual = tl.max(tl.max(tl.abs(f - fy[:, None] * fx[None, :]), 1), 0)
    flag = (pivot != 0) & (residual <= tl.full((), EPS, f.dtype) * tl.abs(pivot))
    tl.store(p_fx + x, fx, x < FW)
    tl.store(p_fy + y, fy, y < FH)
    tl.store(p_rank_one, flag.to(tl.int32))
