"""The modulated convolution as a layer, and the two layers of StyleGAN2's synthesis network that are built on it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..ops.modulated_conv2d import modulated_conv2d
from ._checks import check_choice, check_size
from .conv import Convolution
from .linear import EqualizedLinear
from .resample import RESAMPLE_TAPS

#: noise of a layer: a fresh draw for each sample, the layer's own constant picture, or none
NOISE_MODES = ("random", "const", "none")


class _ModulatedConv(Convolution):
    """What the layers built on a modulated convolution share."""

    def __init__(self, *convolution: Any, demodulate: bool) -> None:
        super().__init__(*convolution)
        self.demodulate = demodulate
        # not reset_parameters, which in a subclass resets what is not made yet
        self._initialize()

    def _convolve(self, x: Tensor, styles: Tensor, noise: Tensor | None, gain: float) -> Tensor:
        arguments = self._arguments(gain)
        return modulated_conv2d(x, self.weight, styles, noise=noise, demodulate=self.demodulate, **arguments)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, demodulate={self.demodulate}"


class ModulatedConv2d(_ModulatedConv):
    """Convolution whose weight each sample scales by its own styles, with noise, bias and activation.

    ``clamp(act(conv2d(x, weight * styles, normalized) + noise + bias))`` (Karras et al. 2020, section 2.2), re-sampled
    by up or down, in as few passes as the backend has; see :func:`imgops.modulated_conv2d`. Zero padding keeps the
    size.

    Args:
        in_channels, out_channels: sizes, >= 1.
        kernel_size: odd, so that the padding centers it.
        bias: learn a bias, initially 0. Default True.
        act: activation, as in :func:`imgops.bias_act`, with its default gain. Default "linear".
        up: up-sampling factor: convolves (with the weight flipped, as in published networks), then filters. Default 1.
        down: down-sampling factor: filters, then convolves with this stride. Default 1; not together with up.
        resample_filter: taps of the low-pass filter, for :func:`imgops.setup_filter`. Default [1, 3, 3, 1].
        conv_clamp: limit of the output's magnitude; None clamps nothing. Default None.
        demodulate: divide by the norm of each output channel's modulated weight. Default True.

    ``forward(x, styles, noise=None, gain=1)`` gives ``gain`` times the layer's output, in the same pass.

    Shapes: x [N, in_channels, H, W], styles [N, in_channels], noise [N or 1, 1, H', W'] -> [N, out_channels, H', W'] in
    x's dtype, channels-last where x is, with H' = H * up // down; weight [out_channels, in_channels, kernel_size,
    kernel_size], unit variance, bias [out_channels], float32 when built; resample_filter, a buffer.

    Raises:
        TypeError, ValueError: a size that is no int >= 1, an even kernel size, an unknown act, up and down both
            above 1; in the forward, what modulated_conv2d raises.

    >>> conv = ModulatedConv2d(16, 32, 3, act="lrelu", up=2)
    >>> x, styles, noise = torch.randn(4, 16, 8, 8), torch.randn(4, 16), torch.randn(4, 1, 16, 16)
    >>> conv(x, styles, 0.1 * noise).shape
    torch.Size([4, 32, 16, 16])
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
        demodulate: bool = True,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, bias, act, up, down, resample_filter, conv_clamp,
            demodulate=demodulate,
        )  # fmt: skip

    def forward(self, x: Tensor, styles: Tensor, noise: Tensor | None = None, gain: float = 1.0) -> Tensor:
        return self._convolve(x, styles, noise, gain)


