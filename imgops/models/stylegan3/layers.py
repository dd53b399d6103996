"""The layers of StyleGAN3's synthesis network: Fourier features, and a modulated convolution with filtered lrelu."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ...nn import EqualizedLinear
from ...ops._common import without_autocast
from ...ops.filtered_lrelu import filtered_lrelu
from ...ops.modulated_conv2d import modulated_conv2d
from .filters import lowpass_filter


class Placement(EqualizedLinear):
    """w to how pictures are turned (cosine, sine) and moved (x, y): at first not at all."""

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialize the layer, for one that was made on the meta device."""
        nn.init.zeros_(self.weight)
        self.get_parameter("bias").copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))


class SynthesisInput(nn.Module):
    """A picture of waves, which goes on without end and can be moved and turned (Karras et al. 2021, section 3.1).

    Each channel is a mix of waves ``sin(2 pi (frequency . place + phase))``; the frequencies fill a disk evenly. Each w
    moves and turns the picture, as it has learned; ``transform`` moves and turns what comes out of the network.

    Args:
        w_dim: size of w.
        channels: how many waves, and how many channels.
        size: (height, width) in pixels, margins included.
        sampling_rate: pixels per unit of length.
        bandwidth: the largest frequency, per unit of length.

    Shapes: w [N, w_dim] -> [N, channels, height, width] in the parameters' dtype; weight [channels, channels]; buffers
    freqs [channels, 2], phases [channels] in turns, and transform [3, 3], a map of homogeneous (x, y, 1) in units of
    length about the middle: where each place of the picture is taken from.
    """

    freqs: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(
        self, w_dim: int, channels: int, size: tuple[int, int], sampling_rate: float, bandwidth: float
    ) -> None:
        super().__init__()
        self.w_dim, self.channels, self.size = w_dim, channels, size
        self.sampling_rate, self.bandwidth = sampling_rate, bandwidth
        self.weight = nn.Parameter(torch.empty(channels, channels))
        self.affine = Placement(w_dim, 4)
        self.register_buffer("transform", torch.empty(3, 3))
        self.register_buffer("freqs", torch.empty(channels, 2))
        self.register_buffer("phases", torch.empty(channels))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialize the layer's own parameters and buffers, for one that was made on the meta device."""
        nn.init.normal_(self.weight)
        self.transform.copy_(torch.eye(3))
        angles = 2 * math.pi * torch.rand_like(self.phases)
        # the area of a disk grows with the square of its radius
        radii = self.bandwidth * torch.rand_like(self.phases).sqrt()
        self.freqs.copy_(torch.stack([angles.cos(), angles.sin()], 1) * radii[:, None])
        nn.init.uniform_(self.phases, -0.5, 0.5)

    def forward(self, w: Tensor) -> Tensor:
        # the phase of a fine wave far from the middle takes all digits of float32
        with without_autocast(w):
            return self._waves(w.to(self.weight.dtype))

    def _waves(self, w: Tensor) -> Tensor:
        turn = self.affine(w)
        turn = turn / turn[:, :2].norm(dim=1, keepdim=True)
        cos, sin, x, y = turn.unbind(1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        rotation = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], 1).unflatten(1, (3, 3))
        translation = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], 1).unflatten(1, (3, 3))
        # the user's transform comes first, as places of the output are looked up
        transforms = rotation @ translation @ self.transform
        phases = self.phases[:, None] + self.freqs @ transforms[:, :2, 2:]
        freqs = self.freqs @ transforms[:, :2, :2]
        # what a transform shrinks may be too fine for the pixels, and fades out before it would alias
        finest = self.sampling_rate / 2
        amplitudes = 1 - (freqs.norm(dim=2) - self.bandwidth) / (finest - self.bandwidth)
        waves = self._places(freqs) @ freqs[:, None].transpose(2, 3) + phases[:, None].transpose(2, 3)
        waves = torch.sin(2 * math.pi * waves) * amplitudes.clamp(0, 1)[:, None, None]
        # planar, the layout that all layers keep: on a CPU their convolutions are faster on it
        return (waves @ (self.weight / self.channels**0.5).t()).permute(0, 3, 1, 2).contiguous()

    def _places(self, like: Tensor) -> Tensor:
        """(x, y) of each pixel's middle, [height, width, 2], in units of length from the middle of the picture."""
        y, x = (
            (torch.arange(side, dtype=like.dtype, device=like.device) - (side - 1) / 2) / self.sampling_rate
            for side in self.size
        )
        return torch.stack(torch.broadcast_tensors(x, y[:, None]), 2)

    def extra_repr(self) -> str:
        return f"{self.w_dim}, {self.channels}, size={self.size}, sampling_rate={self.sampling_rate:g}"


