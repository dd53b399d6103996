"""The parts of both networks of R3GAN: residual blocks of grouped convolutions, and the stages that they make."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ...nn import FusedConv2d, downsample2d, upsample2d
from ...nn._init import set_filter, zero
from ...ops.upfirdn2d import setup_filter

#: slope of leaky ReLU below 0, and the gain that keeps the variance through it
SLOPE = 0.2
GAIN = (2 / (1 + SLOPE**2)) ** 0.5
#: taps of the low-pass filter between stages
TAPS = (1.0, 2.0, 1.0)
#: how much wider a block is inside, and channels in a group of its convolution
EXPANSION, GROUP = 2, 16


class Scaled(nn.Module):
    """A convolution or linear layer whose first weight scales the deviation by ``scale``; 0 makes the weight 0."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, *sizes: int, scale: float = 1.0, **more: Any) -> None:
        # a layer initializes itself as soon as it is built
        self.scale = scale
        super().__init__(*sizes, **more)

    def reset_parameters(self) -> None:
        """Initialize the layer, for one that was made on the meta device."""
        nn.init.normal_(self.weight, std=self.scale / self.weight[0].numel() ** 0.5)
        zero(self.bias)


class ScaledConv2d(Scaled, FusedConv2d):
    """:class:`imgops.nn.FusedConv2d`, initialized by :class:`Scaled`."""


class ScaledLinear(Scaled, nn.Linear):  # type: ignore[misc]
    """``torch.nn.Linear``, initialized by :class:`Scaled`."""


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
        inside = channels * EXPANSION
        # of a narrow block one group has all channels
        groups = inside // GROUP if inside % GROUP == 0 else 1
        scale = GAIN * blocks**-0.25
        self.conv1 = ScaledConv2d(channels, inside, 1, act="lrelu", scale=scale)
        self.conv2 = ScaledConv2d(inside, inside, 3, padding=1, groups=groups, act="lrelu", scale=scale)
        self.conv3 = ScaledConv2d(inside, channels, 1, bias=False, scale=0)

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
        self.conv = ScaledConv2d(in_channels, out_channels, 1, bias=False) if in_channels != out_channels else None
        self.register_buffer("resample_filter", setup_filter(TAPS))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Write the filter, for a layer that was made on the meta device."""
        set_filter(self.resample_filter, TAPS)

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            return upsample2d(x if self.conv is None else self.conv(x), self.resample_filter)
        x = downsample2d(x, self.resample_filter)
        return x if self.conv is None else self.conv(x)
