"""Adaptive instance normalization: statistics of planes, the normalization, and its backward.

A tile is [R, K]: planes by pixels, or pixels by channels where channels are innermost in memory (LAST). Values of one
plane are [R, 1] or [1, K], or scalars where a planar tile is part of a single plane. A plane that fits one tile is read
once. The statistics of larger planes come from an earlier pass as partial moments (Chan et al. 1979). Every program
merges them in the same order and without atomics, so that results are deterministic.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._common import ACC_DTYPE, OPTIONS, TL_DTYPE, dense_format

#: number of elements in a tile that holds whole planes, and in one that holds a part of a plane
_WHOLE, _TILE = 16384, 4096
#: largest number of partial results per plane
_CHUNKS = 32


@triton.jit
def _place(block, chunk, g, planes, pixels, LAST: tl.constexpr, R: tl.constexpr, K: tl.constexpr):
    """Plane and pixel of a tile's rows and columns, the offsets of its elements, and which of them exist."""
    r = tl.arange(0, R)[:, None]
    k = tl.arange(0, K)[None, :]
    if LAST:
        plane, pixel = block * K + k, chunk.to(tl.int64) * R + r
        offset = (g.to(tl.int64) * pixels + pixel) * planes + plane
    else:
        plane, pixel = block * R + r, chunk.to(tl.int64) * K + k
        offset = (g.to(tl.int64) * planes + plane) * pixels + pixel
    return plane, offset, (plane < planes) & (pixel < pixels)


@triton.jit
def _moments(x, m, count, AXIS: tl.constexpr):
    """(mean, its rounding error, sum of squared deviations) of the ``count`` elements of each plane in a tile."""
    mean = tl.sum(tl.where(m, x, 0), AXIS, keep_dims=True) / count
    d = tl.where(m, x - mean, 0)
    rest = tl.sum(d, AXIS, keep_dims=True) / count
    return mean, rest, tl.sum(d * d, AXIS, keep_dims=True) - count * rest * rest


@triton.jit
def _chunks(chunks, m_plane, LAST: tl.constexpr, CHUNKS: tl.constexpr):
    """The indices of a plane's chunks, and which of them exist: [CHUNKS, 1] where LAST, else [CHUNKS]."""
    i = tl.arange(0, CHUNKS)
    m = i < chunks
    if LAST:
        i = i[:, None]
        m = m[:, None] & m_plane
    return i, m


