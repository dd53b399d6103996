"""The convolutional encoder and decoder that autoencoders share."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from ...nn import FusedConv2d
from ...nn._checks import check_size
from ...nn._init import zero
from ...ops._algorithms import suits_channels_last

ACT = "swish"


class ZeroConv2d(FusedConv2d):
    """:class:`imgops.nn.FusedConv2d` that is 0 at first."""

    def reset_parameters(self) -> None:
        """Initialize the layer, for one that was made on the meta device."""
        nn.init.zeros_(self.weight)
        zero(self.bias)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions, the first with swish, added to the input; at first the identity, as the second is 0.

    Shapes: x [N, channels, H, W] -> the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = FusedConv2d(channels, channels, 3, padding=1, act=ACT)
        self.conv2 = ZeroConv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x))


def widths(channels: int, channel_max: int, levels: int) -> list[int]:
    """The channels of each level: twice as many on half as many pixels, up to a limit."""
    return [min(channels * 2**k, channel_max) for k in range(levels + 1)]


class _Layers(nn.Sequential):
    """Layers one after the other, on images that are laid out as suits the widest of them."""

    def __init__(self, widest: int, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.widest = widest

    def forward(self, input: Tensor) -> Tensor:
        last = suits_channels_last(input, self.widest)
        return super().forward(input.contiguous(memory_format=torch.channels_last) if last else input)


class Encoder(_Layers):
    """Pictures to a grid of features: a convolution, then for each level a strided one and residual blocks.

    Args:
        img_channels: of the pictures.
        channels, channel_max: of the first level, and most.
        levels: how often the sides are halved, >= 1.
        blocks: residual blocks of each level, >= 0.

    Shapes: img [N, img_channels, H, W] -> [N, ``out_channels``, H / 2^levels, W / 2^levels].
    """

    def __init__(self, img_channels: int, channels: int, channel_max: int, levels: int, blocks: int) -> None:
        of = widths(channels, channel_max, levels)
        layers: list[nn.Module] = [FusedConv2d(img_channels, of[0], 3, padding=1, act=ACT)]
        for narrow, wide in itertools.pairwise(of):
            layers.append(FusedConv2d(narrow, wide, 4, 2, 1, act=ACT))
            layers += [ResidualBlock(wide) for _ in range(blocks)]
        super().__init__(of[-1], *layers)
        self.out_channels = of[-1]


class Decoder(_Layers):
    """The mirror image of :class:`Encoder`: residual blocks, nearest neighbors twice as fine, and a convolution.

    Shapes: x [N, ``in_channels``, h, w] -> [N, img_channels, h * 2^levels, w * 2^levels].
    """

    def __init__(self, img_channels: int, channels: int, channel_max: int, levels: int, blocks: int) -> None:
        of = widths(channels, channel_max, levels)[::-1]
        layers: list[nn.Module] = []
        for wide, narrow in itertools.pairwise(of):
            layers += [ResidualBlock(wide) for _ in range(blocks)]
            layers += [nn.Upsample(scale_factor=2), FusedConv2d(wide, narrow, 3, padding=1, act=ACT)]
        super().__init__(of[0], *layers, FusedConv2d(of[-1], img_channels, 3, padding=1))
        self.in_channels = of[0]


class LabelEmbedding(nn.Module):
    """A vector for each class, beside other features.

    Args:
        c_dim: size of a label, >= 1.
        size: of the vector.

    Shapes: x [N, K], c [N, c_dim] -> [N, K + size].
    """

    def __init__(self, c_dim: int, size: int) -> None:
        super().__init__()
        self.c_dim, self.size = check_size("LabelEmbedding", "c_dim", c_dim), size
        self.weight = nn.Parameter(torch.empty(c_dim, size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the vectors, for a layer that was made on the meta device."""
        nn.init.normal_(self.weight)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return torch.cat([x, c.to(x.dtype) @ self.weight], 1)
