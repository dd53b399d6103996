"""Pad, up-sample, filter, down-sample, and optionally bias and activate, in one pass over memory.

Polyphase: an output sample reads only the input samples under its taps, never an inserted zero. A program walks
down a strip of the output with its window of the input in registers, so that each input row is read (and, for a
separable filter, filtered along x) once a strip. At most 4 x 4 taps an output, evaluating a 2-D filter directly costs
no more than the memory traffic; a larger one of rank one is recognised on the device and runs as a separable one.

Positions: the input sample under tap k of output sample o is ``(o * down + k - pad) / up``. With pad written
as ``lead * up - phase``, 0 <= phase < up, and o counted from a multiple of up, which taps hit samples is known when
compiling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._common import OPTIONS, TL_WIDE, WIDE, dense_format
from .bias_act import activate, pre_activation

#: taps an output and axis that the unrolled kernel takes; longer filters run in loops, separable ones in two passes
UNROLLED_TAPS = 16
#: taps along x, and loads a program, above which unrolling them would take too long to compile
UNROLLED_TAPS_X, UNROLLED_LOADS = 6, 64
#: taps an output of a 2-D filter that cost less than the memory traffic, and up to which it runs unrolled
CHEAP_TAPS, UNROLLED_TAPS_2D = 16, 36


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
def _tap(p_f, k, m_k, TAPS: tl.constexpr, FLIP: tl.constexpr, GAIN: tl.constexpr, WIDE: tl.constexpr):
    """Tap k of a filter, times the gain in the filter's dtype; a convolution reads the filter backwards."""
    if not FLIP:
        k = TAPS - 1 - k
    tap = tl.load(p_f + k, m_k, other=0)
    return (tap * tl.full((), GAIN, tap.dtype)).to(WIDE)


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
    p_b,
    p_scale,
    p_noise,
    p_y,
    p_kept,
    planes,
    channels,
    h,
    w,
    out_h,
    out_w,
    lead_x,
    lead_y,
    noise_stride,
    row_blocks,
    col_blocks,
    UP_X: tl.constexpr,
    UP_Y: tl.constexpr,
    DOWN_X: tl.constexpr,
    DOWN_Y: tl.constexpr,
    PHASE_X: tl.constexpr,
    PHASE_Y: tl.constexpr,
    FW: tl.constexpr,
    FH: tl.constexpr,
    SEPARABLE: tl.constexpr,
    LOOP_X: tl.constexpr,  # over the taps along x, of which there are many
    FLIP: tl.constexpr,
    GAIN_X: tl.constexpr,
    GAIN_Y: tl.constexpr,
    ACT: tl.constexpr,
    ALPHA: tl.constexpr,
    GAIN: tl.constexpr,
    CLAMP: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
):
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
            # a lane of a later phase has a tap less; what lies there must not meet a zero, as infinity would
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
                    taps_x += (_tap(p_fx, index, m_tap, FW, FLIP, GAIN_X, WIDE),)
                else:
                    taps_x += (_tap(p_fx, k * FW + index, m_tap, FH * FW, FLIP, GAIN_X, WIDE),)
        if SEPARABLE:
            for k in tl.static_range(FH):
                taps_y += (_tap(p_fy, k, True, FH, FLIP, GAIN_Y, WIDE),)

    b = None
    scale = None
    if p_b is not None:
        b = tl.load(p_b + channel, m_plane, other=0)
    if p_scale is not None:
        scale = tl.load(p_scale + plane, m_plane, other=0)
    start = _start(plane, sample, channel, tl.cast(out_h, tl.int64) * out_w, channels, CHANNELS_LAST) + col * x_step

    # the window: input rows filtered along x where SEPARABLE, else the samples under each tap
    zero = tl.zeros((1, 1), tl.int32)  # makes a block of a scalar: the interpreter mistakes the type of a scalar mask
    rows = ()
    for q in tl.static_range(ROWS):
        for r in tl.static_range(_end(q - 1, UP_Y, DOWN_Y, PHASE_Y, FH), _end(q, UP_Y, DOWN_Y, PHASE_Y, FH)):
            y = first_y + r
            m_row = (y + zero >= 0) & (y + zero < h)
            filtered = tl.zeros((A, B), WIDE)
            if LOOP_X:
                for i in range(TX):
                    m_tap = tap_x + i * UP_X < FW
                    m = m_plane & m_row & (first_x + i >= 0) & (first_x + i < w) & m_tap
                    x = tl.load(p_col + (y.to(tl.int64) * w + i) * x_step, m, other=0).to(WIDE)
                    filtered += x * _tap(p_fx, tap_x + i * UP_X, m_tap, FW, FLIP, GAIN_X, WIDE)
            for i in tl.static_range(KX):
                x = tl.load(p_col + (y.to(tl.int64) * w + i) * x_step, m_in[i] & m_row, other=0).to(WIDE)
                if not SEPARABLE:
                    rows += (x,)
                elif p_fx is not None:
                    filtered += x * taps_x[i]
                else:
                    # a filter that is None is a float32 one
                    filtered = x * tl.full((), GAIN_X, tl.float32).to(WIDE)
            if SEPARABLE:
                rows += (filtered,)
        acc = tl.zeros((A, B), WIDE)
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
    p_b,
    p_scale,
    p_noise,
    p_y,
    p_kept,
    planes,
    channels,
    h,
    w,
    out_h,
    out_w,
    fh,
    fw,
    f_stride_y,
    f_stride_x,
    up_x,
    up_y,
    down_x,
    down_y,
    phase_x,
    phase_y,
    lead_x,
    lead_y,
    noise_stride,
    row_blocks,
    col_blocks,
    FLIP: tl.constexpr,
    GAIN_F: tl.constexpr,
    ACT: tl.constexpr,
    ALPHA: tl.constexpr,
    GAIN: tl.constexpr,
    CLAMP: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
):
    """Any filter, tap by tap, one output row a program."""
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
    acc = tl.zeros((A, B), WIDE)
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
            tap = (tap * tl.full((), GAIN_F, tap.dtype)).to(WIDE)
            m_in = m_plane & m_tap & (first_x + i >= 0) & (first_x + i < w) & (y >= 0) & (y < h)
            acc += tl.load(p_col + (y.to(tl.int64) * w + i) * x_step, m_in, other=0).to(WIDE) * tap
    b = None
    scale = None
    if p_b is not None:
        b = tl.load(p_b + channel, m_plane, other=0)
    if p_scale is not None:
        scale = tl.load(p_scale + plane, m_plane, other=0)
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
    """Write the factors of f = fy fx and whether they give f to rounding; the pivot is the largest tap."""
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


