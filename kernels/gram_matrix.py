"""Products of channels over the pixels of an image, and of a matrix with its channels, on tensor cores.

    g[n, i, j] = scale * sum over p of (x[n, i, p] - mean[n, i]) * (x[n, j, p] - mean[n, j])
    y[n, o, p] = sum over i of weight[n, o, i] * (x[n, i, p] - mean[n, i]) + bias[n, o]

The Gram matrix g has one program per block on or below the diagonal, which is mirrored when it is stored. Where there
are few blocks, the pixels are divided into runs with one program each, and the sums of the runs are added up in a fixed
order. Half precision is multiplied as it is, exactly. With a mean subtracted, or with a weight, it is multiplied as
TF32, which holds all its digits and the range of float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._common import ACC_DTYPE, OPTIONS, TL_DTYPE, dense_format


@triton.jit
def gram_matrix_kernel(
    p_x,
    p_mean,  # [N, C], or None
    p_g,  # [splits, N, C, C]
    samples, channels, pixels,
    x_n, x_c, x_p,
    scale, tiles, steps,  # steps of BK pixels in a run
    INDEX: tl.constexpr, ACC_DTYPE: tl.constexpr,
    UPCAST: tl.constexpr,  # multiply in the accumulation dtype
    PRECISION: tl.constexpr, B: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    tile = pid % tiles
    n = (pid // tiles % samples).to(INDEX)
    split = (pid // tiles // samples).to(INDEX)
    # tiles are numbered along the rows of the lower triangle; rounding may put the root off by one
    i = ((tl.sqrt(8.0 * tile + 1) - 1) / 2).to(tl.int32)
    i = tl.where(i * (i + 1) // 2 > tile, i - 1, i)
    i = tl.where((i + 1) * (i + 2) // 2 <= tile, i + 1, i)
    j = tile - i * (i + 1) // 2

    row = i * B + tl.arange(0, B)[:, None]  # [B, 1]
    col = j * B + tl.arange(0, B)[None, :]  # [1, B]
    m_row = row < channels
    m_col = col < channels
    p_rows = p_x + n * x_n + row.to(INDEX) * x_c
    p_cols = p_x + n * x_n + col.to(INDEX) * x_c
    k = tl.arange(0, BK)
    acc = tl.zeros((B, B), ACC_DTYPE)
    for step in range(steps):
        pixel = (split * steps + step) * BK + k
        m_k = pixel < pixels
        b_rows = tl.load(p_rows + (pixel.to(INDEX) * x_p)[None, :], m_row & m_k[None, :], other=0)  # [B, BK]
        b_cols = tl.load(p_cols + (pixel.to(INDEX) * x_p)[:, None], m_col & m_k[:, None], other=0)  # [BK, B]
        if UPCAST:
            b_rows = b_rows.to(ACC_DTYPE)
            b_cols = b_cols.to(ACC_DTYPE)
        if p_mean is not None:
            # pixels past the end stay zero
            rows_mean = tl.load(p_mean + n * channels + row, m_row, other=0)
            cols_mean = tl.load(p_mean + n * channels + col, m_col, other=0)
            b_rows = tl.where(m_k[None, :], b_rows - rows_mean, 0)
            b_cols = tl.where(m_k[:, None], b_cols - cols_mean, 0)
        acc = tl.dot(b_rows, b_cols, acc, input_precision=PRECISION, out_dtype=ACC_DTYPE)

    acc = acc * tl.full((), scale, ACC_DTYPE)
    p_out = p_g + (split * samples + n) * channels * channels
    m_out = m_row & m_col & (row >= col)
    tl.store(p_out + row.to(INDEX) * channels + col, acc, m_out)
    tl.store(p_out + col.to(INDEX) * channels + row, acc, m_out)


@triton.jit
def mix_channels_kernel(
    p_x,
    p_weight,
    p_mean,  # [N, C], or None
    p_bias,  # [N, C], or None
    p_y,
    samples, channels, pixels,
    x_n, x_c, x_p,
    w_n, w_o, w_i,
    o_blocks,
    INDEX: tl.constexpr, ACC_DTYPE: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    # neighboring programs read the same pixels
    o = pid % o_blocks * BN + tl.arange(0, BN)[None, :]  # [1, BN]
    n = (pid // o_blocks % samples).to(INDEX)
    pixel = (pid // o_blocks // samples).to(INDEX) * BM + tl.arange(0, BM)[:, None]  # [BM, 1]
    m_p = pixel < pixels
    m_o = o < channels
    k = tl.arange(0, BK)
    p_pixels = p_x + n * x_n + pixel * x_p
    p_filter = p_weight + n * w_n + o.to(INDEX) * w_o
    acc = tl.zeros((BM, BN), ACC_DTYPE)
    for step in range(tl.cdiv(channels, BK)):
        i = step * BK + k
        m_i = i < channels
        b_x = tl.load(p_pixels + (i.to(INDEX) * x_c)[None, :], m_p & m_i[None, :], other=0).to(ACC_DTYPE)  # [BM, BK]
        b_w = tl.load(p_filter + (i.to(INDEX) * w_i)[:, None], m_o & m_i[:, None], other=0)  # [BK, BN]
        if p_mean is not None:
            b_x = b_x - tl.load(p_mean + n * channels + i, m_i, other=0)[None, :]
        acc = tl.dot(b_x, b_w, acc, input_precision=PRECISION, out_dtype=ACC_DTYPE)
    if p_bias is not None:
        acc += tl.load(p_bias + n * channels + o, m_o, other=0)
    tl.store(p_y + n * x_n + pixel * x_p + o.to(INDEX) * x_c, acc.to(p_y.dtype.element_ty), m_p & m_o)


def _precision(dtype: torch.dtype) -> str:
    """How operands of the accumulation dtype multiply: float32 as PyTorch's products do, half precision as TF32."""
    if dtype == torch.float64:
        return "ieee"
    if dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision != "tf32":
        return "ieee"
    return "tf32"