class SynthesisLayer(nn.Module):
    """A modulated convolution, and leaky ReLU between filters that no frequency passes which its pixels cannot show.

    Karras et al. 2021, section 3.2. The input is divided by the root of its mean square, a running mean that takes the
    place of StyleGAN2's normalizations.

    Args:
        w_dim, in_channels, out_channels: sizes.
        is_torgb: the last layer: a 1 x 1 convolution without demodulation, activation and filters.
        half_dtype: dtype of the layer's activations; None is that of the parameters, and so is float16 on a CPU.
        half_channels_last: lay those out channels-last.
        in_size, out_size: (height, width) in pixels, margins included.
        in_sampling_rate, out_sampling_rate: pixels per unit of length.
        in_cutoff, out_cutoff, in_half_width, out_half_width: where the filters pass half, and half of the band in
            which they fall.
        kernel_size: of the convolution.
        filter_size: taps of the low-pass filters at the lower of their two rates.
        lrelu_upsampling: how many times as fine the pixels are on which leaky ReLU works.
        radial: filters for down-sampling that are the same in all directions.
        conv_clamp: largest magnitude of what leaky ReLU gives; None: no limit.

    ``forward(x, w, magnitudes=None)``: appends the mean square of x to ``magnitudes``, for :attr:`magnitude_ema`.

    Shapes: x [N, in_channels, *in_size], w [N, w_dim] -> [N, out_channels, *out_size]; weight [out_channels,
    in_channels, kernel_size, kernel_size], bias [out_channels]; buffers up_filter, down_filter, magnitude_ema [].
    """

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(
        self,
        w_dim: int,
        in_channels: int,
        out_channels: int,
        *,
        is_torgb: bool,
        half_dtype: torch.dtype | None,
        half_channels_last: bool,
        in_size: tuple[int, int],
        out_size: tuple[int, int],
        in_sampling_rate: float,
        out_sampling_rate: float,
        in_cutoff: float,
        out_cutoff: float,
        in_half_width: float,
        out_half_width: float,
        kernel_size: int,
        filter_size: int,
        lrelu_upsampling: int,
        radial: bool,
        conv_clamp: float | None,
    ) -> None:
        super().__init__()
        self.is_torgb, self.conv_clamp = is_torgb, conv_clamp
        self.half_dtype, self.half_channels_last = half_dtype, half_channels_last
        self.in_size, self.out_size = in_size, out_size
        kernel_size = 1 if is_torgb else kernel_size
        self.kernel_size = kernel_size
        self.affine = EqualizedLinear(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.register_buffer("magnitude_ema", torch.empty([]))
        # the rate at which leaky ReLU works
        rate = max(in_sampling_rate, out_sampling_rate) * (1 if is_torgb else lrelu_upsampling)
        self.up, self.down = round(rate / in_sampling_rate), round(rate / out_sampling_rate)
        taps = [1 if is_torgb or factor == 1 else filter_size * factor for factor in (self.up, self.down)]
        self.designs: tuple[dict[str, Any], ...] = (
            {"taps": taps[0], "cutoff": in_cutoff, "width": 2 * in_half_width, "sampling_rate": rate},
            {
                "taps": taps[1],
                "cutoff": out_cutoff,
                "width": 2 * out_half_width,
                "sampling_rate": rate,
                "radial": radial,
            },
        )
        for name, design in zip(("up_filter", "down_filter"), self.designs, strict=True):
            self.register_buffer(name, lowpass_filter(**design))
        self.padding = self._padding(taps)
        self.reset_parameters()

    def _padding(self, taps: list[int]) -> list[int]:
        """(x0, x1, y0, y1) on the up-sampled image, which keep its middle in the middle."""
        pads = []
        for size, out in zip(reversed(self.in_size), reversed(self.out_size), strict=True):
            # the pixels that the filters and the convolution, padded by kernel_size - 1, must find
            wanted = (out - 1) * self.down + 1 + sum(taps) - 2
            missing = wanted - (size + self.kernel_size - 1) * self.up
            # up-sampling leaves each pixel at the beginning of its place, not in the middle
            before = (missing + self.up) // 2
            pads += [before, missing - before]
        return pads

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialize the layer's own parameters and buffers, for one that was made on the meta device."""
        nn.init.normal_(self.weight)
        nn.init.zeros_(self.bias)
        nn.init.ones_(self.magnitude_ema)
        for f, design in zip((self.up_filter, self.down_filter), self.designs, strict=True):
            made = lowpass_filter(**design)
            if f is not None and made is not None:
                f.copy_(made)

    def forward(self, x: Tensor, w: Tensor, magnitudes: list[Tensor] | None = None) -> Tensor:
        if magnitudes is not None:
            magnitudes.append(x.detach().float().square().mean())
        # a CPU emulates float16
        half = None if self.half_dtype == torch.float16 and x.device.type == "cpu" else self.half_dtype
        layout = torch.channels_last if half and self.half_channels_last else torch.preserve_format
        x = x.to(dtype=half or w.dtype, memory_format=layout)
        styles, input_gain = self.affine(w), self.magnitude_ema.rsqrt()
        if self.is_torgb:
            # nothing normalizes this layer, so the weight's gain can be applied to the styles, the smaller operand
            styles = styles * (input_gain * self.weight[0].numel() ** -0.5)
            return modulated_conv2d(x, self.weight, styles, bias=self.bias, clamp=self.conv_clamp, demodulate=False)
        x = modulated_conv2d(x, self.weight, styles, padding=self.kernel_size - 1, input_gain=input_gain)
        return filtered_lrelu(
            x, self.up_filter, self.down_filter, self.bias, self.up, self.down, self.padding, clamp=self.conv_clamp
        )

    def extra_repr(self) -> str:
        return (
            f"{self.weight.shape[1]}, {self.weight.shape[0]}, {self.kernel_size}, in_size={self.in_size}, "
            f"out_size={self.out_size}, up={self.up}, down={self.down}, conv_clamp={self.conv_clamp}"
        )
