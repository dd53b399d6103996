"""The convolution of cuDNN or oneDNN, between one fused pass before it and one after it.

The CUDA backend always convolves this way, the CPU backend where :func:`._algorithms.winograd_pays` says no, and all
backends where a convolution is dilated.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .._epilogue import Epilogue
from ._algorithms import library_silu_pays, pointwise_product_pays, product_pays
from ._common import constant_shape, is_transformed
from .bias_act import fused_bias_act
from .upfirdn2d import fused_upfirdn2d_bias_act


def vendor_resampled_conv2d(
    backend: str,
    x: Tensor,
    weight: Tensor,
    styles: Tensor | None,
    epilogue: Epilogue,
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    f: Tensor | None,
) -> Tensor:
    """The convolution of ``modulated_conv2d``; arguments already checked.

    ``weight`` is what ``conv2d`` takes, or ``conv_transpose2d`` with ``up`` > 1 (but for 1 x 1, which never is
    transposed); ``padding`` is on the up-sampled image, so that the filter is centered.
    """
    kh, kw = constant_shape(weight)[2:]
    pointwise = kh == kw == 1
    x0, x1, y0, y1 = padding

    # before the convolution: modulate, in the same pass as padding and filtering
    stride, modulation = down, Epilogue(scale=styles)
    if up == 1 and (down > 1 or x0 != x1 or y0 != y1):
        # a 1x1 convolution reads only the samples that its stride keeps
        kept = (down, down) if pointwise else (1, 1)
        stride = 1 if pointwise else down
        x = fused_upfirdn2d_bias_act(backend, x, f, (1, 1), kept, (x0, x1, y0, y1), 1.0, modulation)
        styles, x0, y0 = None, 0, 0
    if styles is not None:
        x = fused_bias_act(backend, x, modulation)

    if up == 1:
        return vendor_conv2d(backend, x, weight, epilogue, (stride, stride), (y0, x0))

    # after the convolution: the up-sampling filter with the whole epilogue
    gain = float(up**2)
    if pointwise:
        x = vendor_conv2d(backend, x, weight, Epilogue())
        return fused_upfirdn2d_bias_act(backend, x, f, (up, up), (1, 1), (x0, x1, y0, y1), gain, epilogue)
    # the output of the transposed convolution starts kernel - 1 samples earlier
    pads = (x0 - (kw - 1), x1 - (kw - up), y0 - (kh - 1), y1 - (kh - up))
    if product_pays(backend, x, weight, up):
        x = _product_and_fold(x, weight, up)
    else:
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=up)
    return fused_upfirdn2d_bias_act(backend, x, f, (1, 1), (1, 1), pads, gain, epilogue)


def vendor_conv2d(
    backend: str,
    x: Tensor,
    weight: Tensor,
    epilogue: Epilogue,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
) -> Tensor:
    """``F.conv2d``, or its result by a product, plus the residual, and the epilogue; pairs are (height, width)."""
    alone = (stride, padding, dilation, groups) == ((1, 1), (0, 0), (1, 1), 1)
    if alone and pointwise_product_pays(backend, x, weight):
        return _product(backend, x, weight, epilogue, residual, residual_scale)
    return in_passes(
        backend,
        x,
        epilogue,
        lambda b: F.conv2d(x, weight, b, stride, padding, dilation, groups),
        residual,
        residual_scale,
    )


def vendor_conv_transpose2d(
    backend: str,
    x: Tensor,
    weight: Tensor,
    epilogue: Epilogue,
    stride: tuple[int, int],
    padding: tuple[int, int],
    output_padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """``F.conv_transpose2d``, or its result by a product, and the epilogue; pairs are (height, width)."""
    alone = (stride, padding, dilation, groups) == ((1, 1), (0, 0), (1, 1), 1)
    if alone and pointwise_product_pays(backend, x, weight):
        return vendor_conv2d(backend, x, weight.transpose(0, 1), epilogue)
    return in_passes(
        backend,
        x,
        epilogue,
        lambda b: F.conv_transpose2d(x, weight, b, stride, padding, output_padding, groups, dilation),
    )


def in_passes(
    backend: str,
    x: Tensor,
    epilogue: Epilogue,
    convolve: Callable[[Tensor | None], Tensor],
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
) -> Tensor:
    """A convolution of x, the residual, and what is left of the epilogue: ``convolve`` gets the bias where it may."""
    b, rest = epilogue.b, epilogue._replace(b=None)
    silu = library_silu_pays(backend, x, rest)
    if b is not None and b.dtype == x.dtype and (silu or rest.is_plain()):
        # a convolution adds a bias in its own pass
        epilogue = rest
    else:
        b = None
    y = convolve(b)
    if residual is not None:
        y = _add(y, residual, residual_scale)
    if silu and epilogue.b is None:
        return F.silu(y)
    return y if epilogue.is_plain() else fused_bias_act(backend, y, epilogue)


def _product(
    backend: str, x: Tensor, weight: Tensor, epilogue: Epilogue, residual: Tensor | None, residual_scale: float
) -> Tensor:
    """A 1 x 1 convolution as a product per sample, plus the residual, and the epilogue."""
    factors, term = (weight.flatten(1).expand(x.shape[0], -1, -1), x.flatten(2)), residual
    y = torch.bmm(*factors) if term is None else torch.baddbmm(term.flatten(2), *factors, beta=residual_scale)
    b, rest = epilogue.b, epilogue._replace(b=None)
    if b is not None and b.dtype == x.dtype and rest.is_plain():
        # before it is a view: what is changed in place through one, autograd copies
        y, epilogue = _add(y, b[:, None]), rest
    y = y.unflatten(2, x.shape[2:])
    return y if epilogue.is_plain() else fused_bias_act(backend, y, epilogue)


def _add(y: Tensor, term: Tensor, scale: float = 1.0) -> Tensor:
    """y, which is a convolution's, plus the term: in place, as no gradient reads y; under a transform of ``torch.func``
    only the term may be in a batch."""
    return torch.add(y, term, alpha=scale) if is_transformed() else y.add_(term, alpha=scale)


def _product_and_fold(x: Tensor, weight: Tensor, up: int) -> Tensor:
    """The transposed convolution as one product with all pixels of all samples, and a sum of the taps that overlap."""
    (n, i, h, w), (kh, kw) = x.shape, constant_shape(weight)[2:]
    taps = weight.permute(0, 2, 3, 1).reshape(-1, i) @ x.transpose(0, 1).reshape(i, -1)
    columns = taps.unflatten(1, (n, h * w)).transpose(0, 1)
    return F.fold(columns, ((h - 1) * up + kh, (w - 1) * up + kw), (kh, kw), stride=up)
