"""Bilinear samples of images at a grid or at displaced positions, their derivatives by position, and their gradients.

A program takes P samples and walks over channels, K at a time: the forward kernel over K of them, the backward kernel
over all, so that each program owns what it sums for its positions. Tiles are [P, K] where x is channels-last, else [K,
P]: the last axis is the one that is adjacent in memory. The gradient of the image is added up atomically: in floating
point or, where PyTorch is to be deterministic, in 64-bit fixed point, whose sums do not depend on the order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._common import ACC_DTYPE, OPTIONS, TL_DTYPE, dense_format


@triton.jit
def _place(u, size, at, DISPLACED: tl.constexpr, PADDING: tl.constexpr, ORDER: tl.constexpr):
    """Taps along an axis (pixel numbers, inside the image), their weights, the weights' derivatives, and a mask.

    ``at`` is the position that a displacement is relative to. Comparisons are written so that a NaN position is outside
    the image, or on its first pixel.
    """
    length = tl.zeros_like(u) + size
    last = length - 1
    zero = tl.zeros_like(u)
    if DISPLACED:
        position = u + at
        slope = zero + 1
    else:
        position = u * (length * 0.5) + last * 0.5
        slope = length * 0.5
    if PADDING == "zeros":
        inside = (position >= -1) & (position < length)
        position = tl.where(inside, position, zero)
    else:
        inside = length > 0
        if PADDING == "reflection":
            shifted = position + 0.5
            distance = tl.abs(shifted)
            flips = tl.floor(distance / length)
            rest = distance - flips * length
            even = flips == 2 * tl.floor(flips * 0.5)
            position = tl.where(even, rest, length - rest) - 0.5
            slope = tl.where(even == (shifted >= 0), slope, -slope)
        # the gradient is zero on the border, as it is beyond it
        slope = tl.where((position > 0) & (position < last), slope, zero)
        position = tl.where(position > 0, position, zero)
        position = tl.where(position < last, position, last)
    floor = tl.floor(position)
    t = position - floor
    first = floor.to(tl.int32)
    second = tl.minimum(first + 1, size - 1)
    # a tap beyond the image has a weight of zero
    has_first, has_second = floor >= 0, floor < last
    w0, w1 = tl.where(has_first, 1 - t, zero), tl.where(has_second, t, zero)
    d0, d1 = tl.where(has_first, -slope, zero), tl.where(has_second, slope, zero)
    if ORDER == 1:
        w0, w1, d0, d1 = d0, d1, zero, zero
    return tl.minimum(tl.maximum(first, 0), size - 1), second, w0, w1, d0, d1, inside


@triton.jit
def _row(p_positions, n, pixel, m_pixel, out_w, stride_n, stride_row, stride_column, axis):
    """Row and column of each sample, and its two coordinates, [P] each."""
    i = pixel // out_w
    j = pixel - i * out_w
    p_u = p_positions + n * stride_n + i * stride_row + j * stride_column
    return i, j, tl.load(p_u, m_pixel, other=0), tl.load(p_u + axis, m_pixel, other=0)


@triton.jit
def _of_pixels(v, CHANNELS_LAST: tl.constexpr):
    """v [P] as an axis of a tile."""
    return v[:, None] if CHANNELS_LAST else v[None, :]


@triton.jit
def _of_channels(v, CHANNELS_LAST: tl.constexpr):
    """v [K] as an axis of a tile."""
    return v[None, :] if CHANNELS_LAST else v[:, None]


@triton.jit
def grid_sample_kernel(
    p_x,
    p_positions,
    p_y,
    channels, in_h, in_w, out_w, out_pixels,
    x_channel, x_pixel, y_channel, y_pixel,  # strides of a channel and of a pixel, in x and in y
    stride_n, stride_row, stride_column, stride_axis,  # of the positions
    pixel_blocks, channel_blocks,
    DISPLACED: tl.constexpr, PADDING: tl.constexpr, ORDER_X: tl.constexpr, ORDER_Y: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, INDEX: tl.constexpr, ACC_DTYPE: tl.constexpr, P: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    n = (pid // channel_blocks // pixel_blocks).to(INDEX)
    pixel = (pid // channel_blocks % pixel_blocks).to(INDEX) * P + tl.arange(0, P)  # [P]
    m_pixel = pixel < out_pixels
    i, j, u, v = _row(p_positions, n, pixel, m_pixel, out_w, stride_n, stride_row, stride_column, stride_axis)
    x0, x1, wx0, wx1, _, _, m_x = _place(u, in_w, j.to(ACC_DTYPE), DISPLACED, PADDING, ORDER_X)
    y0, y1, wy0, wy1, _, _, m_y = _place(v, in_h, i.to(ACC_DTYPE), DISPLACED, PADDING, ORDER_Y)
    c = _of_channels((pid % channel_blocks).to(INDEX) * K + tl.arange(0, K), CHANNELS_LAST)
    mask = _of_pixels(m_pixel, CHANNELS_LAST) & (c < channels)
    m_tap = _of_pixels(m_x & m_y, CHANNELS_LAST) & mask
    p_taps = p_x + n * channels * in_h * in_w + c * x_channel
    sums = tl.zeros((1, 1), ACC_DTYPE)
    for tap in tl.static_range(4):
        row = (y0 if tap < 2 else y1).to(INDEX)
        column = x0 if tap % 2 == 0 else x1
        w = (wy0 if tap < 2 else wy1) * (wx0 if tap % 2 == 0 else wx1)
        offset = _of_pixels((row * in_w + column) * x_pixel, CHANNELS_LAST)
        value = tl.load(p_taps + offset, m_tap, other=0)
        sums = sums + value.to(ACC_DTYPE) * _of_pixels(w, CHANNELS_LAST)
    p_out = p_y + n * channels * out_pixels + c * y_channel + _of_pixels(pixel * y_pixel, CHANNELS_LAST)
    tl.store(p_out, sums.to(p_y.dtype.element_ty), mask)


@triton.jit
def grid_sample_backward_kernel(
    p_dy,
    p_x,
    p_positions,
    p_dx,  # in the accumulation dtype or in fixed point, 0 to begin with; or None
    p_dpositions,  # or None
    p_unit,  # [], the unit of dx in fixed point, or None
    channels, in_h, in_w, out_w, out_pixels,
    x_channel, x_pixel, y_channel, y_pixel,  # strides of a channel and of a pixel, in x and in y
    stride_n, stride_row, stride_column, stride_axis,  # of the positions
    pixel_blocks,
    DISPLACED: tl.constexpr, PADDING: tl.constexpr, ORDER_X: tl.constexpr, ORDER_Y: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, INDEX: tl.constexpr, ACC_DTYPE: tl.constexpr, P: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    n = (pid // pixel_blocks).to(INDEX)
    pixel = (pid % pixel_blocks).to(INDEX) * P + tl.arange(0, P)  # [P]
    m_pixel = pixel < out_pixels
    i, j, u, v = _row(p_positions, n, pixel, m_pixel, out_w, stride_n, stride_row, stride_column, stride_axis)
    x0, x1, wx0, wx1, dx0, dx1, m_x = _place(u, in_w, j.to(ACC_DTYPE), DISPLACED, PADDING, ORDER_X)
    y0, y1, wy0, wy1, dy0, dy1, m_y = _place(v, in_h, i.to(ACC_DTYPE), DISPLACED, PADDING, ORDER_Y)
    sum_x = tl.zeros((P,), ACC_DTYPE)
    sum_y = tl.zeros((P,), ACC_DTYPE)
    AXIS: tl.constexpr = 1 if CHANNELS_LAST else 0
    for c0 in range(0, channels, K):
        c = _of_channels(c0 + tl.arange(0, K).to(INDEX), CHANNELS_LAST)
        mask = _of_pixels(m_pixel & m_x & m_y, CHANNELS_LAST) & (c < channels)
        p_in = p_dy + n * channels * out_pixels + c * y_channel + _of_pixels(pixel * y_pixel, CHANNELS_LAST)
        g = tl.load(p_in, mask, other=0).to(ACC_DTYPE)
        channel = n * channels * in_h * in_w + c * x_channel
        for tap in tl.static_range(4):
            row = (y0 if tap < 2 else y1).to(INDEX)
            column = x0 if tap % 2 == 0 else x1
            offset = channel + _of_pixels((row * in_w + column) * x_pixel, CHANNELS_LAST)
            wx, dwx = (wx0, dx0) if tap % 2 == 0 else (wx1, dx1)
            wy, dwy = (wy0, dy0) if tap < 2 else (wy1, dy1)
            if p_dx is not None:
                term = g * _of_pixels(wx * wy, CHANNELS_LAST)
                if p_unit is not None:
                    # rounded to the nearest integer; a NaN has none, and reaches the result through the unit
                    term = tl.floor(term.to(tl.float64) / tl.load(p_unit) + 0.5).to(tl.int64)
                tl.atomic_add(p_dx + offset, term, mask, sem="relaxed")
            if p_dpositions is not None:
                value = tl.sum(tl.load(p_x + offset, mask, other=0).to(ACC_DTYPE) * g, AXIS)
                sum_x += value * (dwx * wy)
                sum_y += value * (wx * dwy)
    if p_dpositions is not None:
        # [N, 2, H', W'] where displaced, else [N, H', W', 2]
        p_d = p_dpositions + n * out_pixels * 2
        if DISPLACED:
            tl.store(p_d + pixel, sum_x, m_pixel)
            tl.store(p_d + out_pixels + pixel, sum_y, m_pixel)
        else:
            tl.store(p_d + pixel * 2, sum_x, m_pixel)
            tl.store(p_d + pixel * 2 + 1, sum_y, m_pixel)


def _strides(channels: int, pixels: int, last: bool) -> tuple[int, int]:
    """(stride of a channel, stride of a pixel)"""
    return (1, channels) if last else (pixels, 1)


def _tile(channels: int, last: bool, most: int) -> tuple[int, int]:
    """(P, K) for 128 threads: at most one sample per thread, as it keeps much state, and ``most`` channels, or 32
    where they are adjacent in memory (``last``)."""
    k = min(triton.next_power_of_2(max(channels, 1)), 32 if last else most)
    return min(1024 // k, 128), k


def _index(*tensors: Tensor | None) -> tl.dtype:
    """The integer type that can hold any offset into these tensors, whatever their strides."""
    extents = (sum((n - 1) * d for n, d in zip(t.shape, t.stride(), strict=True)) for t in tensors if t is not None)
    return tl.int64 if max(extents) >= 2**31 - 2**20 else tl.int32


def _positions(positions: Tensor, displaced: bool) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """The size of the output, and the strides of a sample, a row, a column and an axis."""
    n, *rest = positions.stride()
    if displaced:
        axis, row, column = rest
        return (positions.shape[2], positions.shape[3]), (n, row, column, axis)
    row, column, axis = rest
    return (positions.shape[1], positions.shape[2]), (n, row, column, axis)


def grid_sample(x: Tensor, positions: Tensor, displaced: bool, padding_mode: str, order: Sequence[int]) -> Tensor:
    """x [N, C, H, W] at positions, in x's dtype, channels-last where x is, or their derivative by position.

    ``order`` says which derivative, 0 or 1 along x and y.
    ``positions``, in float32 (float64 where x is), are [N, H', W', 2] with the image's edges at -1 and 1, or
    (``displaced``) [N, 2, H', W'] in pixels from each pixel.
    """
    form = dense_format(x)
    x = x.contiguous(memory_format=form)
    (n, c, h, w), last = x.shape, form == torch.channels_last
    size, strides = _positions(positions, displaced)
    y = torch.empty([n, c, *size], dtype=x.dtype, device=x.device, memory_format=form)
    if y.numel() == 0:
        return y
    pixels = size[0] * size[1]
    p, k = _tile(c, last, 8)
    pixel_blocks, channel_blocks = triton.cdiv(pixels, p), triton.cdiv(c, k)
    with torch.cuda.device_of(x):
        grid_sample_kernel[(n * pixel_blocks * channel_blocks,)](
            x, positions, y, c, h, w, size[1], pixels, *_strides(c, h * w, last), *_strides(c, pixels, last), *strides,
            pixel_blocks, channel_blocks,
            DISPLACED=displaced, PADDING=padding_mode, ORDER_X=order[0], ORDER_Y=order[1],
            CHANNELS_LAST=last, INDEX=_index(x, y, positions), ACC_DTYPE=TL_DTYPE[ACC_DTYPE[x.dtype]], P=p, K=k,
            num_warps=4, **OPTIONS,
        )  # fmt: skip
    return y


def _fixed_point_unit(
    dy: Tensor, positions: Tensor, size: Sequence[int], displaced: bool, order: Sequence[int]
) -> Tensor:
    """The fixed-point unit, [] in float64: large enough for all sums to fit 62 bits; NaN if dy is not finite."""
    slopes = [1.0 if displaced else length / 2 for length in (size[3], size[2])]
    largest = dy.abs().amax().double()
    for slope, times in zip(slopes, order, strict=True):
        largest = largest * slope**times
    # each sample reaches a pixel through at most four taps
    unit = largest * (positions.numel() // max(positions.shape[0], 1) * 4.0 / 2.0**62)
    return torch.where(unit.isfinite(), unit.clamp(min=1e-300), torch.nan)


def grid_sample_backward(
    dy: Tensor,
    x: Tensor | None,
    positions: Tensor,
    size: Sequence[int],
    displaced: bool,
    padding_mode: str,
    order: Sequence[int],
    needs_x: bool,
    needs_positions: bool,
) -> tuple[Tensor, Tensor]:
    """(dx, dpositions) of :func:`grid_sample`, [0] where not needed; x, of ``size``, is for dpositions alone.

    Under ``torch.use_deterministic_algorithms(True)`` dx is summed in fixed point, and NaN where dy is not finite.
    """
    form = dense_format(dy if x is None else x)
    dy = dy.contiguous(memory_format=form)
    x = None if x is None else x.contiguous(memory_format=form)
    n, c, h, w = size
    last, acc_dtype = form == torch.channels_last, ACC_DTYPE[dy.dtype]
    out, strides = _positions(positions, displaced)
    unit = dx = None
    if needs_x and torch.are_deterministic_algorithms_enabled() and dy.numel() > 0:
        unit = _fixed_point_unit(dy, positions, size, displaced, order)
    if needs_x:
        dtype = acc_dtype if unit is None else torch.int64
        dx = torch.empty(size, dtype=dtype, device=dy.device, memory_format=form).zero_()
    dpositions = torch.zeros if dy.numel() == 0 else torch.empty
    dpositions = dpositions(positions.shape if needs_positions else [0], dtype=acc_dtype, device=dy.device)
    if dy.numel() > 0:
        pixels = out[0] * out[1]
        p, k = _tile(c, last, 2)
        pixel_blocks = triton.cdiv(pixels, p)
        with torch.cuda.device_of(dy):
            grid_sample_backward_kernel[(n * pixel_blocks,)](
                dy, x if needs_positions else None, positions, dx, dpositions if needs_positions else None, unit,
                c, h, w, out[1], pixels, *_strides(c, h * w, last), *_strides(c, pixels, last), *strides, pixel_blocks,
                DISPLACED=displaced, PADDING=padding_mode, ORDER_X=order[0], ORDER_Y=order[1],
                CHANNELS_LAST=last, INDEX=_index(dy, dx, x, positions), ACC_DTYPE=TL_DTYPE[acc_dtype], P=p, K=k,
                num_warps=4, **OPTIONS,
            )  # fmt: skip
    if dx is None:
        return dy.new_empty([0]), dpositions
    return (dx if unit is None else dx * unit).to(dy.dtype), dpositions
