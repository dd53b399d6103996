"""Pad, up-sample, filter, down-sample, and optionally bias and activate, in one pass over memory.

With at most 4 x 4 taps per output, evaluating a 2-D filter directly costs no more than the memory traffic. A larger
filter of rank one is recognized on the device and runs as a separable one. The kernels are in ``upfirdn2d_kernels``.

Positions: the input sample under tap k of output sample o is ``(o * down + k - pad) / up``. Pad is written as
``lead * up - phase`` with 0 <= phase < up, and o is counted from a multiple of up, so that it is known when compiling
which taps meet samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from .._epilogue import Epilogue
from ._common import ACC_DTYPE, OPTIONS, TL_DTYPE, dense_format
from .upfirdn2d_kernels import rank_one_kernel, upfirdn2d_kernel, upfirdn2d_loop_kernel

#: most taps per output and axis of the unrolled kernel; longer filters run in loops, long separable ones in two passes
UNROLLED_TAPS = 16
#: factors beyond which unrolling the rows that they skip, or the phases that they make, would take too long to compile
UNROLLED_FACTOR = 16
#: taps along x, and loads per program, above which unrolling them would take too long to compile
UNROLLED_TAPS_X, UNROLLED_LOADS = 6, 64
#: most positions of the up-sampled image along an axis that the kernels' 32-bit indices can count
POSITIONS = 2**31 - 2**16
#: taps per output of a 2-D filter that cost less than the memory traffic, and up to which it runs unrolled
CHEAP_TAPS, UNROLLED_TAPS_2D = 16, 36


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
    def taps_per_output(self) -> int:
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
    epilogue: Epilogue

    def arguments(self, rows: int, values: int) -> tuple[tuple[Any, ...], tuple[int, ...], dict[str, Any], int]:
        """(epilogue and output, sizes, options, programs) of a launch.

        A program computes ``rows`` output rows, and each of its threads ``values`` values of a row.
        """
        n, c, _, _ = self.x.shape
        (_, _, out_h, out_w), last = self.y.shape, self.last
        if last:
            # each thread takes several values along the channels, which are aligned
            b = min(triton.next_power_of_2(c), 128)
            a = min(128 * values // b, triton.next_power_of_2(out_w))
            col_blocks, plane_blocks = triton.cdiv(out_w, a), n * triton.cdiv(c, b)
        else:
            # one value per thread: shifted rows are not aligned, and the unrolled rows keep many loads in flight
            b = min(triton.next_power_of_2(out_w), 128)
            a = min(128 // b, triton.next_power_of_2(n * c))
            col_blocks, plane_blocks = triton.cdiv(out_w, b), triton.cdiv(n * c, a)
        row_blocks = triton.cdiv(out_h, rows)
        noise = self.epilogue.noise
        noise_stride = noise[0].numel() if noise is not None and noise.shape[0] > 1 else 0
        options = {
            "FLIP": self.flip, "ACT": self.epilogue.act, "ALPHA": self.epilogue.alpha, "GAIN": self.epilogue.gain,
            "CLAMP": self.epilogue.clamp, "CHANNELS_LAST": last, "ACC_DTYPE": TL_DTYPE[ACC_DTYPE[self.x.dtype]],
            "A": a, "B": b, "num_warps": 4, **OPTIONS,
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
        """Launch the kernel that keeps its window of the input in registers."""
        ax, ay = self.ax, self.ay
        tx, ty = ax.taps_per_output, ay.taps_per_output
        loop_x = separable and tx > UNROLLED_TAPS_X
        # the window is in registers: the longer it is, the fewer values a thread can take
        values = 4 if ty <= 6 and (separable or tx * ty <= CHEAP_TAPS) else 2 if ty <= 8 else 1
        # short strips where long ones would leave a GPU without work, or would unroll to too large a program
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
    epilogue: Epilogue,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """(output, filtered image or [0])."""
    n, c, h, w = x.shape
    fh, fw = (1, 1) if f is None else (f.shape[0], f.shape[-1])
    ax, ay = _Axis(up[0], down[0], fw, padding[0]), _Axis(up[1], down[1], fh, padding[2])
    out_w = (w * ax.up + padding[0] + padding[1] - fw + ax.down) // ax.down
    out_h = (h * ay.up + padding[2] + padding[3] - fh + ay.down) // ay.down
    furthest = max(w * ax.up, h * ay.up, out_w * ax.down, out_h * ay.down) + max(map(abs, padding))
    if furthest >= POSITIONS:
        raise ValueError(
            f"imgops.upfirdn2d: the triton backend counts positions of the up-sampled image in 32 bits; x of {h} x {w} "
            f"with up {tuple(up)} and down {tuple(down)} has more: take impl='reference'"
        )
    form = dense_format(x)
    x = x.contiguous(memory_format=form)
    y = torch.empty([n, c, out_h, out_w], dtype=x.dtype, device=x.device, memory_format=form)
    kept = torch.empty_like(y) if keep else None
    if y.numel() > 0:
        epilogue = epilogue.contiguous()
        f = None if f is None else f.contiguous()
        with torch.cuda.device_of(x):
            _launch(_Call(x, y, kept, ax, ay, flip, form == torch.channels_last, epilogue), f, gain)
    return y, y.new_empty([0]) if kept is None else kept


def _launch(call: _Call, f: Tensor | None, gain: float) -> None:
    """Run the resampling by whichever kernels suit the filter."""
    x, ax, ay = call.x, call.ax, call.ay
    taps = ax.taps_per_output, ay.taps_per_output
    unrolls = max(ax.up, ax.down, ay.up, ay.down) <= UNROLLED_FACTOR
    fits = unrolls and max(taps) <= UNROLLED_TAPS
    if f is None and not unrolls:
        call.loop(torch.ones([1, 1], device=x.device), None, gain)
    elif f is None:
        call.unrolled(None, None, None, gain, 1.0, True)
    elif f.ndim == 1 and fits:
        call.unrolled(f, f, None, gain**0.5, gain**0.5, True)
    elif f.ndim == 1:
        # arithmetic limits a filter this long: run one pass per axis, with the accumulation dtype between them
        acc_dtype = ACC_DTYPE[x.dtype]
        form = torch.channels_last if call.last else torch.contiguous_format
        size = [*x.shape[:3], call.y.shape[3]]
        between = torch.empty(size, dtype=acc_dtype, device=x.device, memory_format=form)
        call._replace(y=between, kept=None, ay=_Axis(1, 1, 1, 0), epilogue=Epilogue()).loop(f[None, :], None, gain**0.5)
        call._replace(x=between, ax=_Axis(1, 1, 1, 0)).loop(f[:, None], None, gain**0.5)
    elif not unrolls:
        call.loop(f, None, gain)
    elif taps[0] * taps[1] <= CHEAP_TAPS:
        call.unrolled(f, None, None, gain, 1.0, False)
    else:
        rank_one = None
        if fits:
            rank_one = torch.empty([1], dtype=torch.int32, device=x.device)
            fx, fy = (torch.empty([k], dtype=ACC_DTYPE[x.dtype], device=x.device) for k in (ax.taps, ay.taps))
            rank_one_kernel[(1,)](
                f, fx, fy, rank_one, FH=ay.taps, FW=ax.taps, P_H=triton.next_power_of_2(ay.taps),
                P_W=triton.next_power_of_2(ax.taps), EPS=4 * torch.finfo(ACC_DTYPE[x.dtype]).eps, num_warps=4,
                **OPTIONS,
            )  # fmt: skip
            # of these two kernels, the one that the flag does not name returns at once
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
    return _resample(x, f, up, down, padding, flip_filter, gain, Epilogue(), False)[0]


def upfirdn2d_bias_act(
    x: Tensor,
    f: Tensor | None,
    up: Sequence[int],
    down: Sequence[int],
    padding: Sequence[int],
    flip_filter: bool,
    gain: float,
    *epilogue_and_keep: Any,
) -> tuple[Tensor, Tensor]:
    """(the epilogue of u, u), with u = :func:`upfirdn2d` of x; u is [0] unless the last argument, ``keep``, is true.

    b [C], scale [N, C] and noise [N or 1, 1, H', W'] are in float32, or float64 where x is.
    """
    *epilogue, keep = epilogue_and_keep
    return _resample(x, f, up, down, padding, flip_filter, gain, Epilogue(*epilogue), keep)
