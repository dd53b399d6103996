"""The network that paints any picture in the one style that it was trained on (Johnson et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ...nn import InstanceNorm2d
from ...nn._checks import check_size, smaller_than
from ...nn.joined import join_alone

#: smallest side in pixels that the reflection padding of the first layer allows
MINIMUM = 5


class TransformNet(nn.Module):
    """Johnson's network with instance normalization: two steps down, residual blocks, two steps up.

    Convolutions have reflection padding; steps up repeat each pixel, then convolve. Its keys are those of the networks
    of fast_neural_style.

    Args:
        widths: channels at full, half and quarter size. Default (32, 64, 128).
        blocks: residual blocks. Default 5.

    Shapes: x [N, 3, H, W], RGB in [0, 1], at least 5 pixels per side -> the same, which may exceed [0, 1] a little.

    Raises:
        TypeError, ValueError: a width or a number of blocks that is no int >= 1, or not three widths; in the forward,
            a picture that is not RGB or is too small.

    >>> TransformNet(widths=(4, 6, 8), blocks=1)(torch.rand(2, 3, 30, 41)).shape
    torch.Size([2, 3, 30, 41])
    """

    def __init__(self, widths: Sequence[int] = (32, 64, 128), blocks: int = 5) -> None:
        super().__init__()
        name = type(self).__name__
        self.widths = tuple(check_size(name, "widths", width) for width in widths)
        if len(self.widths) != 3:
            raise ValueError(f"{name}: widths must be three; got {widths}")
        self.blocks = check_size(name, "blocks", blocks)
        full, half, quarter = self.widths
        self.conv1, self.in1 = ReflectedConv(3, full, 9), InstanceNorm2d(full)
        self.conv2, self.in2 = ReflectedConv(full, half, 3, stride=2), InstanceNorm2d(half)
        self.conv3, self.in3 = ReflectedConv(half, quarter, 3, stride=2), InstanceNorm2d(quarter)
        for i in range(1, blocks + 1):
            self.add_module(f"res{i}", Residual(quarter))
        self.deconv1, self.in4 = ReflectedConv(quarter, half, 3, up=2), InstanceNorm2d(half)
        self.deconv2, self.in5 = ReflectedConv(half, full, 3, up=2), InstanceNorm2d(full)
        self.deconv3 = ReflectedConv(full, 3, 9)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != 3 or smaller_than(x, MINIMUM):
            raise ValueError(
                f"TransformNet: x must be RGB [N, 3, H, W] of at least {MINIMUM} x {MINIMUM} pixels; "
                f"got {tuple(x.shape)}"
            )
        h, w = x.shape[2:]
        y = F.relu(self.in1(self.conv1(255 * x)))
        y = F.relu(self.in2(self.conv2(y)))
        y = F.relu(self.in3(self.conv3(y)))
        for i in range(1, self.blocks + 1):
            y = self.get_submodule(f"res{i}")(y)
        y = F.relu(self.in4(self.deconv1(y)))
        y = F.relu(self.in5(self.deconv2(y)))
        # on the way down an odd size was rounded up, so the result is cropped
        return self.deconv3(y)[..., :h, :w] / 255


class ReflectedConv(nn.Module):
    """A convolution with reflection padding, before which every pixel is repeated ``up`` times along both axes.

    Shapes: x [N, in_channels, H, W] -> [N, out_channels, ceil(up * H / stride), ceil(up * W / stride)].
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, up: int = 1) -> None:
        super().__init__()
        self.up = up
        pad = kernel_size // 2
        self.conv2d = join_alone(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=pad, padding_mode="reflect")
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.up > 1:
            x = F.interpolate(x, scale_factor=float(self.up), mode="nearest")
        y: Tensor = self.conv2d(x)
        return y


class Residual(nn.Module):
    """x plus two convolutions of it, with no ReLU after the sum (Gross and Wilber 2016).

    Shapes: x [N, channels, H, W], at least 2 x 2 pixels -> the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.in1 = ReflectedConv(channels, channels, 3), InstanceNorm2d(channels)
        self.conv2, self.in2 = ReflectedConv(channels, channels, 3), InstanceNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.in2(self.conv2(F.relu(self.in1(self.conv1(x)))))
        return y