class _Epilogue(NamedTuple):
    """What follows the filter: b [C], scale [N, C], noise [N or 1, 1, H', W'], and the activation."""

    b: Tensor | None = None
    scale: Tensor | None = None
    noise: Tensor | None = None
    act: str = "linear"
    alpha: float = 0.0
    gain: float = 1.0
    clamp: float = -1.0


class _Axis(NamedTuple):
    """One axis of the resampling; see the module for ``lead`` and ``phase``."""

    up: int
    down: int
    taps: int
    pad: int

    @property
    def lead(self) -> int:
        return -(-self.pad // self.up)

    @property
    def phase(self) -> int:
        return self.lead * self.up - self.pad

    @property
    def taps_an_output(self) -> int:
        return -(-self.taps // self.up)


class _Call(NamedTuple):
    """One resampling: its tensors, its axes, and how the filter is read."""

    x: Tensor
    y: Tensor
    kept: Tensor | None
    ax: _Axis
    ay: _Axis
    flip: bool
    last: bool
    epilogue: _Epilogue

    def arguments(self, rows: int, values: int) -> tuple[tuple[Any, ...], tuple[int, ...], dict[str, Any], int]:
        """(epilogue and output, sizes, options, programs) of a launch.

        A program takes ``rows`` output rows, and each of its threads ``values`` of a row.
        """
        n, c, _, _ = self.x.shape
        (_, _, out_h, out_w), last = self.y.shape, self.last
        if last:
            # values along the channels, which are aligned
            b = min(triton.next_power_of_2(c), 128)
            a = min(128 * values // b, triton.next_power_of_2(out_w))
            col_blocks, plane_blocks = triton.cdiv(out_w, a), n * triton.cdiv(c, b)
        else:
            # one value a thread: shifted rows are not aligned, and the unrolled rows keep many loads in flight
            b = min(triton.next_power_of_2(out_w), 128)
            a = min(128 // b, triton.next_power_of_2(n * c))
            col_blocks, plane_blocks = triton.cdiv(out_w, b), triton.cdiv(n * c, a)
        row_blocks = triton.cdiv(out_h, rows)
        noise = self.epilogue.noise
        noise_stride = noise[0].numel() if noise is not None and noise.shape[0] > 1 else 0
        options = {
            "FLIP": self.flip, "ACT": self.epilogue.act, "ALPHA": self.epilogue.alpha, "GAIN": self.epilogue.gain,
            "CLAMP": self.epilogue.clamp, "CHANNELS_LAST": last, "WIDE": TL_WIDE[WIDE[self.x.dtype]], "A": a, "B": b,
            "num_warps": 4, **OPTIONS,
        }  # fmt: skip
        return (
            (*self.epilogue[:3], self.y, self.kept, n * c, c, *self.x.shape[2:], out_h, out_w),
            (noise_stride, row_blocks, col_blocks),
            options,
            plane_blocks * row_blocks * col_blocks,
        )

    def unrolled(
        self,
        fx: Tensor | None,
        fy: Tensor | None,
        rank_one: Tensor | None,
        gain_x: float,
        gain_y: float,
        separable: bool,
    ) -> None:
        """Launch the kernel that has its window in registers."""
        ax, ay = self.ax, self.ay
        tx, ty = ax.taps_an_output, ay.taps_an_output
        loop_x = separable and tx > UNROLLED_TAPS_X
        # the window is in registers: the longer it is, the fewer values a thread can take
        values = 4 if ty <= 6 and (separable or tx * ty <= CHEAP_TAPS) else 2 if ty <= 8 else 1
        # short strips where long ones would leave a GPU without work, or unroll to too large a program
        rows = 16
        while rows > 4 and (
            rows > self.y.shape[2]
            or (rows * ay.down // ay.up + ty) * (2 if loop_x else tx) > UNROLLED_LOADS
            or self.arguments(rows, values)[3] < 1024
        ):
            rows //= 2
        rows = max(1, rows // ay.up) * ay.up
        common, places, options, programs = self.arguments(rows, values)
        upfirdn2d_kernel[(programs,)](
            self.x, fx, fy, rank_one, *common, ax.lead, ay.lead, *places,
            UP_X=ax.up, UP_Y=ay.up, DOWN_X=ax.down, DOWN_Y=ay.down, PHASE_X=ax.phase, PHASE_Y=ay.phase,
            FW=ax.taps, FH=ay.taps, SEPARABLE=separable, LOOP_X=loop_x, GAIN_X=gain_x, GAIN_Y=gain_y,
            ROWS=rows, **options,
        )  # fmt: skip

    def loop(self, f: Tensor, rank_one: Tensor | None, gain: float) -> None:
        """Launch the kernel that loops over the taps of a 2-D filter."""
        ax, ay = self.ax, self.ay
        common, places, options, programs = self.arguments(1, 4)
        upfirdn2d_loop_kernel[(programs,)](
            self.x, f, rank_one, *common, *f.shape, *f.stride(), ax.up, ay.up, ax.down, ay.down, ax.phase, ay.phase,
            ax.lead, ay.lead, *places, GAIN_F=gain, **options,
        )  # fmt: skip


def _resample(
    x: Tensor,
    f: Tensor | None,
    up: Sequence[int],
    down: Sequence[int],
    padding: Sequence[int],
    flip: bool,
    gain: float,
    epilogue: _Epilogue,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """(output, filtered image or [0])."""
    n, c, h, w = x.shape
    fh, fw = (1, 1) if f is None else (f.shape[0], f.shape[-1])
    ax, ay = _Axis(up[0], down[0], fw, padding[0]), _Axis(up[1], down[1], fh, padding[2])
    out_w = (w * ax.up + padding[0] + padding[1] - fw + ax.down) // ax.down
    out_h = (h * ay.up + padding[2] + padding[3] - fh + ay.down) // ay.down
    form = dense_format(x)
    x = x.contiguous(memory_format=form)
    y = torch.empty([n, c, out_h, out_w], dtype=x.dtype, device=x.device, memory_format=form)
    kept = torch.empty_like(y) if keep else None
    if y.numel() > 0:
        epilogue = epilogue._replace(
            **{
                k: None if t is None else t.contiguous()
                for k, t in zip(("b", "scale", "noise"), epilogue[:3], strict=True)
            }
        )
        f = None if f is None else f.contiguous()
        with torch.cuda.device_of(x):
            _launch(_Call(x, y, kept, ax, ay, flip, form == torch.channels_last, epilogue), f, gain)
    return y, y.new_empty([0]) if kept is None else kept


def _launch(call: _Call, f: Tensor | None, gain: float) -> None:
    """Run the resampling by whichever kernels suit the filter."""
    x, ax, ay = call.x, call.ax, call.ay
    taps = ax.taps_an_output, ay.taps_an_output
    fits = max(taps) <= UNROLLED_TAPS
    if f is None:
        call.unrolled(None, None, None, gain, 1.0, True)
    elif f.ndim == 1 and fits:
        call.unrolled(f, f, None, gain**0.5, gain**0.5, True)
    elif f.ndim == 1:
        # so long a filter is bound by its arithmetic: a pass an axis, in the accumulation dtype between them
        wide = WIDE[x.dtype]
        form = torch.channels_last if call.last else torch.contiguous_format
        size = [*x.shape[:3], call.y.shape[3]]
        between = torch.empty(size, dtype=wide, device=x.device, memory_format=form)
        call._replace(y=between, kept=None, ay=_Axis(1, 1, 1, 0), epilogue=_Epilogue()).loop(
            f[None, :], None, gain**0.5
        )
        call._replace(x=between, ax=_Axis(1, 1, 1, 0)).loop(f[:, None], None, gain**0.5)
    elif taps[0] * taps[1] <= CHEAP_TAPS:
        call.unrolled(f, None, None, gain, 1.0, False)
    else:
        rank_one = None
        if fits:
            rank_one = torch.empty([1], dtype=torch.int32, device=x.device)
            fx, fy = (torch.empty([k], dtype=WIDE[x.dtype], device=x.device) for k in (ax.taps, ay.taps))
            rank_one_kernel[(1,)](
                f, fx, fy, rank_one, FH=ay.taps, FW=ax.taps, P_H=triton.next_power_of_2(ay.taps),
                P_W=triton.next_power_of_2(ax.taps), EPS=4 * torch.finfo(WIDE[x.dtype]).eps, num_warps=4, **OPTIONS,
            )  # fmt: skip
            # each returns at once unless the flag names it
            call.unrolled(fx, fy, rank_one, gain, 1.0, True)
        if taps[0] * taps[1] <= UNROLLED_TAPS_2D:
            call.unrolled(f, None, rank_one, gain, 1.0, False)
        else:
            call.loop(f, rank_one, gain)


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: Sequence[int],
    down: Sequence[int],
    padding: Sequence[int],
    flip_filter: bool,
    gain: float,
) -> Tensor:
    """x [N, C, H, W] resampled by f [fh, fw], [n] (separable) or None, in x's dtype, channels-last where x is.

    ``up`` and ``down`` are (x, y); ``padding`` is (x0, x1, y0, y1) on the up-sampled image, negative ones crop.
    """
    return _resample(x, f, up, down, padding, flip_filter, gain, _Epilogue(), False)[0]


def upfirdn2d_bias_act(
    x: Tensor,
    f: Tensor | None,
    up: Sequence[int],
    down: Sequence[int],
    padding: Sequence[int],
    flip_filter: bool,
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
    """(``clamp(act_gain * act(u * scale + noise + b))``, u), with u = :func:`upfirdn2d` of x; u is [0] unless ``keep``.

    b [C], scale [N, C] and noise [N or 1, 1, H', W'] are in float32, or float64 where x is.
    """
    epilogue = _Epilogue(b, scale, noise, act, alpha, act_gain, clamp)
    return _resample(x, f, up, down, padding, flip_filter, gain, epilogue, keep)
