"""What both networks of DCGAN share: sizes, and the initialization of the paper."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..._settings import Resolution
from ...nn._checks import check_size
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


def initialize(network: nn.Module) -> None:
    """Radford et al. 2015: weights of deviation 0.02, scales of batch norm about 1 (as in PyTorch's example).

    Embedded labels are as large as z, since smaller ones are not seen beside it.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight)
        elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)


def widened(z: Tensor, c: Tensor | None, embed: nn.Linear | None) -> Tensor:
    """z with the embedded label beside it."""
    return z if embed is None or c is None else torch.cat([z, embed(c.to(z.dtype))], 1)
