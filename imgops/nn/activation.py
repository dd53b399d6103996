"""Activations as layers, each one pass with the bias before it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..ops.bias_act import bias_act
from ..ops.filtered_lrelu import filtered_lrelu
from ..ops.upfirdn2d import setup_filter
from ._checks import activation_gain, check_size
from ._init import set_filter, zero


class BiasAct(nn.Module):
    """``clamp(gain * act(x + bias), -clamp, clamp)`` in one pass; see :func:`imgops.bias_act`.

    Args:
        num_features: channels of x, each of which has its own bias value, >= 1.
        act: activation, as in :func:`imgops.bias_act`. Default "lrelu".
        alpha: negative slope of "lrelu"; default 0.2. The others ignore it.
        gain: factor after the activation; None is the activation's own. Default None.
        clamp: limit of the output's magnitude, >= 0; None clamps nothing. Default None.
        bias: learn a bias, initially 0. Default True.

    Shapes: x [N, num_features, ...] -> the same, in x's dtype; bias [num_features], float32 when built.

    Raises:
        TypeError, ValueError: a size that is no int >= 1, an unknown act; in the forward, what bias_act raises.

    >>> BiasAct(8, act="swish", clamp=256)(torch.randn(2, 8, 16, 16)).shape
    torch.Size([2, 8, 16, 16])
    """

    def __init__(
        self,
        num_features: int,
        act: str = "lrelu",
        alpha: float | None = None,
        gain: float | None = None,
        clamp: float | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        self.num_features = check_size(owner, "num_features", num_features)
        activation_gain(owner, act)
        self.act, self.alpha, self.gain, self.clamp = act, alpha, gain, clamp
        self.bias = nn.Parameter(torch.empty(num_features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the bias, for a layer that was made on the meta device."""
        zero(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return bias_act(x, self.bias, act=self.act, alpha=self.alpha, gain=self.gain, clamp=self.clamp)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, act={self.act!r}, alpha={self.alpha}, gain={self.gain}, clamp={self.clamp}, "
            f"bias={self.bias is not None}"
        )


class FilteredLReLU(nn.Module):
    """Bias, up-sampling, leaky ReLU, clamp and down-sampling in one pass; see :func:`imgops.filtered_lrelu`.

    Args:
        num_features: channels of x, each of which has its own bias value, >= 1.
        up_taps, down_taps: of the low-pass filters, for :func:`imgops.setup_filter`, which normalizes them.
        up, down: factors, >= 1. Default 2 and 2.
        padding: of the up-sampled image, as in filtered_lrelu; None keeps the image centered, so that with up = down
            the output has x's size. Default None.
        gain, slope: of the activation. Default sqrt(2) and 0.2.
        clamp: limit of the activation's magnitude, >= 0; None clamps nothing. Default None.
        bias: learn a bias, initially 0. Default True.

    Shapes: x [N, num_features, H, W] -> [N, num_features, H * up // down, W * up // down] where padding is None, in x's
    dtype, channels-last where x is; bias [num_features], float32 when built; fu and fd, buffers.

    Raises:
        TypeError, ValueError: a size that is no int >= 1, what setup_filter raises; in the forward, what
            filtered_lrelu raises.

    >>> taps = [1, 5, 10, 10, 5, 1]
    >>> FilteredLReLU(8, taps, taps, clamp=256)(torch.randn(2, 8, 16, 16)).shape
    torch.Size([2, 8, 16, 16])
    """

    fu: Tensor
    fd: Tensor

    def __init__(
        self,
        num_features: int,
        up_taps: Sequence[float],
        down_taps: Sequence[float],
        up: int = 2,
        down: int = 2,
        padding: int | Sequence[int] | None = None,
        gain: float = math.sqrt(2),
        slope: float = 0.2,
        clamp: float | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        self.num_features = check_size(owner, "num_features", num_features)
        self.up, self.down = check_size(owner, "up", up), check_size(owner, "down", down)
        self.gain, self.slope, self.clamp = gain, slope, clamp
        self.up_taps, self.down_taps = up_taps, down_taps
        self.register_buffer("fu", setup_filter(up_taps))
        self.register_buffer("fd", setup_filter(down_taps))
        if padding is None:
            # what both filters shorten the image by, less the positions after the last output that down-sampling skips
            total = self.fu.shape[-1] + self.fd.shape[-1] - 1 - down
            before = (total + up) // 2
            padding = (before, total - before) * 2
        self.padding = padding
        self.bias = nn.Parameter(torch.empty(num_features)) if bias else None
        zero(self.bias)

    def reset_parameters(self) -> None:
        """Initialize the bias and the filters, for a layer that was made on the meta device."""
        zero(self.bias)
        set_filter(self.fu, self.up_taps)
        set_filter(self.fd, self.down_taps)

    def forward(self, x: Tensor) -> Tensor:
        return filtered_lrelu(
            x, self.fu, self.fd, self.bias, self.up, self.down, self.padding, self.gain, self.slope, self.clamp
        )

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, up={self.up}, down={self.down}, padding={self.padding}, gain={self.gain:.4g}, "
            f"slope={self.slope}, clamp={self.clamp}, bias={self.bias is not None}"
        )
