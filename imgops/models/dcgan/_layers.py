"""What both networks of DCGAN share: sizes, and layers with the initialization of the paper."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..._settings import Resolution
from ...nn._checks import check_size
from ...nn._init import zero
from .._common import halved

KERNELS = (4, 5)


class Sizes(NamedTuple):
    """The start [height, width], and the channels of each level, the smallest picture first."""

    start: tuple[int, int]
    channels: list[int]


def sizes_of(owner: str, img_resolution: Resolution, channels: int, channel_max: int) -> Sizes:
    """The levels of pictures, which halve together while the shorter side stays at 4 or more.

    Raises:
        TypeError, ValueError: sizes that are no ints in range, pictures that do not halve once.
    """
    channels, channel_max = check_size(owner, "channels", channels), check_size(owner, "channel_max", channel_max)
    height, width, levels = halved(owner, img_resolution)
    return Sizes((height, width), [min(channels * 2**k, channel_max) for k in reversed(range(levels))])


def check_kernel(owner: str, kernel_size: int) -> int:
    """A kernel that doubles or halves pictures."""
    if check_size(owner, "kernel_size", kernel_size) not in KERNELS:
        raise ValueError(f"{owner}: kernel_size must be 4 or 5; got {kernel_size}")
    return kernel_size


class _Convolution(nn.Module):
    """Radford et al. 2015: weights of deviation 0.02."""

    weight: Tensor
    bias: Tensor | None

    def reset_parameters(self) -> None:
        """Initialize the layer, for one that was made on the meta device."""
        nn.init.normal_(self.weight, std=0.02)
        zero(self.bias)


class Conv2d(_Convolution, nn.Conv2d):
    """``torch.nn.Conv2d`` with the paper's initialization."""


class ConvTranspose2d(_Convolution, nn.ConvTranspose2d):
    """``torch.nn.ConvTranspose2d`` with the paper's initialization."""


class BatchNorm2d(nn.BatchNorm2d):
    """``torch.nn.BatchNorm2d`` with scales about 1 (as in PyTorch's example)."""

    def reset_parameters(self) -> None:
        """Initialize the layer, for one that was made on the meta device."""
        super().reset_parameters()
        nn.init.normal_(self.weight, 1.0, 0.02)


class Embedding(nn.Linear):
    """A label's vector, as large as z: a smaller one is not seen beside it."""

    def reset_parameters(self) -> None:
        """Initialize the layer, for one that was made on the meta device."""
        nn.init.normal_(self.weight)


def widened(z: Tensor, c: Tensor | None, embed: nn.Linear | None) -> Tensor:
    """z with the embedded label beside it."""
    return z if embed is None or c is None else torch.cat([z, embed(c.to(z.dtype))], 1)
