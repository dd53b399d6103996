"""Exact feature distribution matching: sorted rows with the order of their pixels, and the values that ranks get.

A row of up to 2048 values of 32 bits or fewer is sorted by one program: keys that sort as integers, above the number of
their pixel, so that no two are equal and the sort is stable. Longer rows, and float64, are left to ``torch.sort``.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._common import ACC_DTYPE, OPTIONS, TL_DTYPE, dense_format

#: the longest row that a program sorts, and the pixels that one matches
_LONGEST, _BLOCK = 2048, 1024


@triton.jit
def sort_rows_kernel(
    p_x,
    p_values,
    p_order,
    length,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    m = i < length
    # widening keeps the order, and adding 0 makes one of both zeros
    x = tl.load(p_x + row * length + i, m, other=0).to(tl.float32) + 0.0
    bits = x.to(tl.int32, bitcast=True)
    # the magnitude of a negative number counts backwards
    key = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    # a NaN of either sign comes after all numbers, and what fills the block after that
    key = tl.where(x == x, key, 0x7FFFFFFE)
    key = tl.where(m, key, 0x7FFFFFFF)
    packed = tl.sort((key.to(tl.int64) << 32) | i.to(tl.int64))
    at = (packed & 0xFFFFFFFF).to(tl.int32)
    tl.store(p_order + row * length + i, at, m)
    tl.store(p_values + row * length + i, tl.load(p_x + row * length + at, m, other=0), m)


@triton.jit
def match_kernel(
    p_x,  # [N, C, K], sorted
    p_x_order,  # [N, C, K]
    p_y,  # [N or 1, C, M], sorted
    p_alpha,
    p_out,
    channels, pixels, style_pixels, style_sample,  # style_sample: elements of p_y from one sample to the next
    ACC_DTYPE: tl.constexpr, LAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """``alpha * m + (1 - alpha) * x``, with m the quantile of the style that has the rank of the pixel."""
    blocks = tl.cdiv(pixels, BLOCK)
    plane = (tl.program_id(0) // blocks).to(tl.int64)
    rank = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m = rank < pixels
    sample, channel = plane // channels, plane % channels
    # places are whole numbers of 1 / (2 * pixels), so that none is rounded
    unit = 2 * pixels.to(tl.int64)
    place = (2 * rank + 1) * style_pixels - pixels
    place = tl.minimum(tl.maximum(place, 0), unit * (style_pixels - 1))
    low = place // unit
    beyond = place - low * unit
    p_row = p_y + sample * style_sample + channel * style_pixels
    value = tl.load(p_row + low, m, other=0).to(ACC_DTYPE)
    above = tl.load(p_row + low + 1, m & (beyond > 0), other=0).to(ACC_DTYPE)
    along = beyond.to(ACC_DTYPE) / unit.to(ACC_DTYPE)
    value = tl.where(beyond > 0, value + along * (above - value), value)
    x = tl.load(p_x + plane * pixels + rank, m, other=0).to(ACC_DTYPE)
    at = tl.load(p_x_order + plane * pixels + rank, m, other=0).to(tl.int64)
    share = tl.load(p_alpha)
    out = share * value + (1 - share) * x
    to = (sample * pixels + at) * channels + channel if LAST else plane * pixels + at
    tl.store(p_out + to, out.to(p_out.dtype.element_ty), m)


def sort_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [..., K] with its last dimension from small to large, NaNs last, and where each value came from, int32."""
    x, length = x.contiguous(), x.shape[-1]
    if x.dtype == torch.float64 or length > _LONGEST:
        values, order = x.sort(dim=-1, stable=True)
        return values, order.int()
    values, order = torch.empty_like(x), torch.empty_like(x, dtype=torch.int32)
    if x.numel() == 0:
        return values, order
    block = max(16, triton.next_power_of_2(length))
    with torch.cuda.device_of(x):
        sort_rows_kernel[(x.numel() // length,)](
            x, values, order, length, BLOCK=block, num_warps=max(1, min(8, block // 256)), **OPTIONS
        )
    return values, order


def efdm(x: Tensor, y: Tensor, alpha: float, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """``alpha * m + (1 - alpha) * x``, and if keep the order of the pixels of x and of y, int32."""
    values, x_order = sort_rows(x.flatten(2))
    by_rank, y_order = sort_rows(y.flatten(2))
    form = dense_format(x)
    out = torch.empty_like(x, memory_format=form)
    n, c, pixels = values.shape
    style_pixels = by_rank.shape[2]
    if out.numel() > 0:
        # on the device, as a number would be rounded to float32 or compiled in
        share = torch.full([1], alpha, dtype=ACC_DTYPE[x.dtype], device=x.device)
        with torch.cuda.device_of(x):
            match_kernel[(n * c * triton.cdiv(pixels, _BLOCK),)](
                values, x_order, by_rank, share, out,
                c, pixels, style_pixels, 0 if y.shape[0] == 1 else c * style_pixels,
                ACC_DTYPE=TL_DTYPE[ACC_DTYPE[x.dtype]], LAST=form == torch.channels_last, BLOCK=_BLOCK, num_warps=4,
                **OPTIONS,
            )  # fmt: skip
    if not keep:
        return out, x_order.new_empty(0), x_order.new_empty(0)
    return out, x_order, y_order
