"""The two layers of StyleGAN2's synthesis network, both around a modulated convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops.modulated_conv2d import modulated_conv2d
from ..ops.upfirdn2d import setup_filter
from ._checks import activation_gain, check_choice, check_size
from .linear import EqualizedLinear
from .resample import RESAMPLE_TAPS

#: a fresh draw for each sample, the layer's own constant picture, or nothing
NOISE_MODES = ("random", "const", "none")


class SynthesisLayer(nn.Module):
    """Modulated convolution, up-sampling, noise, bias, activation (Karras et al. 2020, figure 2c).

    Args:
        in_channels, out_channels, w_dim: sizes, >= 1.
        resolution: height and width of the output.
        kernel_size: odd. Default 3.
        up: up-sampling factor: convolves (with the weight flipped, as in published networks), then filters. Default 1.
        use_noise: add noise, the same in all channels, times a learned strength that starts at 0. Default True.
        act: activation, as in :func:`imgops.bias_act`, with its default gain. Default "lrelu".
        resample_filter: taps of the low-pass filter, for :func:`imgops.setup_filter`. Default [1, 3, 3, 1].
        conv_clamp: limit of the output's magnitude; None clamps nothing. Default None.

    ``forward(x, w, noise_mode="random", gain=1)`` gives ``gain`` times the layer's output, in the same pass;
    noise_mode is "random", "const" (the buffer noise_const) or "none".

    Shapes: x [N, in_channels, resolution / up, resolution / up], w [N, w_dim] -> [N, out_channels, resolution,
    resolution] in x's dtype, channels-last where x is; weight [out_channels, in_channels, kernel_size,
    kernel_size], bias [out_channels], noise_strength [], float32 when built; buffers noise_const [resolution,
    resolution] and resample_filter.

    Raises:
        TypeError, ValueError: a size that is no int >= 1, an even kernel size, an unknown act or noise_mode; in the
            forward, what modulated_conv2d raises.
    """

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        *,
        kernel_size: int = 3,
        up: int = 1,
        use_noise: bool = True,
        act: str = "lrelu",
        resample_filter: tuple[float, ...] = RESAMPLE_TAPS,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        self.in_channels = check_size(owner, "in_channels", in_channels)
        self.out_channels = check_size(owner, "out_channels", out_channels)
        self.resolution = check_size(owner, "resolution", resolution)
        self.kernel_size, self.up = check_size(owner, "kernel_size", kernel_size), check_size(owner, "up", up)
        if kernel_size % 2 == 0:
            raise ValueError(f"{owner}: kernel_size must be odd; got {kernel_size}")
        self.use_noise = use_noise
        self.act, self.act_gain = act, activation_gain(owner, act)
        self.conv_clamp = conv_clamp
        # a bias of 1: styles start around the identity
        self.affine = EqualizedLinear(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        if use_noise:
            self.noise_strength = nn.Parameter(torch.zeros([]))
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("resample_filter", setup_filter(resample_filter))

    def forward(self, x: Tensor, w: Tensor, noise_mode: str = "random", gain: float = 1.0) -> Tensor:
        check_choice(type(self).__name__, "noise_mode", noise_mode, NOISE_MODES)
        noise = None
        if self.use_noise and noise_mode == "random":
            shape = [x.shape[0], 1, self.resolution, self.resolution]
            noise = torch.randn(shape, dtype=self.noise_strength.dtype, device=x.device) * self.noise_strength
        elif self.use_noise and noise_mode == "const":
            noise = (self.noise_const * self.noise_strength)[None, None]
        return modulated_conv2d(
            x,
            self.weight,
            self.affine(w),
            noise=noise,
            bias=self.bias,
            act=self.act,
            gain=self.act_gain * gain,
            clamp=None if self.conv_clamp is None else self.conv_clamp * gain,
            up=self.up,
            padding=self.kernel_size // 2,
            resample_filter=self.resample_filter,
            flip_weight=self.up == 1,
        )

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, resolution={self.resolution}, kernel_size={self.kernel_size}, "
            f"up={self.up}, use_noise={self.use_noise}, act={self.act!r}, conv_clamp={self.conv_clamp}"
        )


class ToRGB(nn.Module):
    """1x1 modulated convolution to image channels, without demodulation or activation (Karras et al. 2020, 2.2).

    Args:
        in_channels, out_channels, w_dim: sizes, >= 1; out_channels are the image's, of any number.
        conv_clamp: limit of the output's magnitude; None clamps nothing. Default None.

    Shapes: x [N, in_channels, H, W], w [N, w_dim] -> [N, out_channels, H, W] in x's dtype, channels-last where x is;
    weight [out_channels, in_channels, 1, 1], bias [out_channels], float32 when built.

    Raises:
        TypeError, ValueError: a size that is no int >= 1; in the forward, what modulated_conv2d raises.
    """

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, *, conv_clamp: float | None = None) -> None:
        super().__init__()
        owner = type(self).__name__
        self.in_channels = check_size(owner, "in_channels", in_channels)
        self.out_channels = check_size(owner, "out_channels", out_channels)
        self.conv_clamp = conv_clamp
        self.weight_gain = in_channels**-0.5
        self.affine = EqualizedLinear(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        # nothing normalises this layer, so the equalised learning rate's gain goes to the styles, the smaller operand
        styles = self.affine(w) * self.weight_gain
        return modulated_conv2d(x, self.weight, styles, bias=self.bias, clamp=self.conv_clamp, demodulate=False)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, conv_clamp={self.conv_clamp}"