class SynthesisLayer(_ModulatedConv):
    """Modulated convolution, up-sampling, noise, bias, activation (Karras et al. 2020, figure 2c).

    Args:
        in_channels, out_channels, w_dim: sizes, >= 1.
        resolution: side of the output, or (height, width).
        kernel_size: odd. Default 3.
        up: up-sampling factor: convolves (with the weight flipped, as in published networks), then filters. Default 1.
        use_noise: add noise, the same in all channels, times a learned strength that starts at 0. Default True.
        act: activation, as in :func:`imgops.bias_act`, with its default gain. Default "lrelu".
        resample_filter: taps of the low-pass filter, for :func:`imgops.setup_filter`. Default [1, 3, 3, 1].
        conv_clamp: limit of the output's magnitude; None clamps nothing. Default None.

    ``forward(x, w, noise_mode="random", gain=1, noise=None)`` gives ``gain`` times the layer's output, in the same
    pass; noise_mode is "random", "const" (the buffer noise_const) or "none"; a ``noise``, which should be standard
    normal, [N or 1, 1, height, width], takes its place.

    Shapes: x [N, in_channels, height / up, width / up], w [N, w_dim] -> [N, out_channels, height, width] in x's dtype,
    channels-last where x is; weight [out_channels, in_channels, kernel_size, kernel_size], bias [out_channels],
    noise_strength [], float32 when built; buffers noise_const [height, width] and resample_filter.

    Raises:
        TypeError, ValueError: a size that is no int >= 1, an even kernel size, an unknown act or noise_mode; in the
            forward, what modulated_conv2d raises.

    >>> layer = SynthesisLayer(16, 32, w_dim=64, resolution=16, up=2)
    >>> layer(torch.randn(4, 16, 8, 8), torch.randn(4, 64)).shape
    torch.Size([4, 32, 16, 16])
    """

    noise_const: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int | tuple[int, int],
        *,
        kernel_size: int = 3,
        up: int = 1,
        use_noise: bool = True,
        act: str = "lrelu",
        resample_filter: tuple[float, ...] = RESAMPLE_TAPS,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, True, act, up, 1, resample_filter, conv_clamp, demodulate=True
        )
        sides = resolution if isinstance(resolution, tuple) else (resolution, resolution)
        self.resolution, owner = resolution, type(self).__name__
        self.height, self.width = (check_size(owner, "resolution", side) for side in sides)
        self.use_noise = use_noise
        # a bias of 1: styles start around the identity
        self.affine = EqualizedLinear(w_dim, in_channels, bias_init=1)
        if use_noise:
            self.noise_strength = nn.Parameter(torch.empty([]))
            self.register_buffer("noise_const", torch.empty(self.height, self.width))
        self._initialize_noise()

    def _initialize_noise(self) -> None:
        if self.use_noise:
            nn.init.zeros_(self.noise_strength)
            nn.init.normal_(self.noise_const)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self._initialize_noise()

    def forward(
        self, x: Tensor, w: Tensor, noise_mode: str = "random", gain: float = 1.0, noise: Tensor | None = None
    ) -> Tensor:
        check_choice(type(self).__name__, "noise_mode", noise_mode, NOISE_MODES)
        if noise is not None and not self.use_noise:
            raise ValueError(f"{type(self).__name__}: noise must be None, as the layer was built with use_noise=False")
        if noise is not None:
            noise = noise.to(self.noise_strength.dtype) * self.noise_strength
        elif self.use_noise and noise_mode == "random":
            shape = [x.shape[0], 1, self.height, self.width]
            noise = torch.randn(shape, dtype=self.noise_strength.dtype, device=x.device) * self.noise_strength
        elif self.use_noise and noise_mode == "const":
            noise = (self.noise_const * self.noise_strength)[None, None]
        return self._convolve(x, self.affine(w), noise, gain)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, resolution={self.resolution}, use_noise={self.use_noise}"


class ToRGB(_ModulatedConv):
    """1x1 modulated convolution to image channels, without demodulation or activation (Karras et al. 2020, 2.2).

    Args:
        in_channels, out_channels, w_dim: sizes, >= 1; out_channels are the image's, of any number.
        conv_clamp: limit of the output's magnitude; None clamps nothing. Default None.

    Shapes: x [N, in_channels, H, W], w [N, w_dim] -> [N, out_channels, H, W] in x's dtype, channels-last where x is;
    weight [out_channels, in_channels, 1, 1], bias [out_channels], float32 when built.

    Raises:
        TypeError, ValueError: a size that is no int >= 1; in the forward, what modulated_conv2d raises.

    >>> ToRGB(16, 3, w_dim=64)(torch.randn(4, 16, 8, 8), torch.randn(4, 64)).shape
    torch.Size([4, 3, 8, 8])
    """

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, *, conv_clamp: float | None = None) -> None:
        super().__init__(in_channels, out_channels, 1, True, "linear", 1, 1, None, conv_clamp, demodulate=False)
        self.weight_gain = in_channels**-0.5
        self.affine = EqualizedLinear(w_dim, in_channels, bias_init=1)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        # nothing normalizes this layer, so the weight's gain can be applied to the styles, the smaller operand
        return self._convolve(x, self.affine(w) * self.weight_gain, None, 1.0)
