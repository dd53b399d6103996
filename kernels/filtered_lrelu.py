"""Bias, up-sample, leaky ReLU, clamp and down-sample in one pass over memory; and the same pass with a given sign mask.

A program computes one tile of one plane's output. Filters are applied as products with banded matrices, whose entries
are gathered from the taps by index, so that every filter and factor runs the same way: with X the input under the tile,
Z = Uy X Ux^T is the up-sampled image, A = act(Z), and Dy A Dx^T the output. A 2-D filter is a sum of such products: a
single one if the filter is of rank one, which a kernel finds out on the device, else one per row. The products are in
float32. Three TF32 products would be as precise, but splitting the operands costs more than tensor cores save.
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
from .bias_act import activate, bias_act
from .upfirdn2d import upfirdn2d
from .upfirdn2d_kernels import rank_one_kernel, tap

#: rows of the up-sampled image that share a byte of the sign mask, two bits each
PACKED = 4
#: sides that a tile of the up-sampled image may have
SIDES = (32, 64)
#: a tile of twice the side issues up to this many times the instructions, and so is used only where it replaces more
#: than this many smaller tiles
LARGER_TILE = 3


@triton.jit
def _first_and_end(p_rank_one, TAPS: tl.constexpr):
    """The range of a filter's products to sum: the first alone if the filter is of rank one, else all others."""
    first = 0
    end = 1
    if p_rank_one is not None:
        first = 1 - tl.load(p_rank_one)
        end = 1 + first * TAPS
    return first, end


@triton.jit
def _matrix(p_f, k, TAPS: tl.constexpr, FLIP: tl.constexpr, GAIN: tl.constexpr, ACC_DTYPE: tl.constexpr):
    """Tap k of the filter, 0 where it has none."""
    return tap(p_f, k, (k >= 0) & (k < TAPS), TAPS, FLIP, GAIN, ACC_DTYPE)


@triton.jit
def _filtered(
    b_in,  # [I, J]
    p_fx,
    p_fy,
    p_rank_one,
    k_x,  # [J, X], the tap of each pair of positions
    k_y,  # [Y, I]
    FW: tl.constexpr,
    FH: tl.constexpr,
    FLIP: tl.constexpr,
    GAIN_X: tl.constexpr,
    GAIN_Y: tl.constexpr,
    ACC_DTYPE: tl.constexpr,
):
    """The sum of a filter's products with a tile, [Y, X]."""
    acc = tl.zeros((k_y.shape[0], k_x.shape[1]), ACC_DTYPE)
    first, end = _first_and_end(p_rank_one, FH)
    for r in range(first, end):
        b_fx = _matrix(p_fx + r * FW, k_x, FW, FLIP, GAIN_X, ACC_DTYPE)
        b_fy = _matrix(p_fy + r * FH, k_y, FH, FLIP, GAIN_Y, ACC_DTYPE)
        t = tl.dot(b_in, b_fx, input_precision="ieee", out_dtype=ACC_DTYPE)  # [I, X]
        acc = tl.dot(b_fy, t, acc, input_precision="ieee", out_dtype=ACC_DTYPE)
    return acc


