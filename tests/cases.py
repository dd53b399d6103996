"""Shapes that tests and benchmarks share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Resample(NamedTuple):
    """A case of upfirdn2d: the image, the filter ("none", or taps (n,) separable or (h, w)), and the arguments."""

    shape: tuple[int, int, int, int]
    taps: tuple[int, ...] | None
    up: tuple[int, int] = (1, 1)
    down: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    flip_filter: bool = False
    gain: float = 1.0


RESAMPLE = [
    Resample((2, 3, 8, 8), (4,), up=(2, 2), padding=(2, 1, 2, 1), gain=4.0),
    Resample((2, 3, 8, 9), (4, 4), down=(2, 2), padding=(1, 1, 1, 1)),
    Resample((1, 2, 7, 5), (4, 4), padding=(2, 1, 2, 1), flip_filter=True),
    Resample((2, 2, 9, 8), (12,), up=(2, 2), padding=(6, 5, 6, 5), gain=4.0),
    Resample((1, 3, 16, 15), (12,), down=(2, 2), padding=(5, 5, 5, 5)),
    Resample((2, 1, 5, 6), (3, 5), up=(3, 2), down=(2, 3), padding=(2, 3, 1, 4), gain=0.7),
    Resample((1, 2, 10, 11), (2, 3), up=(1, 2), down=(3, 1), padding=(-1, 2, 3, -2)),
    Resample((1, 1, 6, 6), None, up=(2, 3), padding=(1, 0, -1, 2), gain=1.5),
    Resample((1, 2, 6, 5), None, down=(2, 2)),
    Resample((2, 2, 4, 4), (7,), up=(4, 4), padding=(3, 3, 3, 3), flip_filter=True),
    Resample((1, 2, 6, 20), (5, 5), padding=(2, 2, 2, 2)),
    Resample((1, 1, 1, 1), (4,), up=(2, 2), padding=(2, 1, 2, 1)),
]


def resample_filter(taps: tuple[int, ...] | None, rank_one: bool = False, device: str = "cpu") -> Tensor | None:
    """A random filter of the case's size; ``rank_one`` makes a 2-D one the outer product of two others."""
    if taps is None:
        return None
    if rank_one and len(taps) == 2:
        return torch.randn(taps[0], 1, device=device) * torch.randn(1, taps[1], device=device)
    return torch.randn(taps, device=device)


class ModulatedConv(NamedTuple):
    """A case of modulated_conv2d."""

    n: int
    in_channels: int
    out_channels: int
    size: tuple[int, int]
    kernel: int = 3
    up: int = 1
    down: int = 1
    padding: int | tuple[int, ...] = 1
    demodulate: bool = True
    flip_weight: bool = True
    noise: bool = True
    bias: bool = True
    act: str = "lrelu"
    clamp: float | None = None
    filter_taps: tuple[int, ...] | None = (4, 4)


MODULATED_CONV = [
    ModulatedConv(2, 3, 4, (6, 5)),
    ModulatedConv(2, 4, 3, (4, 6), up=2),
    ModulatedConv(1, 3, 5, (8, 6), down=2),
    ModulatedConv(2, 3, 2, (5, 5), kernel=1, padding=0, demodulate=False, noise=False, act="linear"),
    ModulatedConv(1, 2, 3, (5, 4), kernel=1, padding=0, up=2, act="tanh"),
    ModulatedConv(2, 2, 3, (6, 6), kernel=1, padding=0, down=2, bias=False),
    ModulatedConv(1, 3, 2, (5, 6), flip_weight=False, act="swish", clamp=0.7),
    ModulatedConv(1, 2, 2, (4, 4), up=2, flip_weight=False, filter_taps=(8,), noise=False),
    ModulatedConv(1, 2, 2, (6, 5), padding=(1, 0, 2, 1), act="relu"),
    ModulatedConv(1, 2, 3, (4, 5), up=3, filter_taps=(6,), padding=2),
    ModulatedConv(2, 2, 2, (4, 4), up=2, filter_taps=None),
]
