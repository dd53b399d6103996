"""The problems on which the GPU harness checks the backends: of each op the shapes, the operands and the call."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

import imgops
from imgops._epilogue import Epilogue
from imgops.ops.bias_act import activation_arguments, fused_bias_act
from imgops.reference.bias_act import ACTIVATIONS
from imgops.reference.grid_sample import PADDING_MODES
from tests.cases import MODULATED_CONV, RESAMPLE, ModulatedConv, Resample, resample_filter

Shape = tuple[int, ...]
#: the inputs, the image first, and the op as a function of a backend's name and of them
Made = tuple[list[Tensor], Callable[..., Tensor]]


class Problem(NamedTuple):
    """One problem of an op.

    ``make`` takes a device, the dtype of images and that of all else. ``deterministic``: whether PyTorch is to be so.
    """

    op: str
    name: str
    make: Callable[[str, torch.dtype, torch.dtype], Made]
    deterministic: bool = True


def _image(shape: Shape, device: str, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, device=device).to(dtype)


def _bias_act(shape: Shape, act: str, modulated: bool, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> Made:
    activation = activation_arguments("bias_act", act, None, 1.3, 0.8 if modulated else None)
    sizes = [shape[1:2], *([shape[:2], (shape[0], 1, *shape[2:])] if modulated else [])]

    def call(backend: str, x: Tensor, b: Tensor, scale: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        return fused_bias_act(backend, x, Epilogue(b, scale, noise, *activation))

    return [_image(shape, device, dtype), *(torch.randn(size, device=device, dtype=acc_dtype) for size in sizes)], call


def _upfirdn2d(case: Resample, rank_one: bool, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> Made:
    f = resample_filter(case.taps, rank_one, device)

    def call(backend: str, x: Tensor) -> Tensor:
        return imgops.upfirdn2d(x, f, case.up, case.down, case.padding, case.flip_filter, case.gain, impl=backend)

    return [_image(case.shape, device, dtype)], call


def _modulated_conv2d(case: ModulatedConv, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> Made:
    if dtype.itemsize == 2:
        # sums round to half precision here and there: across a kink, where the slope jumps, and in the gradient of few
        # styles, which demodulation makes nearly cancel
        act = "swish" if case.act in ("relu", "lrelu") else case.act
        case = case._replace(act=act, clamp=None, in_channels=case.in_channels + 13)
    f = resample_filter(case.filter_taps, True, device)
    # as large as a low-pass filter, for the range of float16
    f = None if f is None else f / f.abs().sum()
    x = _image((case.n, case.in_channels, *case.size), device, dtype)
    kernel = case.out_channels, case.in_channels, case.kernel, case.kernel
    operands = {
        "weight": torch.randn(kernel, device=device, dtype=acc_dtype),
        "styles": torch.randn(case.n, case.in_channels, device=device, dtype=acc_dtype) + 1,
    }
    if case.bias:
        operands["bias"] = torch.randn(case.out_channels, device=device, dtype=acc_dtype)

    def call(backend: str, x: Tensor, *tensors: Tensor) -> Tensor:
        named: dict[str, Any] = dict(zip(operands, tensors, strict=True))
        return imgops.modulated_conv2d(
            x,
            **named,
            act=case.act,
            clamp=case.clamp,
            up=case.up,
            down=case.down,
            padding=case.padding,
            resample_filter=f,
            demodulate=case.demodulate,
            flip_weight=case.flip_weight,
            impl=backend,
        )

    if case.noise:
        size = call("reference", x.to(acc_dtype), *operands.values()).shape[2:]
        operands["noise"] = torch.randn(case.n, 1, *size, device=device, dtype=acc_dtype)
    return [x, *operands.values()], call


class Filtered(NamedTuple):
    """A case of filtered_lrelu."""

    shape: Shape
    taps: tuple[Shape, Shape]
    up: int
    down: int
    padding: tuple[int, int, int, int]


FILTERED = [
    Filtered((2, 3, 9, 8), ((12,), (12,)), 2, 2, (11, 10, 10, 11)),
    Filtered((1, 2, 6, 7), ((24,), (12,)), 4, 2, (24, 20, 25, 22)),
    Filtered((1, 3, 7, 6), ((12,), (4, 5)), 2, 4, (9, 8, 7, 12)),
    Filtered((2, 3, 8, 5), ((3, 2), (5,)), 3, 1, (-2, 3, 4, -1)),
    Filtered((2, 20, 41, 37), ((12,), (12,)), 2, 2, (11, 10, 10, 11)),
    Filtered((1, 20, 40, 36), ((12,), (12, 12)), 2, 2, (10, 11, 12, 9)),
    Filtered((2, 9, 21, 19), ((24,), (12,)), 4, 2, (23, 21, 22, 20)),
    Filtered((1, 3, 18, 17), ((24,), (12, 12)), 4, 2, (22, 20, 24, 23)),
]


def _filtered_lrelu(
    case: Filtered, clamp: float | None, device: str, dtype: torch.dtype, acc_dtype: torch.dtype
) -> Made:
    filters = [resample_filter(taps, False, device) for taps in case.taps]
    # of the size of low-pass filters, so that the image keeps its magnitude
    fu, fd = (f / (2 * f.numel() ** (0.5 if f.ndim == 2 else 1)) for f in filters if f is not None)

    def call(backend: str, x: Tensor, b: Tensor) -> Tensor:
        return imgops.filtered_lrelu(
            x, fu, fd, b, case.up, case.down, case.padding, gain=1.3, clamp=clamp, impl=backend
        )

    return [_image(case.shape, device, dtype), torch.randn(case.shape[1], device=device, dtype=acc_dtype)], call


def _adain(shape: Shape, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> Made:
    style = _image((*shape[:2], 6, 7), device, dtype) * 2 + 1
    return [_image(shape, device, dtype), style], lambda backend, x, style: imgops.adain(x, style, impl=backend)


def _adaptive_instance_norm(shape: Shape, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> Made:
    def call(backend: str, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return imgops.adaptive_instance_norm(x, scale, bias, impl=backend)

    of_planes = (torch.randn(shape[:2], device=device, dtype=acc_dtype) for _ in range(2))
    return [_image(shape, device, dtype), *of_planes], call


def _gram_matrix(shape: Shape, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> Made:
    return [_image(shape, device, dtype)], lambda backend, x: imgops.gram_matrix(x, normalization="hw", impl=backend)


def _feature_statistics(shape: Shape, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> Made:
    def call(backend: str, x: Tensor) -> Tensor:
        mean, covariance = imgops.feature_statistics(x, impl=backend)
        return torch.cat([mean[:, None], covariance], 1)

    return [_image(shape, device, dtype)], call


def _style_loss(shape: Shape, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> Made:
    def call(backend: str, x: Tensor, target: Tensor) -> Tensor:
        # summed: the gradient of a mean would be too small for float16
        return imgops.style_loss(x, target, normalization="hw", reduction="sum", impl=backend)

    # not symmetric, so that both halves of its gradient show
    target = torch.randn(shape[0], shape[1], shape[1], device=device, dtype=acc_dtype)
    return [_image(shape, device, dtype), target], call


def _wasserstein_loss(shape: Shape, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> Made:
    n, c = shape[:2]

    def call(backend: str, x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
        return imgops.wasserstein_loss(x, mean, covariance, eps=0.1, impl=backend)

    root = torch.randn(n, c, c, device=device, dtype=acc_dtype)
    covariance = root @ root.mT / c + torch.eye(c, device=device, dtype=acc_dtype)
    return [_image(shape, device, dtype), torch.randn(n, c, device=device, dtype=acc_dtype), covariance], call


def _off_centre(size: Shape, most: int, device: str, dtype: torch.dtype) -> Tensor:
    """Random numbers in [-most, most + 1] near no whole one, where the slope of bilinear samples jumps."""
    return torch.randint(-most, most + 1, size, device=device).to(dtype) + 0.1 + 0.8 * torch.rand(size, device=device)


def _grid_sample(shape: Shape, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> Made:
    n, _, h, w = shape
    pixels = (_off_centre((n, h + 1, w), side + 2, device, acc_dtype) for side in (w, h))
    grid = torch.stack([(2 * at + 1) / side - 1 for at, side in zip(pixels, (w, h), strict=True)], -1)
    return [_image(shape, device, dtype), grid], lambda backend, x, grid: imgops.grid_sample(x, grid, impl=backend)


def _displace(shape: Shape, mode: str, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> Made:
    n, _, h, w = shape

    def call(backend: str, x: Tensor, displacement: Tensor) -> Tensor:
        return imgops.displace(x, displacement, padding_mode=mode, impl=backend)

    return [_image(shape, device, dtype), _off_centre((n, 2, h, w), 2 * max(h, w), device, acc_dtype)], call


#: more than a tile of the kernels, and planes enough for several in a block
LARGE = [
    RESAMPLE[0]._replace(shape=(2, 16, 70, 75), taps=(4, 4)),
    RESAMPLE[1]._replace(shape=(2, 16, 133, 70)),
    RESAMPLE[2]._replace(shape=(2, 16, 67, 129)),
    RESAMPLE[1]._replace(shape=(40, 3, 4, 4)),
]
PLANES = [(2, 3, 5, 7), (3, 16, 9, 9), (2, 40, 16, 16)]
#: of one block, and of several
NORMALISED = [*PLANES, (2, 8, 72, 65), (1, 5, 260, 251)]
FEATURES = [(2, 3, 5, 7), (1, 70, 9, 11), (3, 16, 33, 31)]
SAMPLED = [(2, 3, 9, 6), (2, 37, 6, 9)]


def problems(dry: bool) -> Iterator[Problem]:
    """All problems, an op after the other; dry, one shape of each."""
    most = 1 if dry else None
    for shape, act, modulated in itertools.product(PLANES[:most], ACTIVATIONS, (False, True)):
        name = f"{shape}/{act}{' modulated' if modulated else ''}"
        yield Problem("bias_act", name, partial(_bias_act, shape, act, modulated))
    for i, case in enumerate([*RESAMPLE, *LARGE][:most]):
        yield Problem("upfirdn2d", f"{i} {case.shape}", partial(_upfirdn2d, case, False))
        if case.taps is not None and len(case.taps) == 2:
            yield Problem("upfirdn2d", f"{i} {case.shape}/rank one", partial(_upfirdn2d, case, True))
    for i, layer in enumerate(MODULATED_CONV[:most]):
        name = f"{i} {layer.in_channels} to {layer.out_channels} of {layer.size}, {layer.kernel}x{layer.kernel}"
        yield Problem("modulated_conv2d", f"{name} up {layer.up} down {layer.down}", partial(_modulated_conv2d, layer))
    for filtered, clamp in itertools.product(FILTERED[:most], (None, 0.5)):
        name = f"{filtered.shape}/up {filtered.up} down {filtered.down}{'' if clamp is None else ' clamped'}"
        yield Problem("filtered_lrelu", name, partial(_filtered_lrelu, filtered, clamp))
    # a pixel's gradients are added in one order, or in any
    for shape, deterministic in itertools.product(SAMPLED[:most], (True, False)):
        name = str(shape) if deterministic else f"{shape}/atomic"
        yield Problem("grid_sample", name, partial(_grid_sample, shape), deterministic)
        for mode in PADDING_MODES:
            yield Problem("displace", f"{name}/{mode}", partial(_displace, shape, mode), deterministic)
    for shape in NORMALISED[:most]:
        yield Problem("adain", str(shape), partial(_adain, shape))
        yield Problem("adaptive_instance_norm", str(shape), partial(_adaptive_instance_norm, shape))
    for shape in FEATURES[:most]:
        yield Problem("feature_statistics", str(shape), partial(_feature_statistics, shape))
        yield Problem("gram_matrix", str(shape), partial(_gram_matrix, shape))
        yield Problem("style_loss", str(shape), partial(_style_loss, shape))
        yield Problem("wasserstein_loss", str(shape), partial(_wasserstein_loss, shape))