@triton.jit
def filtered_lrelu_kernel(
    p_x,
    p_ux,  # [1, FUW], or [1 + FUH, FUW] where the filter may not be of rank one
    p_uy,  # [1, FUH], or [1 + FUH, FUH]
    p_u_rank_one,  # 1 where the first row is all of the filter, 0 where the others are; None: 1
    p_dx,
    p_dy,
    p_d_rank_one,
    p_b,  # [C], or None
    p_sign_mask,  # [N, C, cdiv(high_h, 4), high_w], or None; written by the activation, else read
    p_y,
    planes, channels, h, w,
    high_h, high_w,  # of the up-sampled image
    out_h, out_w,
    x_n, x_c, x_h, x_w,
    mask_n, mask_c, mask_h, mask_w,
    y_n, y_c, y_h, y_w,
    pad_x, pad_y,  # before the up-sampled image
    pad_down_x, pad_down_y,  # before what was activated
    lead_x, lead_y,  # at least how many inputs before the first a tile may begin
    rows, cols,  # outputs of a tile
    row_blocks, col_blocks,
    UP: tl.constexpr, DOWN: tl.constexpr,
    FUW: tl.constexpr, FUH: tl.constexpr, FDW: tl.constexpr, FDH: tl.constexpr, FLIP: tl.constexpr,
    GAIN_UX: tl.constexpr, GAIN_UY: tl.constexpr, GAIN_DX: tl.constexpr, GAIN_DY: tl.constexpr,
    ACTIVATES: tl.constexpr, GAIN: tl.constexpr, SLOPE: tl.constexpr, CLAMP: tl.constexpr,
    PLANES_FIRST: tl.constexpr,  # neighboring programs take one place of neighboring planes
    ACC_DTYPE: tl.constexpr,
    IY: tl.constexpr, IX: tl.constexpr, HY: tl.constexpr, HX: tl.constexpr,
    OY: tl.constexpr, OX: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    if PLANES_FIRST:
        plane = pid % planes
        pid = pid // planes
        col_block = pid % col_blocks
        row_block = pid // col_blocks
    else:
        col_block = pid % col_blocks
        pid = pid // col_blocks
        row_block = pid % row_blocks
        plane = pid // row_blocks
    sample = (plane // channels).to(tl.int64)
    channel = plane % channels

    # where the tile begins: its output, the up-sampled image, the first input under that
    out_y0 = row_block * rows
    out_x0 = col_block * cols
    high_y0 = out_y0 * DOWN - pad_down_y
    high_x0 = out_x0 * DOWN - pad_down_x
    # adding ``lead`` keeps the dividend from being negative
    in_y0 = (high_y0 - pad_y + UP - 1 + lead_y * UP) // UP - lead_y
    in_x0 = (high_x0 - pad_x + UP - 1 + lead_x * UP) // UP - lead_x

    in_y = in_y0 + tl.arange(0, IY)
    in_x = in_x0 + tl.arange(0, IX)
    m_x = ((in_y >= 0) & (in_y < h))[:, None] & ((in_x >= 0) & (in_x < w))[None, :]
    offset = sample * x_n + channel.to(tl.int64) * x_c + in_y.to(tl.int64)[:, None] * x_h + in_x[None, :] * x_w
    b_x = tl.load(p_x + offset, m_x, other=0).to(ACC_DTYPE)  # [IY, IX]
    if p_b is not None:
        b_x = tl.where(m_x, b_x + tl.load(p_b + channel), 0.0)

    high_y = high_y0 + tl.arange(0, HY)
    high_x = high_x0 + tl.arange(0, HX)
    k_x = in_x[:, None] * UP + pad_x - high_x[None, :]  # [IX, HX]
    k_y = in_y[None, :] * UP + pad_y - high_y[:, None]  # [HY, IY]
    z = _filtered(b_x, p_ux, p_uy, p_u_rank_one, k_x, k_y, FUW, FUH, FLIP, GAIN_UX, GAIN_UY, ACC_DTYPE)  # [HY, HX]

    m_high = ((high_y >= 0) & (high_y < high_h))[:, None] & ((high_x >= 0) & (high_x < high_w))[None, :]
    p_plane = p_sign_mask
    if p_sign_mask is not None:
        p_plane = p_sign_mask + sample * mask_n + channel.to(tl.int64) * mask_c
    if ACTIVATES:
        a = activate(z, "lrelu", SLOPE, GAIN, -1.0)
        if p_sign_mask is not None:
            bits = tl.where(z > 0, 0, 1)
            if CLAMP >= 0:
                # a NaN has no slope either
                bits = bits | tl.where(tl.abs(a) < tl.full((), CLAMP, ACC_DTYPE), 0, 2)
            bits = tl.where(m_high, bits, 0)
            shift = 2 * tl.arange(0, 4)[None, :, None]
            packed = tl.sum(tl.reshape(bits, (HY // 4, 4, HX)) << shift, 1)  # [HY / 4, HX]
            # a tile writes the mask up to where the next tile begins; tiles at the edge write the rest
            own_y = tl.where(row_block == row_blocks - 1, HY, rows * DOWN)
            own_x = tl.where(col_block == col_blocks - 1, HX, cols * DOWN)
            packed_y = 4 * tl.arange(0, HY // 4)
            m_y = (packed_y < own_y) & (high_y0 + packed_y < high_h)
            m_mask = m_y[:, None] & ((tl.arange(0, HX) < own_x) & (high_x < high_w))[None, :]
            offset = ((high_y0 + packed_y) // 4).to(tl.int64)[:, None] * mask_h + high_x[None, :] * mask_w
            tl.store(p_plane + offset, packed.to(tl.uint8), m_mask)
        a = activate(a, "linear", 0.0, 1.0, CLAMP)
    else:
        offset = (high_y // 4).to(tl.int64)[:, None] * mask_h + high_x[None, :] * mask_w
        bits = tl.load(p_plane + offset, m_high, other=0).to(tl.int32) >> (2 * (high_y % 4))[:, None]
        positive = tl.full((), GAIN, ACC_DTYPE)
        a = z * tl.where((bits & 1) != 0, positive * tl.full((), SLOPE, ACC_DTYPE), positive)
        a = tl.where((bits & 2) != 0, 0.0, a)
    a = tl.where(m_high, a, 0.0)

    k_x = tl.arange(0, HX)[:, None] - tl.arange(0, OX)[None, :] * DOWN  # [HX, OX]
    k_y = tl.arange(0, HY)[None, :] - tl.arange(0, OY)[:, None] * DOWN  # [OY, HY]
    y = _filtered(a, p_dx, p_dy, p_d_rank_one, k_x, k_y, FDW, FDH, FLIP, GAIN_DX, GAIN_DY, ACC_DTYPE)  # [OY, OX]
    out_y = out_y0 + tl.arange(0, OY)
    out_x = out_x0 + tl.arange(0, OX)
    m_out = ((tl.arange(0, OY) < rows) & (out_y < out_h))[:, None] & ((tl.arange(0, OX) < cols) & (out_x < out_w))
    offset = sample * y_n + channel.to(tl.int64) * y_c + out_y.to(tl.int64)[:, None] * y_h + out_x[None, :] * y_w
    tl.store(p_y + offset, y.to(p_y.dtype.element_ty), m_out)


class _Axis(NamedTuple):
    """One axis of the pass: its factors, taps and padding, and the sizes that follow."""

    size: int
    up: int
    down: int
    up_taps: int
    down_taps: int
    pad: int
    pad_end: int
    pad_down: int
    pad_down_end: int

    @property
    def high(self) -> int:
        return self.size * self.up + self.pad + self.pad_end - self.up_taps + 1

    @property
    def out(self) -> int:
        return (self.high + self.pad_down + self.pad_down_end - self.down_taps) // self.down + 1

    @property
    def lead(self) -> int:
        return max(0, triton.cdiv(self.pad + self.pad_down, self.up))

    def tile(self, sides: Sequence[int]) -> _Tile | None:
        """The tile with the lowest cost per output; None if the filters are so long that no tile has an output."""
        found = None
        for high in sides:
            # the tile also holds the rows between its last output and the next tile
            outputs = (high - self.down_taps + 1) // self.down
            # a byte of the mask must belong to one tile
            while outputs > 0 and outputs * self.down % PACKED:
                outputs -= 1
            inputs = (high + self.up_taps - 2) // self.up + 1
            if outputs <= 0 or inputs > SIDES[-1]:
                continue
            if found is None or triton.cdiv(self.out, outputs) * LARGER_TILE < triton.cdiv(self.out, found.outputs):
                found = _Tile(outputs, *(max(16, triton.next_power_of_2(n)) for n in (inputs, high, outputs)))
        return found


class _Tile(NamedTuple):
    """Outputs of a tile, and the sides of its blocks."""

    outputs: int
    in_block: int
    high_block: int
    out_block: int


class _Filter(NamedTuple):
    """A filter as products of rows [products, fw] and columns [products, fh]; see the kernel."""

    rows: Tensor
    columns: Tensor
    rank_one: Tensor | None
    gain_x: float
    gain_y: float


def _filter(f: Tensor | None, gain: float, x: Tensor) -> _Filter:
    if f is None or f.ndim == 1:
        f = torch.ones([1], device=x.device) if f is None else f.contiguous()
        return _Filter(f, f, None, gain**0.5, gain**0.5)
    (fh, fw), acc_dtype = f.shape, ACC_DTYPE[x.dtype]
    # the gain is multiplied into the filter, and so is rounded to the filter's dtype
    f = f * gain
    rows, columns = (torch.empty([1 + fh, k], dtype=acc_dtype, device=x.device) for k in (fw, fh))
    rows[1:] = f
    columns[1:] = torch.eye(fh, dtype=acc_dtype, device=x.device)
    rank_one = torch.empty([1], dtype=torch.int32, device=x.device)
    rank_one_kernel[(1,)](
        f.contiguous(), rows, columns, rank_one, FH=fh, FW=fw, P_H=triton.next_power_of_2(fh),
        P_W=triton.next_power_of_2(fw), EPS=4 * torch.finfo(acc_dtype).eps, num_warps=4, **OPTIONS,
    )  # fmt: skip
    return _Filter(rows, columns, rank_one, 1.0, 1.0)


class _Call(NamedTuple):
    """One pass: the filters, their gains and paddings, and the activation."""

    fu: Tensor | None
    fd: Tensor | None
    up: int
    down: int
    padding_up: Sequence[int]
    padding_down: Sequence[int]
    flip: bool
    gain_up: float
    gain_down: float
    gain: float
    slope: float
    clamp: float

    def axes(self, x: Tensor) -> tuple[_Axis, _Axis]:
        """(x, y)."""
        (uh, uw), (dh, dw) = ((1, 1) if f is None else (f.shape[0], f.shape[-1]) for f in (self.fu, self.fd))
        up, down = self.padding_up, self.padding_down
        return (
            _Axis(x.shape[3], self.up, self.down, uw, dw, *up[:2], *down[:2]),
            _Axis(x.shape[2], self.up, self.down, uh, dh, *up[2:], *down[2:]),
        )

    def launch(self, x: Tensor, b: Tensor | None, sign_mask: Tensor | None, y: Tensor, activates: bool) -> bool:
        """Run the kernel where a tile of it exists; else return False."""
        ax, ay = self.axes(x)
        # a tile that is large along both axes spills registers, so it is used only if no other tile has an output
        tx, ty = ax.tile(SIDES), ay.tile(SIDES[:1]) or ay.tile(SIDES)
        if tx is None or ty is None:
            return False
        fu, fd = _filter(self.fu, self.gain_up, x), _filter(self.fd, self.gain_down, x)
        larger = max(tx[1:]) // SIDES[0] * (max(ty[1:]) // SIDES[0])
        planes = x.shape[0] * x.shape[1]
        row_blocks, col_blocks = triton.cdiv(ay.out, ty.outputs), triton.cdiv(ax.out, tx.outputs)
        filtered_lrelu_kernel[(planes * row_blocks * col_blocks,)](
            x, *fu[:3], *fd[:3], b, sign_mask, y, planes, x.shape[1], ay.size, ax.size, ay.high, ax.high,
            ay.out, ax.out, *x.stride(), *((0,) * 4 if sign_mask is None else sign_mask.stride()), *y.stride(),
            ax.pad, ay.pad, ax.pad_down, ay.pad_down, ax.lead, ay.lead, ty.outputs, tx.outputs, row_blocks, col_blocks,
            UP=self.up, DOWN=self.down, FUW=ax.up_taps, FUH=ay.up_taps, FDW=ax.down_taps, FDH=ay.down_taps,
            FLIP=self.flip, GAIN_UX=fu.gain_x, GAIN_UY=fu.gain_y, GAIN_DX=fd.gain_x, GAIN_DY=fd.gain_y,
            ACTIVATES=activates, GAIN=self.gain, SLOPE=self.slope, CLAMP=self.clamp, PLANES_FIRST=x.stride(3) != 1,
            ACC_DTYPE=TL_DTYPE[ACC_DTYPE[x.dtype]], IY=ty.in_block, IX=tx.in_block, HY=ty.high_block, HX=tx.high_block,
            OY=ty.out_block, OX=tx.out_block,
            # larger tiles spill fewer registers with more warps
            num_warps=4 * larger, **OPTIONS,
        )  # fmt: skip
        return True

    def up_sample(self, x: Tensor) -> Tensor:
        up = (self.up, self.up)
        return upfirdn2d(x.to(ACC_DTYPE[x.dtype]), self.fu, up, (1, 1), self.padding_up, self.flip, self.gain_up)

    def down_sample(self, a: Tensor) -> Tensor:
        down = (self.down, self.down)
        return upfirdn2d(a, self.fd, (1, 1), down, self.padding_down, self.flip, self.gain_down)


def _allocate(x: Tensor, call: _Call, form: torch.memory_format) -> Tensor:
    ax, ay = call.axes(x)
    return torch.empty([*x.shape[:2], ay.out, ax.out], dtype=x.dtype, device=x.device, memory_format=form)


def _shifts(sign_mask: Tensor) -> Tensor:
    return (2 * torch.arange(PACKED, device=sign_mask.device)).reshape(1, 1, 1, PACKED, 1)


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    b: Tensor | None,
    up: int,
    down: int,
    padding: Sequence[int],
    *rest: Any,
) -> tuple[Tensor, Tensor]:
    """(D(clamp(gain * lrelu(U(x + b)))) in x's dtype, sign mask, or [0] unless ``keep``), channels-last where x is.

    Shapes: x [N, C, H, W]; b [C] in float32 (float64 where x is); fu and fd [n], [fh, fw] or None. U is
    :func:`~imgops.kernels.upfirdn2d.upfirdn2d` by ``up`` with fu and the gain ``up ** 2``, D by ``down`` with fd;
    ``padding`` is (x0, x1, y0, y1) on the up-sampled image [Ha, Wa]. The sign mask, uint8 [N, C, ceil(Ha / 4), Wa], has
    bit 2 * (y % 4) of row y // 4 set where the pixel of row y was not positive, the bit above it where it was clamped.
    ``rest`` is (gain, slope, clamp, flip_filter, keep).
    """
    gain, slope, clamp, flip_filter, keep = rest
    call = _Call(fu, fd, up, down, padding, (0, 0, 0, 0), flip_filter, float(up**2), 1.0, gain, slope, clamp)
    form = dense_format(x)
    x = x.contiguous(memory_format=form)
    y, (ax, ay) = _allocate(x, call, form), call.axes(x)
    size: Any = [*x.shape[:2], triton.cdiv(ay.high, PACKED), ax.high]
    sign_mask = torch.empty(size, dtype=torch.uint8, device=x.device, memory_format=form) if keep else None
    if y.numel() > 0:
        b = None if b is None else b.contiguous()
        with torch.cuda.device_of(x):
            if not call.launch(x, b, sign_mask, y, True):
                # the filters are too long for any tile: run each step by itself
                z = call.up_sample(bias_act(x.to(ACC_DTYPE[x.dtype]), 1, *Epilogue(b)))
                activation = Epilogue(act="lrelu", alpha=slope, gain=gain, clamp=clamp)
                y.copy_(call.down_sample(bias_act(z, 1, *activation)))
                if sign_mask is not None:
                    sign_mask.copy_(_pack_signs(z, call))
    return y, y.new_empty([0], dtype=torch.uint8) if sign_mask is None else sign_mask


def _pack_signs(z: Tensor, call: _Call) -> Tensor:
    bits = (~(z > 0)).to(torch.uint8)
    if call.clamp >= 0:
        a = bias_act(z, 1, *Epilogue(act="lrelu", alpha=call.slope, gain=call.gain))
        bits |= (~(a.abs() < call.clamp)).to(torch.uint8) << 1
    bits = torch.nn.functional.pad(bits, [0, 0, 0, -z.shape[2] % PACKED])
    return (bits.unflatten(2, (-1, PACKED)) << _shifts(bits)).sum(3)


def filtered_lrelu_slopes(
    x: Tensor,
    sign_mask: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    up: int,
    down: int,
    padding_up: Sequence[int],
    padding_down: Sequence[int],
    *rest: Any,
) -> Tensor:
    """D(s * U(x)) with s = gain, gain * slope or 0 as the sign mask of :func:`filtered_lrelu` says, channels-last
    where that is; ``padding_down`` is on the product; ``rest`` is (flip_filter, gain_up, gain_down, gain, slope), where
    the filters have gain_up and gain_down.
    """
    call = _Call(fu, fd, up, down, padding_up, padding_down, *rest, -1.0)
    gain, slope = call.gain, call.slope
    form = dense_format(sign_mask)
    x = x.contiguous(memory_format=form)
    y = _allocate(x, call, form)
    if y.numel() > 0:
        sign_mask = sign_mask.contiguous(memory_format=form)
        with torch.cuda.device_of(x):
            if not call.launch(x, None, sign_mask, y, False):
                z = call.up_sample(x)
                bits = (sign_mask[:, :, :, None] >> _shifts(sign_mask)).flatten(2, 3)[:, :, : z.shape[2]]
                slopes = torch.where(bits & 1 > 0, gain * slope, gain) * (bits & 2 == 0)
                y.copy_(call.down_sample((z * slopes).to(z.dtype)))
    return y
