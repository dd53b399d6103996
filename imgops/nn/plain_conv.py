"""Convolution with PyTorch's parameters, whose bias and activation run in one pass."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.bias_act import bias_act
from ..ops.modulated_conv2d import autocast_off, resampled_conv2d
from ._checks import activation_gain, check_size


class BiasActConv2d(nn.Conv2d):
    """``gain * act(conv2d(x, weight) + bias)``, with the parameters of ``torch.nn.Conv2d`` and their initialization.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, groups, bias, device, dtype: as of
            ``torch.nn.Conv2d``; sizes are single numbers.
        act: activation, as in :func:`imgops.bias_act`. Default "linear".
        gain: factor after the activation; None: the activation's default. Default 1.

    Shapes: x [N, in_channels, H, W] -> [N, out_channels, H', W'] in x's dtype (under autocast in autocast's), to which
    the weight is cast.

    Raises:
        TypeError, ValueError: a size that is no int in range, an unknown act; in the forward, what conv2d and
            bias_act raise.

    >>> BiasActConv2d(16, 32, 3, padding=1, groups=4, act="lrelu")(torch.randn(2, 16, 8, 8)).shape
    torch.Size([2, 32, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        *,
        groups: int = 1,
        bias: bool = True,
        act: str = "linear",
        gain: float | None = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        owner = type(self).__name__
        stride, padding = check_size(owner, "stride", stride), check_size(owner, "padding", padding, 0)
        kernel_size = check_size(owner, "kernel_size", kernel_size)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            groups=groups,
            bias=bias,
            device=device,
            dtype=dtype,
        )
        default = activation_gain(owner, act)
        self.pad, self.act = padding, act
        self.gain = default if gain is None else gain

    def forward(self, input: Tensor) -> Tensor:
        with autocast_off(input) as x:
            if self.stride == (1, 1):
                return resampled_conv2d(
                    type(self).__name__, x, self.weight, bias=self.bias, act=self.act, gain=self.gain, clamp=None,
                    up=1, down=1, padding=self.pad, resample_filter=None, flip_weight=True,
                    groups=self.groups,
                )  # fmt: skip
            y = F.conv2d(x, self.weight.to(x.dtype), None, self.stride, self.padding, groups=self.groups)
            return bias_act(y, self.bias, act=self.act, gain=self.gain)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, act={self.act!r}, gain={self.gain:.4g}"
