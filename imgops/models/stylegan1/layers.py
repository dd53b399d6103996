"""The layers of StyleGAN1's generator, with the parameters' names of its well-known PyTorch port."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...nn import MappingNetwork
from ...nn._init import set_filter
from ...ops._common import autocast_off
from ...ops.adain import adaptive_instance_norm
from ...ops.bias_act import bias_act
from ...ops.modulated_conv2d import resampled_conv2d
from ...ops.upfirdn2d import setup_filter, upfirdn2d
from ..progan.generator import NEAREST

SLOPE = 0.2
#: taps of the blur after a convolution that doubles the sides
BLUR = (1.0, 2.0, 1.0)


class Weights(nn.Module):
    """A weight that is scaled at run time, and a bias (equalized learning rate, Karras et al. 2018, section 4.1).

    Args:
        shape: of ``weight_orig``.
        bias: the size of ``bias``, 0 at first.
        ones: how many of the bias are 1 at first.

    Attributes: ``gain``, sqrt(2 / fan_in), which the layer applies.
    """

    def __init__(self, shape: tuple[int, ...], bias: int, ones: int = 0) -> None:
        super().__init__()
        self.ones = ones
        self.weight_orig = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(bias))
        self.gain = (2 / self.weight_orig[0].numel()) ** 0.5
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialize, for a layer that was made on the meta device."""
        nn.init.normal_(self.weight_orig)
        nn.init.zeros_(self.bias)
        self.bias[: self.ones] = 1


class EqualLinear(nn.Module):
    """``act(x @ weight.T * sqrt(2 / in_features) + bias)``, [N, in_features] -> [N, out_features].

    Args:
        in_features, out_features: sizes.
        act: "lrelu", without a gain, or "linear".
        ones: how many of the bias are 1 at first.
    """

    def __init__(self, in_features: int, out_features: int, *, act: str = "linear", ones: int = 0) -> None:
        super().__init__()
        self.act = act
        self.linear = Weights((out_features, in_features), out_features, ones)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.addmm(self.linear.bias, x * self.linear.gain, self.linear.weight_orig.t())
        return y if self.act == "linear" else bias_act(y, act=self.act, gain=1)


class Mapping(MappingNetwork):
    """z, and a label beside it, to w: layers 1, 3, 5, ..., as the port counts the activations between them.

    Weights are as of all layers, and what trains them takes a hundredth of the others' learning rate.
    """

    def _name(self, layer: int) -> str:
        return str(2 * layer + 1)

    def _layer(self, features: int, lr_multiplier: float) -> nn.Module:
        return EqualLinear(features, self.w_dim, act="lrelu")


class EqualConv2d(nn.Module):
    """A convolution with its bias, [N, in_channels, H, W] -> [N, out_channels, H, W] in x's dtype.

    Args:
        in_channels, out_channels, kernel_size: sizes; zero padding keeps that of the image.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = Weights((out_channels, in_channels, kernel_size, kernel_size), out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return _convolve(x, self.conv.weight_orig * self.conv.gain, self.conv.bias)


class Fused(nn.Module):
    """What the port calls fused: a transposed convolution whose kernel is the mean of four shifted ones."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, 3, 3))
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.gain = (2 / (9 * in_channels)) ** 0.5
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize, for a layer that was made on the meta device."""
        nn.init.normal_(self.weight)
        nn.init.zeros_(self.bias)


class UpConv2d(nn.Module):
    """Doubles pixels, convolves and blurs (Karras et al. 2019, table 1): [N, I, H, W] -> [N, O, 2 H, 2 W] in x's dtype.

    The pixels are not doubled: a transposed convolution and a filter of two taps give the same.

    Args:
        in_channels, out_channels: sizes.
        fused: the weight is a transposed convolution's, of a quarter of the effect, as the port has it from 128 pixels
            on.
    """

    nearest: Tensor
    blur: Tensor

    def __init__(self, in_channels: int, out_channels: int, *, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        # the port has a layer before the convolution that is not fused, which doubles the pixels
        self.add_module(
            "0" if fused else "1",
            Fused(in_channels, out_channels) if fused else EqualConv2d(in_channels, out_channels, 3),
        )
        self.register_buffer("nearest", setup_filter(NEAREST), persistent=False)
        self.register_buffer("blur", setup_filter(BLUR), persistent=False)

    def reset_parameters(self) -> None:
        """Initialize the filters, for a layer that was made on the meta device."""
        set_filter(self.nearest, NEAREST)
        set_filter(self.blur, BLUR)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self._weights()
        x = _convolve(x, weight, bias, self.nearest, flip=not self.fused)
        return upfirdn2d(x, self.blur, padding=1)

    def _weights(self) -> tuple[Tensor, Tensor]:
        conv: Any = self.get_submodule("0" if self.fused else "1.conv")
        if self.fused:
            return conv.weight.transpose(0, 1) * (conv.gain / 4), conv.bias
        return conv.weight_orig * conv.gain, conv.bias


class ConstantInput(nn.Module):
    """A learned picture: -> [n, channels, height, width]."""

    def __init__(self, channels: int, shape: tuple[int, int]) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.empty(1, channels, *shape))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize, for a layer that was made on the meta device."""
        nn.init.normal_(self.input)

    def forward(self, n: int) -> Tensor:
        return self.input.expand(n, -1, -1, -1)


class NoiseInjection(nn.Module):
    """Adds one picture of noise to all channels, by a strength of each that is 0 at first, and activates.

    Shapes: x [N, channels, H, W], noise [N or 1, 1, H, W] or None -> the same as x in x's dtype.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight_orig = nn.Parameter(torch.empty(1, channels, 1, 1))
        self.gain = (2 / channels) ** 0.5
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize, for a layer that was made on the meta device."""
        nn.init.zeros_(self.weight_orig)

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        if noise is not None:
            x = torch.addcmul(x, (self.weight_orig * self.gain).to(x.dtype), noise.to(x.dtype))
        return bias_act(x, act="lrelu", alpha=SLOPE, gain=1)


class StyledNorm(nn.Module):
    """Instance normalization, then a scale and a bias of each channel that w gives; the scale is 1 at first.

    Args:
        channels, w_dim: sizes.
        eps: added to the variance.

    Shapes: x [N, channels, H, W], w [N, w_dim] -> the same as x.
    """

    def __init__(self, channels: int, w_dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.style = EqualLinear(w_dim, 2 * channels, ones=channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        scale, bias = self.style(w).chunk(2, 1)
        return adaptive_instance_norm(x, scale - 1, bias, eps=self.eps)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor, nearest: Tensor | None = None, flip: bool = True) -> Tensor:
    with autocast_off(x) as x:
        return resampled_conv2d(
            "conv2d", x, weight, bias=bias, act="linear", gain=1.0, clamp=None, up=1 if nearest is None else 2, down=1,
            padding=weight.shape[2] // 2, resample_filter=nearest, flip_weight=flip,
        )  # fmt: skip