@triton.jit
def _merged(
    p_moments,
    at,
    m_plane,
    total,
    pixels,
    per_chunk,
    chunks,
    ACC_DTYPE: tl.constexpr,
    LAST: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """The moments of planes, merged from those of their chunks, [3, chunks, total]: [1, K] where LAST, else scalars.

    A tile of planar images that has chunks has one plane. As [1, CHUNKS] beside a tile of [1, K] its moments would take
    the tile's layout, in which some versions of Triton have each thread load all of them.
    """
    i, m = _chunks(chunks, m_plane, LAST, CHUNKS)
    offset = i.to(tl.int64) * total + at
    size = chunks * total
    mean = tl.load(p_moments + at, m_plane, other=0)
    # deviations are taken from the first chunk's mean, so that nothing cancels
    d = tl.load(p_moments + offset, m, other=0) - mean + tl.load(p_moments + size + offset, m, other=0)
    count = tl.where(m, tl.minimum(per_chunk, pixels - i * per_chunk), 0).to(ACC_DTYPE)
    rest = tl.sum(count * tl.where(m, d, 0), 0, keep_dims=LAST) / pixels
    d = tl.where(m, d - rest, 0)
    m2 = tl.load(p_moments + 2 * size + offset, m, other=0) + count * d * d
    return mean, rest, tl.sum(m2, 0, keep_dims=LAST)


@triton.jit
def _planes(block, plane, g, planes, ONE: tl.constexpr):
    """The numbers of a tile's planes among all N * C, and which exist; scalars where the tile is part of ONE plane."""
    if ONE:
        at, m_plane = block.to(tl.int64), True
    else:
        at, m_plane = g.to(tl.int64) * planes + plane, plane < planes
    return at, m_plane


@triton.jit
def _tile(blocks, tiles, planes, pixels, ONE: tl.constexpr, LAST: tl.constexpr, R: tl.constexpr, K: tl.constexpr):
    """The program's tile: its number in its planes, offset and mask of its elements, number and mask of its planes."""
    pid = tl.program_id(0)
    block, tile, g = pid % blocks, pid // blocks % tiles, pid // blocks // tiles
    plane, offset, m = _place(block, tile, g, planes, pixels, LAST, R, K)
    at, m_plane = _planes(block, plane, g, planes, ONE)
    return tile, offset, m, at, m_plane


@triton.jit
def moments_kernel(
    p_x,
    p_moments,  # [3, chunks, total]
    planes, pixels, total, blocks, chunks, steps,  # total: groups * planes
    ACC_DTYPE: tl.constexpr, LAST: tl.constexpr,
    R: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Moments of one chunk per program, of ``steps`` tiles of pixels."""
    pid = tl.program_id(0)
    block, chunk, g = pid % blocks, pid // blocks % chunks, pid // blocks // chunks
    AXIS: tl.constexpr = 0 if LAST else 1
    PIXELS: tl.constexpr = R if LAST else K
    first = chunk * steps * PIXELS
    plane, offset, m = _place(block, chunk * steps, g, planes, pixels, LAST, R, K)
    n = tl.minimum(PIXELS, pixels - first).to(ACC_DTYPE)
    mean, rest, m2 = _moments(tl.load(p_x + offset, m, other=0).to(ACC_DTYPE), m, n, AXIS)
    for step in range(1, tl.minimum(steps, tl.cdiv(pixels - first, PIXELS))):
        plane, offset, m = _place(block, chunk * steps + step, g, planes, pixels, LAST, R, K)
        count = tl.minimum(PIXELS, pixels - first - step * PIXELS).to(ACC_DTYPE)
        other, other_rest, other_m2 = _moments(tl.load(p_x + offset, m, other=0).to(ACC_DTYPE), m, count, AXIS)
        d = other - mean + (other_rest - rest)
        rest += d * (count / (n + count))
        m2 += other_m2 + d * d * (n * count / (n + count))
        n += count
    at = chunk * total + g.to(tl.int64) * planes + plane
    size = chunks * total
    tl.store(p_moments + at, mean, plane < planes)
    tl.store(p_moments + size + at, rest, plane < planes)
    tl.store(p_moments + 2 * size + at, m2, plane < planes)


@triton.jit
def adaptive_instance_norm_kernel(
    p_x,
    p_scale,
    p_bias,
    p_moments,  # or None, where a tile holds its planes whole
    p_y,
    planes, pixels, total, blocks, tiles, chunks, per_chunk,  # total: groups * planes
    EPS: tl.constexpr, UNBIASED: tl.constexpr, ACC_DTYPE: tl.constexpr, LAST: tl.constexpr,
    R: tl.constexpr, K: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    AXIS: tl.constexpr = 0 if LAST else 1
    _, offset, m, at, m_plane = _tile(blocks, tiles, planes, pixels, p_moments is not None and not LAST, LAST, R, K)
    x = tl.load(p_x + offset, m, other=0).to(ACC_DTYPE)
    if p_moments is None:
        mean, rest, m2 = _moments(x, m, pixels, AXIS)
    else:
        mean, rest, m2 = _merged(p_moments, at, m_plane, total, pixels, per_chunk, chunks, ACC_DTYPE, LAST, CHUNKS)
    scale = tl.load(p_scale + at, m_plane, other=0)
    k = scale / tl.sqrt(m2 / (pixels - UNBIASED) + EPS)
    y = (x - mean) * k + (tl.load(p_bias + at, m_plane, other=0) - rest * k)
    tl.store(p_y + offset, y.to(p_y.dtype.element_ty), m)


@triton.jit
def adaptive_instance_norm_sums_kernel(
    p_dy,
    p_x,
    p_moments,
    p_sums,  # [2, chunks, total]: of dy, and of dy * (x - mean)
    planes, pixels, total, blocks, chunks, steps,  # total: groups * planes
    ACC_DTYPE: tl.constexpr, LAST: tl.constexpr,
    R: tl.constexpr, K: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    block, chunk, g = pid % blocks, pid // blocks % chunks, pid // blocks // chunks
    # a tile of one plane: all elements are added
    AXIS: tl.constexpr = 0 if LAST else None
    PIXELS: tl.constexpr = R if LAST else K
    plane, offset, m = _place(block, chunk, g, planes, pixels, LAST, R, K)
    at, m_plane = _planes(block, plane, g, planes, not LAST)
    mean, rest, _m2 = _merged(p_moments, at, m_plane, total, pixels, steps * PIXELS, chunks, ACC_DTYPE, LAST, CHUNKS)
    sums = tl.zeros_like(mean) if LAST else tl.full((), 0, ACC_DTYPE)
    dots = tl.zeros_like(mean) if LAST else tl.full((), 0, ACC_DTYPE)
    for step in range(tl.minimum(steps, tl.cdiv(pixels - chunk * steps * PIXELS, PIXELS))):
        plane, offset, m = _place(block, chunk * steps + step, g, planes, pixels, LAST, R, K)
        dy = tl.load(p_dy + offset, m, other=0).to(ACC_DTYPE)
        x = tl.load(p_x + offset, m, other=0).to(ACC_DTYPE)
        sums += tl.sum(dy, AXIS, keep_dims=LAST)
        dots += tl.sum(dy * (x - mean - rest), AXIS, keep_dims=LAST)
    tl.store(p_sums + chunk * total + at, sums, m_plane)
    tl.store(p_sums + (chunks + chunk) * total + at, dots, m_plane)


@triton.jit
def adaptive_instance_norm_backward_kernel(
    p_dy,
    p_x,
    p_scale,
    p_moments,  # with p_sums, or both None where a tile holds its planes whole
    p_sums,
    p_dx,
    p_dscale,
    p_dbias,
    planes, pixels, total, blocks, tiles, chunks, per_chunk,  # total: groups * planes
    EPS: tl.constexpr, UNBIASED: tl.constexpr, ACC_DTYPE: tl.constexpr, LAST: tl.constexpr,
    R: tl.constexpr, K: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    AXIS: tl.constexpr = 0 if LAST else 1
    tile, offset, m, at, m_plane = _tile(blocks, tiles, planes, pixels, p_moments is not None and not LAST, LAST, R, K)
    x = tl.load(p_x + offset, m, other=0).to(ACC_DTYPE)
    dy = tl.load(p_dy + offset, m, other=0).to(ACC_DTYPE)
    if p_moments is None:
        mean, rest, m2 = _moments(x, m, pixels, AXIS)
        d = x - mean - rest
        sums = tl.sum(dy, AXIS, keep_dims=True)
        dots = tl.sum(dy * d, AXIS, keep_dims=True)
    else:
        mean, rest, m2 = _merged(p_moments, at, m_plane, total, pixels, per_chunk, chunks, ACC_DTYPE, LAST, CHUNKS)
        d = x - mean - rest
        i, m_chunk = _chunks(chunks, m_plane, LAST, CHUNKS)
        p_sums += i.to(tl.int64) * total + at
        sums = tl.sum(tl.load(p_sums, m_chunk, other=0), 0, keep_dims=LAST)
        dots = tl.sum(tl.load(p_sums + chunks * total, m_chunk, other=0), 0, keep_dims=LAST)
    freedom = pixels - UNBIASED
    r = 1 / tl.sqrt(m2 / freedom + EPS)
    k = tl.load(p_scale + at, m_plane, other=0) * r
    dx = k * (dy - sums / pixels - d * (r * r * dots / freedom))
    tl.store(p_dx + offset, dx.to(p_dx.dtype.element_ty), m)
    if tile == 0:
        tl.store(p_dscale + at, dots * r, m_plane)
        tl.store(p_dbias + at, sums, m_plane)


class _Plan(NamedTuple):
    """How planes are cut: tiles of [r, k], and for the passes that sum, chunks of several tiles each."""

    last: bool
    groups: int
    planes: int
    pixels: int
    r: int
    k: int

    @property
    def tile_pixels(self) -> int:
        return self.r if self.last else self.k

    @property
    def tiles(self) -> int:
        return triton.cdiv(self.pixels, self.tile_pixels)

    @property
    def steps(self) -> int:
        return triton.cdiv(self.tiles, _CHUNKS)

    @property
    def chunks(self) -> int:
        return triton.cdiv(self.tiles, self.steps)

    @property
    def per_chunk(self) -> int:
        return self.steps * self.tile_pixels

    @property
    def blocks(self) -> int:
        return triton.cdiv(self.planes, self.k if self.last else self.r)

    @property
    def total(self) -> int:
        return self.groups * self.planes

    @property
    def programs(self) -> int:
        return self.groups * self.blocks

    @property
    def warps(self) -> int:
        return min(16, max(4, self.r * self.k // 1024))


def _plan(x: Tensor, whole: int) -> _Plan:
    """Several whole planes per tile where a plane fits ``whole`` elements, else tiles that are parts of planes."""
    n, c, h, w = x.shape
    pixels, last = h * w, dense_format(x) is torch.channels_last
    if last:
        # at least 32 bytes of each pixel, the smallest amount that memory moves
        k = min(triton.next_power_of_2(c), max(32 // x.element_size(), 1))
        fits = triton.next_power_of_2(pixels) * k <= whole
        k = k if fits else min(triton.next_power_of_2(c), 64)
        r = triton.next_power_of_2(pixels) if fits else _TILE // k
        return _Plan(True, n, c, pixels, r, k)
    fits = triton.next_power_of_2(pixels) <= whole
    k = triton.next_power_of_2(pixels) if fits else _TILE
    # small planes share a tile
    return _Plan(False, 1, n * c, pixels, max(1, min(1024 // k, triton.next_power_of_2(n * c))), k)


def _partial_moments(x: Tensor, plan: _Plan) -> Tensor:
    """Each chunk of pixels' mean, its rounding error, and sum of squared deviations: [3, chunks, N * C]."""
    acc_dtype = ACC_DTYPE[x.dtype]
    moments = x.new_empty([3, plan.chunks, plan.total], dtype=acc_dtype)
    with torch.cuda.device_of(x):
        moments_kernel[(plan.programs * plan.chunks,)](
            x, moments, plan.planes, plan.pixels, plan.total, plan.blocks, plan.chunks, plan.steps,
            ACC_DTYPE=TL_DTYPE[acc_dtype], LAST=plan.last, R=plan.r, K=plan.k, num_warps=plan.warps, **OPTIONS,
        )  # fmt: skip
    return moments


def mean_std(x: Tensor, eps: float, unbiased: bool) -> tuple[Tensor, Tensor]:
    """(mean, sqrt(variance + eps)) of the planes of x [N, C, H, W], each [N, C] in the accumulation dtype."""
    x = x.contiguous(memory_format=dense_format(x))
    n, c = x.shape[:2]
    acc_dtype = ACC_DTYPE[x.dtype]
    if x.numel() == 0:
        return x.new_empty([n, c], dtype=acc_dtype), x.new_empty([n, c], dtype=acc_dtype)
    plan = _plan(x, _WHOLE)
    mean, rest, m2 = _partial_moments(x, plan)
    count = torch.full([plan.chunks, 1], plan.per_chunk, dtype=acc_dtype, device=x.device)
    count[-1] = plan.pixels - (plan.chunks - 1) * plan.per_chunk
    d = mean - mean[0] + rest
    delta = (count * d).sum(0) / plan.pixels
    variance = (m2 + count * (d - delta).square()).sum(0) / (plan.pixels - unbiased)
    return (mean[0] + delta).view(n, c), (variance + eps).sqrt().view(n, c)


def adaptive_instance_norm(x: Tensor, scale: Tensor, bias: Tensor, eps: float, unbiased: bool) -> Tensor:
    """``scale * (x - mean) / sqrt(variance + eps) + bias``; scale and bias [N, C] in the accumulation dtype."""
    form = dense_format(x)
    x, scale, bias = x.contiguous(memory_format=form), scale.contiguous(), bias.contiguous()
    y = torch.empty_like(x, memory_format=form)
    if x.numel() == 0:
        return y
    plan = _plan(x, _WHOLE)
    moments = None if plan.tiles == 1 else _partial_moments(x, plan)
    with torch.cuda.device_of(x):
        adaptive_instance_norm_kernel[(plan.programs * plan.tiles,)](
            x, scale, bias, moments, y,
            plan.planes, plan.pixels, plan.total, plan.blocks, plan.tiles, plan.chunks, plan.per_chunk,
            EPS=eps, UNBIASED=int(unbiased), ACC_DTYPE=TL_DTYPE[ACC_DTYPE[x.dtype]], LAST=plan.last, R=plan.r, K=plan.k,
            CHUNKS=triton.next_power_of_2(plan.chunks), num_warps=plan.warps, **OPTIONS,
        )  # fmt: skip
    return y


def adaptive_instance_norm_backward(
    dy: Tensor, x: Tensor, scale: Tensor, eps: float, unbiased: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(dx, dscale, dbias) of :func:`adaptive_instance_norm`, the last two [N, C] in the accumulation dtype."""
    form = dense_format(x)
    x, dy, scale = x.contiguous(memory_format=form), dy.contiguous(memory_format=form), scale.contiguous()
    dx, dscale, dbias = torch.empty_like(x, memory_format=form), torch.empty_like(scale), torch.empty_like(scale)
    if x.numel() == 0:
        return dx, dscale, dbias
    # the backward pass holds two tensors in the registers that the forward pass uses for one
    plan = _plan(x, _WHOLE // 2)
    acc_dtype = TL_DTYPE[ACC_DTYPE[x.dtype]]
    moments = sums = None
    with torch.cuda.device_of(x):
        if plan.tiles > 1:
            moments = _partial_moments(x, plan)
            sums = torch.empty_like(moments[:2])
            adaptive_instance_norm_sums_kernel[(plan.programs * plan.chunks,)](
                dy, x, moments, sums,
                plan.planes, plan.pixels, plan.total, plan.blocks, plan.chunks, plan.steps,
                ACC_DTYPE=acc_dtype, LAST=plan.last, R=plan.r, K=plan.k,
                CHUNKS=triton.next_power_of_2(plan.chunks), num_warps=plan.warps, **OPTIONS,
            )  # fmt: skip
        adaptive_instance_norm_backward_kernel[(plan.programs * plan.tiles,)](
            dy, x, scale, moments, sums, dx, dscale, dbias,
            plan.planes, plan.pixels, plan.total, plan.blocks, plan.tiles, plan.chunks, plan.per_chunk,
            EPS=eps, UNBIASED=int(unbiased), ACC_DTYPE=acc_dtype, LAST=plan.last, R=plan.r, K=plan.k,
            CHUNKS=triton.next_power_of_2(plan.chunks), num_warps=plan.warps, **OPTIONS,
        )  # fmt: skip
    return dx, dscale, dbias
