"""Normalization of a gradient before a step."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops.upfirdn2d import setup_filter, transposed_padding, upfirdn2d

#: the filter of the pyramid, along each axis (Burt and Adelson 1983), and the number of levels split off
TAPS, LEVELS = (1.0, 4.0, 6.0, 4.0, 1.0), 4
#: the least magnitude that a gradient is divided by
LEAST = 1e-10


def normalized(gradient: Tensor, kind: str) -> Tensor:
    """A gradient [1, 3, H, W] divided by its magnitude.

    Args:
        gradient: of the objective for a picture.
        kind: "mean", of absolute values; "std", the standard deviation; "laplacian", see
            :func:`laplacian_normalized`; "none" multiplies by the number of values, so that the result does not
            depend on the picture's size.
    """
    if kind == "mean":
        return gradient / gradient.abs().mean().clamp(min=LEAST)
    if kind == "std":
        return gradient / gradient.std().clamp(min=LEAST)
    if kind == "laplacian":
        return laplacian_normalized(gradient)
    return gradient * gradient.numel()


def laplacian_normalized(gradient: Tensor, levels: int = LEVELS) -> Tensor:
    """Each level of the Laplacian pyramid divided by its root mean square, and the pyramid put together again.

    A level is the difference between an image and its reduction by the 5 x 5 binomial filter and every second pixel;
    the last reduction is divided likewise. All scales of a gradient then count alike, where otherwise the finest would
    prevail (Mordvintsev 2016, the notebook of TensorFlow).

    Args:
        gradient: [N, C, H, W]; beyond its edges are zeros.
        levels: levels that are split off. Default 4.

    Returns:
        [N, C, H, W].
    """
    f = setup_filter(TAPS, separable=False, device=gradient.device)
    bands, low = [], gradient
    for _ in range(levels):
        lower = upfirdn2d(low, f, down=2, padding=2)
        bands.append(low - _expanded(lower, f, low.shape))
        low = lower
    result = _unit(low)
    for band in reversed(bands):
        result = _expanded(result, f, band.shape) + _unit(band)
    return result


def _expanded(low: Tensor, f: Tensor, shape: torch.Size) -> Tensor:
    """A level at the size of the one before it: the transpose of the reduction, which keeps means except at edges."""
    padding = transposed_padding(shape[2:], low.shape[2:], f, (1, 1), (2, 2), (2, 2, 2, 2))
    return upfirdn2d(low, f, up=2, padding=padding, gain=4.0)


def _unit(x: Tensor) -> Tensor:
    return x / x.square().mean().sqrt().clamp(min=LEAST)
