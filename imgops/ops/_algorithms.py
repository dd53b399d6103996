"""Which backend or algorithm suits a call: all such rules of the ops, each with the C++ that it must agree with.

``tests/ops/test_algorithms.py`` compares the two. Sizes are measured on the CPU; what suits a GPU is told by the
instructions that the kernels issue, until a GPU has measured them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .._epilogue import Epilogue
from ._common import dense_format, known, untraced


class WinogradTile(NamedTuple):
    """Per axis, the products that a tile takes, and the pixels of the lower resolution that it covers."""

    products: int
    pixels: int


#: csrc/cpu/convolution/winograd_axes.h: Plain, Transposed and Strided; the direct sum takes three products per pixel
PLAIN, TRANSPOSED, STRIDED = WinogradTile(6, 4), WinogradTile(5, 2), WinogradTile(5, 2)
#: in batches of fewer tiles oneDNN is faster, unless pixels times input times output channels are so many that its
#: products with the weights are slow
WINOGRAD_TILES, WINOGRAD_PRODUCTS = 16, 2**24
#: networks on a CPU whose layers have at most so many channels are faster channels-last, where oneDNN convolves
CHANNELS_LAST_CHANNELS = 48
#: share of a network's weights that 3 x 3 convolutions must have for it to be faster with planar pictures on a CPU
PLANAR_SHARE = 0.9
#: with fewer channels, of a group or in a weight's gradient, the transforms take longer than the products
WINOGRAD_CHANNELS = 16
#: csrc/cpu/convolution/winograd.h: groups of at most so many channels have a kernel of their own, which is faster than
#: oneDNN from so many pixels on
NARROW_CHANNELS, NARROW_PIXELS = 32, 64
#: groups from which on the gradient of narrow ones has work for every processor
NARROW_GROUPS = 8
#: csrc/cpu/convolution/depthwise_conv2d.cpp: taps along an axis; planes from which on its vectors of planes are full
#: enough to be faster than oneDNN
DEPTHWISE_TAPS, DEPTHWISE_PLANES = (3, 5, 7), 4
#: from so many input channels on, and in batches of at most so many pixels, a product with all pixels and a fold are
#: faster than the transposed convolution of oneDNN
PRODUCT_CHANNELS, PRODUCT_PIXELS = 512, 256
#: csrc/cuda/upfirdn2d.cu, run_four_taps: (up, down); csrc/cuda/upfirdn2d_four_taps.cuh, linear_in_pieces
FOUR_TAPS_FACTORS, LINEAR_IN_PIECES = ((1, 1), (2, 1), (1, 2)), ("linear", "relu", "lrelu")
#: csrc/cuda/filtered_lrelu_tile.cuh, kPhaseTaps; csrc/cuda/filtered_lrelu.cu, fits: (up, down) of the forward pass,
#: which the gradient swaps
PHASE_TAPS, ONE_PASS_FACTORS = 6, ((2, 2), (4, 2))


def fused_conv2d_pays(
    backend: str,
    x: Tensor,
    weight: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    groups: int,
    crop: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> bool:
    """Whether ``fused_conv2d`` takes a convolution of weight [O, I / groups, kh, kw], and is the fastest way.

    ``up`` and ``down`` are (height, width); ``crop`` is what (x0, x1, y0, y1) takes off a transposed convolution.
    """
    if up[0] != up[1] or down[0] != down[1]:
        return False
    if backend == "triton":
        return groups == 1
    # csrc/cpu/convolution/fused_conv2d.cpp: of a transposed convolution the first outputs are alike along both axes
    alike = (crop[0] - crop[2]) % 2 == 0
    return backend == "cpu" and alike and winograd_pays(x, weight, up[0], down[0], groups, crop)


@untraced
def winograd_pays(
    x: Tensor,
    weight: Tensor,
    up: int,
    down: int,
    groups: int = 1,
    crop: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> bool:
    """Whether a convolution suits the CPU kernel of ``fused_conv2d``, which is Winograd's algorithm.

    The kernel has to take it (csrc/cpu/convolution/fused_conv2d.cpp checks the same), and to be as a rule faster than
    oneDNN. Grouped ones that resample were not measured.
    """
    if weight.shape[2:] != (3, 3) or up > 2 or down > 2 or x.dtype not in (torch.float32, torch.float64):
        return False
    n, _, h, w = x.shape
    # sizes at the lower resolution: a transposed convolution reads it, a strided one writes it
    h, w = h // down, w // down
    # tiles reach past the edge of a small image
    tile, sizes = STRIDED if down > 1 else PLAIN, (h, w)
    if up > 1:
        # a transposed convolution has two outputs for each sample, one more, and less what is cropped
        tile, sizes = TRANSPOSED, ((2 * h + 2 - crop[2] - crop[3]) // 2, (2 * w + 2 - crop[0] - crop[1]) // 2)
    rows, columns = ((size + tile.pixels - 1) // tile.pixels for size in sizes)
    products = tile.products**2 * rows * columns
    pixels, inputs, outputs = n * h * w, weight.shape[1], weight.shape[0] // groups
    if groups > 1 and (up > 1 or down > 1 or min(inputs, outputs) < WINOGRAD_CHANNELS):
        return False
    if groups > 1 and max(inputs, outputs) <= NARROW_CHANNELS:
        few = known(pixels < NARROW_PIXELS)
    else:
        few = known(n * rows * columns < WINOGRAD_TILES) and (
            groups > 1 or known(pixels * inputs * outputs < WINOGRAD_PRODUCTS)
        )
    return dense_format(x) == torch.contiguous_format and not (few or known(products > 9 * h * w))


@untraced
def depthwise_pays(backend: str, x: Tensor, weight: Tensor, stride: Sequence[int], groups: int) -> bool:
    """Whether a convolution of each channel by itself suits the CPU kernel of ``depthwise_conv2d``."""
    n, channels, _, _ = x.shape
    _, inputs, kh, kw = weight.shape
    return (
        backend == "cpu"
        and 1 < groups == channels == weight.shape[0]
        and inputs == 1
        and kh == kw
        and kh in DEPTHWISE_TAPS
        and stride[0] == stride[1] <= 2
        and x.dtype in (torch.float32, torch.float64)
        and dense_format(x) == torch.contiguous_format
        and known(n * channels >= DEPTHWISE_PLANES)
    )


def suits_channels_last(x: Tensor, widest: int) -> bool:
    """Whether images are better laid out channels-last in a network whose layers have at most so many channels."""
    return x.device.type == "cpu" and widest <= CHANNELS_LAST_CHANNELS


def winograd_gradient_pays(weight: Tensor, groups: int) -> bool:
    """Whether csrc/cpu/convolution/conv2d_weight_gradient.cpp computes the weight's gradient, given that
    :func:`winograd_pays`."""
    inputs, outputs = weight.shape[1], weight.shape[0] // groups
    # a kernel for narrow groups has a task for each, and few groups leave processors idle
    idle = groups > 1 and max(inputs, outputs) <= NARROW_CHANNELS and groups < NARROW_GROUPS
    return min(inputs, outputs) >= WINOGRAD_CHANNELS and not idle


@untraced
def product_pays(backend: str, x: Tensor, weight: Tensor, up: int) -> bool:
    """Whether the CPU backend's transposed convolution is a product and a fold, which are PyTorch's."""
    n, channels, h, w = x.shape
    return (
        backend == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and dense_format(x) == torch.contiguous_format
        and (up, *weight.shape[2:]) == (2, 3, 3)
        and channels >= PRODUCT_CHANNELS
        and known(n * h * w <= PRODUCT_PIXELS)
    )


@untraced
def pointwise_product_pays(backend: str, x: Tensor, weight: Tensor) -> bool:
    """Whether the CPU backend's 1 x 1 convolution is a product per sample: oneDNN's takes up to 20 times as long where
    channels are few, and as long where they are many."""
    return (
        backend == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and tuple(weight.shape[2:]) == (1, 1)
        and dense_format(x) == torch.contiguous_format
    )


def library_silu_pays(backend: str, x: Tensor, epilogue: Epilogue) -> bool:
    """Whether an epilogue is SiLU alone, of which PyTorch's pass takes two thirds of the time of ours on a CPU: the
    division of ours is not hidden behind memory."""
    alone = epilogue.act == "swish" and epilogue._replace(act="linear", alpha=0.0).is_plain()
    return backend == "cpu" and x.dtype == torch.float32 and alone


def scaled_smaller(x: Tensor, weight: Tensor, gain: float) -> tuple[Tensor, Tensor]:
    """(x, weight) of a product with a factor on the one that has fewer elements; on the weight where that is open."""
    return (x * gain, weight) if _is_smaller(x, weight) else (x, weight * gain)


@untraced
def _is_smaller(x: Tensor, weight: Tensor) -> bool:
    return known(x.numel() < weight.numel())


@untraced
def four_taps_pay(x: Tensor, f: Tensor | None, up: Sequence[int], down: Sequence[int], act: str) -> bool:
    """Whether CUDA C++ resamples better than Triton: planar images by four taps, for which threads share samples."""
    return (
        f is not None
        and f.shape[0] == f.shape[-1] == 4
        and up[0] == up[1]
        and down[0] == down[1]
        and (up[0], down[0]) in FOUR_TAPS_FACTORS
        and act in LINEAR_IN_PIECES
        and x.dtype != torch.float64
        # told by the strides, as torch.func.vmap knows no memory format
        and (x.shape[1] == 1 or x.stride(1) != 1)
    )


@untraced
def one_cuda_pass_pays(x: Tensor, fu: Tensor | None, fd: Tensor | None, up: int, down: int) -> bool:
    """Whether CUDA C++ runs ``filtered_lrelu`` with these filters, and its gradient, in one pass: StyleGAN3's filters.

    With other filters CUDA C++ runs each step by itself, and Triton's one pass is better.
    """
    taps = [() if f is None else tuple(f.shape) for f in (fu, fd)]
    line = PHASE_TAPS * down
    return (
        x.dtype != torch.float64
        and (up, down) in ONE_PASS_FACTORS
        and taps[0] == (PHASE_TAPS * up,)
        and taps[1] in ((line,), (line, line))
    )
