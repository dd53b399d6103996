"""Convolution with equalized learning rate, re-sampled, with bias and activation, and what all convolutions share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..ops._algorithms import scaled_smaller
from ..ops._common import autocast_off
from ..ops.modulated_conv2d import resampled_conv2d
from ..ops.upfirdn2d import setup_filter
from ._checks import activation_gain, check_convolution
from ._init import set_filter, zero
from .resample import RESAMPLE_TAPS


class Convolution(nn.Module):
    """The parameters of a convolution with re-sampling, bias and activation, and the arguments of its call."""

    resample_filter: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        bias: bool,
        act: str,
        up: int,
        down: int,
        resample_filter: tuple[float, ...] | None,
        conv_clamp: float | None,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        self.in_channels, self.out_channels, self.kernel_size, self.up, self.down = check_convolution(
            owner, in_channels, out_channels, kernel_size, up, down
        )
        self.act, self.act_gain = act, activation_gain(owner, act)
        self.conv_clamp = conv_clamp
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.taps = resample_filter
        self.register_buffer("resample_filter", None if resample_filter is None else setup_filter(resample_filter))

    def _initialize(self) -> None:
        nn.init.normal_(self.weight)
        zero(self.bias)
        if self.resample_filter is not None:
            set_filter(self.resample_filter, self.taps)

    def reset_parameters(self) -> None:
        """Initialize the layer's own parameters and buffers, for one that was made on the meta device."""
        self._initialize()

    def _arguments(self, gain: float) -> dict[str, Any]:
        """What the convolution takes beside x, the weight and its modulation, for ``gain`` times the output."""
        return {
            "bias": self.bias,
            "act": self.act,
            "gain": self.act_gain * gain,
            "clamp": None if self.conv_clamp is None else self.conv_clamp * gain,
            "up": self.up,
            "down": self.down,
            "padding": self.kernel_size // 2,
            "resample_filter": self.resample_filter,
            "flip_weight": self.up == 1,
        }

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, {self.kernel_size}, bias={self.bias is not None}, "
            f"act={self.act!r}, up={self.up}, down={self.down}, conv_clamp={self.conv_clamp}"
        )


class EqualizedConv2d(Convolution):
    """``clamp(act(conv2d(x, weight / sqrt(in_channels * kernel_size^2)) + bias))``, re-sampled by up or down.

    The weight is stored with unit variance and scaled at run time (equalized learning rate, Karras et al. 2018,
    section 4.1). Zero padding keeps the size. The low-pass filter of the re-sampling, the bias, the activation and
    the clamp run as one pass beside the convolution; see :func:`imgops.modulated_conv2d`.

    Args:
        in_channels, out_channels: sizes, >= 1.
        kernel_size: odd, so that the padding centers it.
        bias: learn a bias, initially 0. Default True.
        act: activation, as in :func:`imgops.bias_act`, with its default gain. Default "linear".
        up: up-sampling factor: convolves (with the weight flipped, as in published networks), then filters. Default 1.
        down: down-sampling factor: filters, then convolves with this stride. Default 1; not together with up.
        resample_filter: taps of the low-pass filter, for :func:`imgops.setup_filter`. Default [1, 3, 3, 1].
        conv_clamp: limit of the output's magnitude; None clamps nothing. Default None.

    ``forward(x, gain=1)`` gives ``gain`` times the layer's output, in the same pass.

    Shapes: x [N, in_channels, H, W] -> [N, out_channels, H * up // down, W * up // down] in x's dtype (under autocast
    in autocast's), to which the weight is cast; channels-last where x is; weight [out_channels, in_channels,
    kernel_size, kernel_size], bias [out_channels], float32 when built; resample_filter, a buffer.

    Raises:
        TypeError, ValueError: a size that is no int >= 1, an even kernel size, an unknown act, up and down both
            above 1; in the forward, what modulated_conv2d raises.

    >>> EqualizedConv2d(16, 32, 3, act="lrelu", down=2)(torch.randn(4, 16, 8, 8)).shape
    torch.Size([4, 32, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        act: str = "linear",
        up: int = 1,
        down: int = 1,
        resample_filter: tuple[float, ...] = RESAMPLE_TAPS,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, bias, act, up, down, resample_filter, conv_clamp)
        self.weight_gain = (self.in_channels * self.kernel_size**2) ** -0.5
        self.reset_parameters()

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        with autocast_off(x) as x:
            # the gain goes to the smaller of the two: in deep layers a pass over the weight costs as much as many ops
            x, weight = scaled_smaller(x, self.weight, self.weight_gain)
            return resampled_conv2d(type(self).__name__, x, weight, **self._arguments(gain))