def _fit(size: int, widest: int) -> int:
    return max(16, min(widest, triton.next_power_of_2(size)))


def _flat(x: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    """x with dense memory, and its strides along samples, channels and pixels."""
    x = x.contiguous(memory_format=dense_format(x))
    channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
    last = dense_format(x) == torch.channels_last
    return x, (channels * pixels, 1, channels) if last else (channels * pixels, pixels, 1)


def gram_matrix(x: Tensor, normalization: str) -> Tensor:
    """``x x^T`` over the pixels of x [N, C, H, W], [N, C, C] in float32 (float64 where x is), exactly symmetric.

    ``normalization``, "chw", "hw", "nchw" or "none", names the sizes of x that it is divided by.
    """
    n, c, h, w = x.shape
    sizes = {"chw": c * h * w, "hw": h * w, "nchw": n * c * h * w, "none": 1}
    # an image without features has a sum of nothing, and must not divide by 0
    return _products(x, None, 1 / max(1, sizes[normalization]))


def feature_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """(mean [N, C], biased covariance [N, C, C]) over the pixels of x [N, C, H, W], in float32 (float64 where x is)."""
    mean = x.mean([2, 3], dtype=ACC_DTYPE[x.dtype])
    return mean, _products(x, mean, 1 / (x.shape[2] * x.shape[3]))


def _products(x: Tensor, mean: Tensor | None, scale: float) -> Tensor:
    """g of the module, [N, C, C] in float32 (float64 where x is), exactly symmetric.

    Shapes: x [N, C, H, W]; mean [N, C] in the dtype of the result, or None.

    float32 runs as TF32 where ``torch.backends.cuda.matmul.fp32_precision`` says so, as PyTorch's own products do.
    """
    n, c, pixels = *x.shape[:2], x.shape[2] * x.shape[3]
    acc_dtype = ACC_DTYPE[x.dtype]
    if x.numel() == 0:
        return x.new_zeros([n, c, c], dtype=acc_dtype)
    x, strides = _flat(x)
    mean = None if mean is None else mean.contiguous()
    # the interpreter's product of bfloat16 would multiply the bit patterns
    interpreted = x.device.type == "cpu" and triton.knobs.runtime.interpret
    upcast = mean is not None or (interpreted and x.dtype == torch.bfloat16)
    precision = _precision(x.dtype)
    exact = precision == "ieee"
    # without tensor cores, registers limit the size of a block
    widest = (32 if x.dtype == torch.float64 else 64) if exact else 128
    # half of a single block would be wasted, as it is symmetric
    block = _fit(c, widest if c > widest else widest // 2)
    bk = _fit(pixels, 16 if exact else 128 // (acc_dtype if upcast else x.dtype).itemsize)
    blocks = triton.cdiv(c, block)
    tiles = blocks * (blocks + 1) // 2
    # enough runs of pixels for two programs per multiprocessor, as long as each has some steps
    splits = max(1, min(264 // (tiles * n), triton.cdiv(pixels, 16 * bk)))
    steps = triton.cdiv(triton.cdiv(pixels, bk), splits)
    splits = triton.cdiv(pixels, steps * bk)
    g = x.new_empty([splits, n, c, c], dtype=acc_dtype)
    large = max(x.numel(), g.numel()) >= 2**31
    with torch.cuda.device_of(x):
        gram_matrix_kernel[(tiles * n * splits,)](
            x, mean, g, n, c, pixels, *strides, scale, tiles, steps,
            INDEX=tl.int64 if large else tl.int32, ACC_DTYPE=TL_DTYPE[acc_dtype], UPCAST=upcast, PRECISION=precision,
            B=block, BK=bk, num_warps=8 if block == 128 else 4, num_stages=2 if torch.version.hip else 3, **OPTIONS,
        )  # fmt: skip
    return g[0] if splits == 1 else g.sum(0)


def mix_channels(x: Tensor, weight: Tensor, mean: Tensor | None, bias: Tensor | None) -> Tensor:
    """y of the module, in x's shape and dtype, channels-last where x is.

    Shapes: x [N, C, H, W]; weight [N, C, C], mean and bias [N, C], in float32 (float64 where x is). mean and bias
    may be None.

    float32 runs as TF32 where ``torch.backends.cuda.matmul.fp32_precision`` says so, as PyTorch's own products do.
    """
    n, c, pixels = *x.shape[:2], x.shape[2] * x.shape[3]
    x, strides = _flat(x)
    y = torch.empty_like(x)
    if y.numel() == 0:
        return y
    mean, bias = (None if t is None else t.contiguous() for t in (mean, bias))
    precision = _precision(x.dtype)
    exact = precision == "ieee"
    widest = (32 if x.dtype == torch.float64 else 64) if exact else 128
    bm, bn, bk = _fit(pixels, widest), _fit(c, min(widest, 64)), _fit(c, 16 if exact else 32)
    o_blocks = triton.cdiv(c, bn)
    with torch.cuda.device_of(x):
        mix_channels_kernel[(o_blocks * n * triton.cdiv(pixels, bm),)](
            x, weight, mean, bias, y, n, c, pixels, *strides, *weight.stride(), o_blocks,
            INDEX=tl.int64 if max(x.numel(), n * weight[0].numel()) >= 2**31 else tl.int32,
            ACC_DTYPE=TL_DTYPE[ACC_DTYPE[x.dtype]], PRECISION=precision,
            BM=bm, BN=bn, BK=bk, num_warps=4, num_stages=2 if torch.version.hip else 3, **OPTIONS,
        )  # fmt: skip
    return y
