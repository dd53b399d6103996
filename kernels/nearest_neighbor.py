"""The key of the largest cosine for each query, by blocks of products on tensor cores, none of which is stored.

A program has a block of queries and goes through the keys of a run; the largest cosine so far and its index stay in
registers. Where there are few queries, the keys are divided into runs with one program each, whose results are compared
afterwards. Half precision is multiplied as it is, exactly, and scaled afterwards; float32 and float64 are scaled first.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._common import ACC_DTYPE, OPTIONS, TL_DTYPE


@triton.jit
def nearest_neighbor_kernel(
    p_x,  # [N, C, Q]
    p_y,  # [N or 1, C, K]
    p_x_scale,  # [N, Q]: 1 / length
    p_y_scale,  # [N or 1, K]
    p_similarity,  # [runs, N, Q]
    p_index,  # [runs, N, Q]
    samples, channels, queries, keys,
    x_n, x_c, x_q,
    y_n, y_c, y_k, y_scale_n,
    query_blocks, steps,  # steps of BK keys in a run
    INDEX: tl.constexpr, ACC_DTYPE: tl.constexpr,
    UPCAST: tl.constexpr,  # multiply unit vectors in the accumulation dtype
    PRECISION: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    q = pid % query_blocks * BQ + tl.arange(0, BQ)  # [BQ]
    n = (pid // query_blocks % samples).to(INDEX)
    run = (pid // query_blocks // samples).to(INDEX)
    m_q = q < queries
    p_queries = p_x + n * x_n + (q.to(INDEX) * x_q)[:, None]
    x_scale = tl.load(p_x_scale + n * queries + q, m_q, other=0)  # [BQ]
    c = tl.arange(0, BC)
    best = tl.full((BQ,), -float("inf"), ACC_DTYPE)
    index = tl.zeros((BQ,), tl.int32)
    for step in range(steps):
        k = (run * steps + step) * BK + tl.arange(0, BK)  # [BK]
        m_k = k < keys
        p_keys = p_y + n * y_n + (k.to(INDEX) * y_k)[None, :]
        y_scale = tl.load(p_y_scale + n * y_scale_n + k, m_k, other=0)
        acc = tl.zeros((BQ, BK), ACC_DTYPE)
        for start in range(0, channels, BC):
            channel = start + c
            m_c = channel < channels
            b_x = tl.load(p_queries + (channel.to(INDEX) * x_c)[None, :], m_q[:, None] & m_c[None, :], other=0)
            b_y = tl.load(p_keys + (channel.to(INDEX) * y_c)[:, None], m_c[:, None] & m_k[None, :], other=0)
            if UPCAST:
                b_x = b_x.to(ACC_DTYPE) * x_scale[:, None]
                b_y = b_y.to(ACC_DTYPE) * y_scale[None, :]
            acc = tl.dot(b_x, b_y, acc, input_precision=PRECISION, out_dtype=ACC_DTYPE)
        if not UPCAST:
            acc = acc * x_scale[:, None] * y_scale[None, :]
        # a NaN is the largest
        acc = tl.where(acc != acc, float("inf"), acc)
        acc = tl.where(m_k[None, :], acc, -float("inf"))
        top, where = tl.max(acc, 1, return_indices=True, return_indices_tie_break_left=True)
        # of equals the first is kept
        better = top > best
        index = tl.where(better, ((run * steps + step) * BK + where).to(tl.int32), index)
        best = tl.where(better, top, best)
    p_out = (run * samples + n) * queries + q
    tl.store(p_similarity + p_out, best, m_q)
    tl.store(p_index + p_out, index.to(tl.int64), m_q)


def _scales(t: Tensor, acc_dtype: torch.dtype) -> Tensor:
    """The reciprocal length of each vector of t [N, C, P], [N, P]; 0 for a vector of zeros, NaN where it holds one."""
    t = t.to(acc_dtype)
    largest = t.abs().amax(1)
    divisor = torch.where(largest > 0, largest, 1)
    square = (t / divisor[:, None]).square().sum(1)
    return torch.where(square == 0, 0, square.rsqrt() / divisor)


def nearest_neighbor(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(similarity, in float32, float64 where x is, and index) [N, Q] for queries x [N, C, Q] and keys y [N or 1, C, K].

    float32 runs as TF32 where ``torch.backends.cuda.matmul.fp32_precision`` says so, as PyTorch's own products do.
    """
    n, c, queries = x.shape
    keys, acc_dtype = y.shape[2], ACC_DTYPE[x.dtype]
    if x.numel() == 0:
        return x.new_empty([n, queries], dtype=acc_dtype), x.new_empty([n, queries], dtype=torch.int64)
    x_scale, y_scale = _scales(x, acc_dtype), _scales(y, acc_dtype)
    exact = x.dtype == torch.float64 or (
        x.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision != "tf32"
    )
    # the interpreter's product of bfloat16 would multiply the bit patterns
    interpreted = x.device.type == "cpu" and triton.knobs.runtime.interpret
    upcast = x.dtype == acc_dtype or (interpreted and x.dtype == torch.bfloat16)
    # without tensor cores, registers limit the size of a block
    widest = (32 if x.dtype == torch.float64 else 64) if exact else 128
    bq, bk = (max(16, min(widest, triton.next_power_of_2(size))) for size in (queries, keys))
    bc = 16 if exact else 128 // (acc_dtype if upcast else x.dtype).itemsize
    query_blocks, blocks = triton.cdiv(queries, bq), triton.cdiv(keys, bk)
    # enough runs of keys for two programs per multiprocessor, as long as each has some steps
    runs = max(1, min(264 // (query_blocks * n), triton.cdiv(blocks, 8)))
    steps = triton.cdiv(blocks, runs)
    runs = triton.cdiv(blocks, steps)
    similarity = x.new_empty([runs, n, queries], dtype=acc_dtype)
    index = x.new_empty([runs, n, queries], dtype=torch.int64)
    shared = y.shape[0] == 1
    with torch.cuda.device_of(x):
        nearest_neighbor_kernel[(query_blocks * n * runs,)](
            x, y, x_scale, y_scale, similarity, index, n, c, queries, keys, *x.stride(),
            0 if shared else y.stride(0), y.stride(1), y.stride(2), 0 if shared else keys, query_blocks, steps,
            INDEX=tl.int64 if max(_reach(x), _reach(y)) >= 2**31 else tl.int32, ACC_DTYPE=TL_DTYPE[acc_dtype],
            UPCAST=upcast, PRECISION="ieee" if exact else "tf32", BQ=bq, BK=bk, BC=bc,
            num_warps=8 if bq * bk == 128 * 128 else 4, num_stages=2 if torch.version.hip else 3, **OPTIONS,
        )  # fmt: skip
    if runs > 1:
        # the first run of the largest similarity has the smallest index
        similarity, run = similarity.max(0, keepdim=True)
        index = index.gather(0, run)
    return torch.where(similarity[0] == torch.inf, torch.nan, similarity[0]), index[0]


def _reach(t: Tensor) -> int:
    """The largest offset of an element of t, plus one."""
    return 1 + sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))
