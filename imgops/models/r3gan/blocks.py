"""The parts of both networks of R3GAN: residual blocks of grouped convolutions, and the stages that they make."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...nn import BiasActConv2d, downsample2d, upsample2d
from ...nn._init import set_filter
from ...ops.upfirdn2d import setup_filter

#: slope of leaky ReLU below 0, and the gain that keeps the variance through it
SLOPE = 0.2
GAIN = (2 / (1 + SLOPE**2)) ** 0.5
#: taps of the low-pass filter between stages
TAPS = (1.0, 2.0, 1.0)
#: how much wider a block is inside, and channels in a group of its convolution
EXPANSION, GROUP = 2, 16


@torch.no_grad()
def initialize(layer: nn.Conv2d | nn.Linear, gain: float) -> None:
    """Draw a weight that scales the deviation by ``gain``; 0 makes it 0."""
    fan_in = layer.weight[0].numel()
    nn.init.normal_(layer.weight, std=gain / fan_in**0.5) if gain else nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class ResidualBlock(nn.Module):
    """1 x 1, grouped 3 x 3 and 1 x 1 convolution, the first two with leaky ReLU; added to the input.

    Huang et al. 2024, section 3.2 ("inverted bottleneck"). It begins as the identity, as its last weight is 0, and
    without normalization: the other weights are scaled by the number of blocks (Zhang et al. 2019, "Fixup").

    Args:
        channels: of input and output, >= 1.
        blocks: how many blocks the network has.

    Shapes: x [N, channels, H, W] -> the same.
    """

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks
        inside = channels * EXPANSION
        # of a narrow block one group has all channels
        groups = inside // GROUP if inside % GROUP == 0 else 1
        self.conv1 = BiasActConv2d(channels, inside, 1, act="lrelu")
        self.conv2 = BiasActConv2d(inside, inside, 3, padding=1, groups=groups, act="lrelu")
        self.conv3 = BiasActConv2d(inside, channels, 1, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the weights, for a block that was made on the meta device."""
        for conv, gain in (self.conv1, GAIN), (self.conv2, GAIN):
            initialize(conv, gain * self.blocks**-0.25)
        initialize(self.conv3, 0)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv3(self.conv2(self.conv1(x)))


class Resample(nn.Module):
    """Twice or half as many pixels, and other channels by a 1 x 1 convolution at the lower resolution.

    Args:
        in_channels, out_channels: the convolution is left out where they are the same.
        up: whether it doubles the sides; else it halves them.
    """

    resample_filter: Tensor

    def __init__(self, in_channels: int, out_channels: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = BiasActConv2d(in_channels, out_channels, 1, bias=False) if in_channels != out_channels else None
        self.register_buffer("resample_filter", setup_filter(TAPS))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize, for a layer that was made on the meta device."""
        set_filter(self.resample_filter, TAPS)
        if self.conv is not None:
            initialize(self.conv, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            return upsample2d(x if self.conv is None else self.conv(x), self.resample_filter)
        x = downsample2d(x, self.resample_filter)
        return x if self.conv is None else self.conv(x)
