"""The generator of StyleGAN3: mapping network and synthesis network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..._settings import shape_of
from ...nn import MappingNetwork
from ...nn._checks import check_batch, check_choice, check_half_dtype, check_size
from ...ops._common import check_number
from .._common import check_resolution
from ..network import GeneratorNetwork
from .layers import SynthesisInput, SynthesisLayer

CONFIGS = ("t", "r")


class Band(NamedTuple):
    """What a layer's pixels can show, per length of the picture's longer side.

    Attributes:
        cutoff: the frequency that half of passes.
        half_width: how much above it nothing passes.
        sampling_rate: pixels.
        shrink: the picture's pixels by these.
    """

    cutoff: float
    half_width: float
    sampling_rate: float
    shrink: int


def bands(
    resolution: int,
    num_layers: int,
    num_critical: int,
    first_cutoff: float,
    first_stopband: float,
    last_stopband_rel: float,
) -> list[Band]:
    """The band of each layer's output (Karras et al. 2021, section 3.2 and figure 4c).

    Cutoff and stopband rise geometrically to those of the last ``num_critical`` layers, which use all that pixels can
    show; the sampling rate is the least that twice the stopband allows, by halves of the resolution.
    """
    last_cutoff = resolution / 2
    last_stopband = last_cutoff * last_stopband_rel
    found = []
    for layer in range(num_layers + 1):
        exponent = min(layer / (num_layers - num_critical), 1)
        cutoff = first_cutoff * (last_cutoff / first_cutoff) ** exponent
        stopband = first_stopband * (last_stopband / first_stopband) ** exponent
        shrink = 2 ** max(0, math.floor(math.log2(resolution / (2 * stopband))))
        rate = resolution / shrink
        found.append(Band(cutoff, max(stopband, rate / 2) - cutoff, rate, shrink))
    return found


class SynthesisNetwork(nn.Module):
    """w to an image: Fourier features, then layers that all work on the picture as a continuous function.

    The arguments are those of :class:`Generator`. ``forward(w, update_emas=False, magnitudes=None)``: w [N, num_ws,
    w_dim] -> [N, img_channels, height, width] in w's dtype. The mean square of what each layer reads is appended to
    ``magnitudes``; ``update_emas`` moves the layers' running means towards it, in training mode.

    Attributes: ``layer_names``, the layers in their order; ``input``, the Fourier features.
    """

    #: it adds no noise
    noise_shapes: tuple[tuple[int, int, int], ...] = ()

    def __init__(
        self,
        w_dim: int,
        img_resolution: int | tuple[int, int],
        img_channels: int,
        *,
        channel_base: int,
        channel_max: int,
        num_layers: int,
        num_critical: int,
        first_cutoff: float,
        first_stopband: float,
        last_stopband_rel: float,
        margin_size: int,
        output_scale: float,
        num_fp16_res: int,
        half_dtype: torch.dtype,
        half_channels_last: bool,
        conv_kernel: int,
        filter_size: int,
        lrelu_upsampling: int,
        use_radial_filters: bool,
        conv_clamp: float | None,
        magnitude_ema_beta: float,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        self.w_dim = check_size(owner, "w_dim", w_dim)
        self.img_channels = check_size(owner, "img_channels", img_channels)
        num_layers = check_size(owner, "num_layers", num_layers, 2)
        num_critical = check_size(owner, "num_critical", num_critical, 1, num_layers - 1)
        margin_size = check_size(owner, "margin_size", margin_size, 0)
        num_fp16_res = check_size(owner, "num_fp16_res", num_fp16_res, 0)
        channel_base = check_size(owner, "channel_base", channel_base)
        channel_max = check_size(owner, "channel_max", channel_max)
        check_half_dtype(owner, half_dtype)
        self.output_scale = check_number(owner, "output_scale", output_scale)
        self.magnitude_ema_beta = check_number(owner, "magnitude_ema_beta", magnitude_ema_beta)
        self.img_resolution = check_resolution(owner, img_resolution, 8)
        self.img_height, self.img_width = shape_of(self.img_resolution)
        resolution = max(self.img_height, self.img_width)
        first_cutoff = check_number(owner, "first_cutoff", first_cutoff)
        first_stopband = check_number(owner, "first_stopband", first_stopband)
        if not 0 < first_cutoff < first_stopband <= resolution / 2:
            raise ValueError(
                f"{owner}: first_cutoff must be above 0, and below first_stopband, which is at most half of the "
                f"resolution; got {first_cutoff} and {first_stopband} at {resolution}"
            )
        self.bands = bands(resolution, num_layers, num_critical, first_cutoff, first_stopband, last_stopband_rel)
        sizes = [self._size(owner, band.shrink, margin_size) for band in self.bands]
        # the last two layers make no margin
        sizes[-2:] = [(self.img_height, self.img_width)] * 2
        channels = [max(1, round(min(channel_base / 2 / band.cutoff, channel_max))) for band in self.bands]
        channels[-1] = img_channels

        first = self.bands[0]
        self.input = SynthesisInput(w_dim, channels[0], sizes[0], first.sampling_rate, first.cutoff)
        self.layer_names: list[str] = []
        for i, band in enumerate(self.bands):
            before = max(i - 1, 0)
            name = f"L{i}_{max(sizes[i])}_{channels[i]}"
            layer = SynthesisLayer(
                w_dim,
                channels[before],
                channels[i],
                is_torgb=i == num_layers,
                half_dtype=half_dtype if band.sampling_rate * 2**num_fp16_res > resolution else None,
                half_channels_last=half_channels_last,
                in_size=sizes[before],
                out_size=sizes[i],
                in_sampling_rate=self.bands[before].sampling_rate,
                out_sampling_rate=band.sampling_rate,
                in_cutoff=self.bands[before].cutoff,
                out_cutoff=band.cutoff,
                in_half_width=self.bands[before].half_width,
                out_half_width=band.half_width,
                kernel_size=conv_kernel,
                filter_size=filter_size,
                lrelu_upsampling=lrelu_upsampling,
                # a critically sampled layer keeps all that pixels can show, corners included
                radial=use_radial_filters and i < num_layers - num_critical,
                conv_clamp=conv_clamp,
            )
            self.add_module(name, layer)
            self.layer_names.append(name)
        self.num_ws = num_layers + 2

    def _size(self, owner: str, shrink: int, margin: int) -> tuple[int, int]:
        if self.img_height % shrink or self.img_width % shrink:
            raise ValueError(
                f"{owner}: img_resolution must be divisible by {shrink}, as the first layers are that coarser; got "
                f"{self.img_width} x {self.img_height}"
            )
        return self.img_height // shrink + 2 * margin, self.img_width // shrink + 2 * margin

    def forward(self, w: Tensor, update_emas: bool = False, magnitudes: list[Tensor] | None = None) -> Tensor:
        check_batch(type(self).__name__, "w", w, (self.num_ws, self.w_dim))
        w = w.to(self.input.weight.dtype)
        measured: list[Tensor] | None = [] if update_emas or magnitudes is not None else None
        x = self.input(w[:, 0])
        for i, name in enumerate(self.layer_names):
            x = self.get_submodule(name)(x, w[:, i + 1], measured)
        if measured is not None and magnitudes is not None:
            magnitudes += measured
        if measured is not None and update_emas and self.training:
            self.update_magnitudes(measured)
        return x.to(dtype=w.dtype, memory_format=torch.contiguous_format) * self.output_scale

    @torch.no_grad()
    def update_magnitudes(self, magnitudes: Sequence[Tensor], beta: float | None = None) -> None:
        """Move the layers' running mean squares towards those of a batch.

        Args:
            magnitudes: one scalar for each layer.
            beta: the decay; None: ``magnitude_ema_beta``.
        """
        for name, magnitude in zip(self.layer_names, magnitudes, strict=True):
            mean = self.get_buffer(f"{name}.magnitude_ema")
            moved = magnitude.to(mean.dtype).lerp(mean, self.magnitude_ema_beta if beta is None else beta)
            # what overflows in half precision must not stay in the mean
            mean.copy_(torch.where(moved.isfinite(), moved, mean))

    def extra_repr(self) -> str:
        return f"w_dim={self.w_dim}, num_ws={self.num_ws}, img_resolution={self.img_resolution}"


class Generator(GeneratorNetwork):
    """StyleGAN3's generator (Karras et al. 2021), of which what is drawn moves and turns with its surface.

    Args:
        z_dim, w_dim: sizes of the latent and of the intermediate latent. Published networks: 512.
        c_dim: size of a label; 0 takes none.
        img_resolution: the side of the images, or (height, width), >= 9 (with the default
            first_stopband); both can be halved until the longer is 9 to 17 pixels.
        img_channels: 3 for RGB; 1 and 4 work as well.
        config: "t" (default), whose pictures move, or "r", whose pictures turn as well: 1 x 1 convolutions and radial
            filters, with twice the channels.
        mapping_layers: default 2.
        channel_base, channel_max: ``min(channel_base / (2 cutoff), channel_max)`` channels. Default 32768 and 512; of
            "r" 65536 and 1024.
        num_layers: without ToRGB. Default 14.
        num_critical: layers at the end that use all that pixels can show. Default 2.
        first_cutoff, first_stopband: of the first layer, in waves per side. Default 2, 2 ** 2.1.
        last_stopband_rel: stopband of the last layers, by their cutoff. Default 2 ** 0.3.
        margin_size: pixels that all layers but the last two have around the picture. Default 10.
        output_scale: factor on the picture. Default 0.25.
        num_fp16_res: how many of the highest sampling rates run in half precision. Default 4.
        half_dtype: torch.float16 (default), which becomes float32 on a CPU, or torch.bfloat16. Parameters and images
            stay float32.
        half_channels_last: lay the half-precision activations out channels-last. Default False.
        conv_kernel: side of the convolutions, odd. Default 3; of "r" 1.
        filter_size: taps of the low-pass filters at the lower of their two rates. Default 6.
        lrelu_upsampling: how many times as fine the pixels are on which leaky ReLU works. Default 2.
        use_radial_filters: filters for down-sampling that are the same in all directions. Default that of config "r".
        conv_clamp: largest magnitude of what leaky ReLU gives, >= 0; None: no limit. Default 256.
        magnitude_ema_beta: decay of the layers' running mean squares, per update. Default 0.999.

    Attributes: ``mapping`` (z, c -> w [N, num_ws, w_dim], see :class:`imgops.nn.MappingNetwork`), ``synthesis`` (w ->
    image, see :class:`SynthesisNetwork`), ``num_ws``, and the sizes above. ``synthesis.input.transform`` moves and
    turns what it draws.

    Raises:
        TypeError, ValueError: a size that is no int in range, a resolution that cannot be halved so, an unknown config
            or dtype; in the forward, inputs of the wrong shape.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        img_resolution: int | tuple[int, int],
        img_channels: int,
        config: str = "t",
        *,
        mapping_layers: int = 2,
        channel_base: int | None = None,
        channel_max: int | None = None,
        num_layers: int = 14,
        num_critical: int = 2,
        first_cutoff: float = 2,
        first_stopband: float = 2**2.1,
        last_stopband_rel: float = 2**0.3,
        margin_size: int = 10,
        output_scale: float = 0.25,
        num_fp16_res: int = 4,
        half_dtype: torch.dtype = torch.float16,
        half_channels_last: bool = False,
        conv_kernel: int | None = None,
        filter_size: int = 6,
        lrelu_upsampling: int = 2,
        use_radial_filters: bool | None = None,
        conv_clamp: float | None = 256,
        magnitude_ema_beta: float = 0.999,
    ) -> None:
        super().__init__(z_dim, c_dim, img_resolution, img_channels)
        owner = type(self).__name__
        radial = check_choice(owner, "config", config, CONFIGS) == "r"
        self.config = config
        twice = 2 if radial else 1
        conv_kernel = (1 if radial else 3) if conv_kernel is None else check_size(owner, "conv_kernel", conv_kernel)
        if conv_kernel % 2 == 0:
            raise ValueError(f"{owner}: conv_kernel must be odd; got {conv_kernel}")
        self.synthesis = SynthesisNetwork(
            w_dim,
            img_resolution,
            img_channels,
            channel_base=32768 * twice if channel_base is None else channel_base,
            channel_max=512 * twice if channel_max is None else channel_max,
            num_layers=num_layers,
            num_critical=num_critical,
            first_cutoff=first_cutoff,
            first_stopband=first_stopband,
            last_stopband_rel=last_stopband_rel,
            margin_size=margin_size,
            output_scale=output_scale,
            num_fp16_res=num_fp16_res,
            half_dtype=half_dtype,
            half_channels_last=half_channels_last,
            conv_kernel=conv_kernel,
            filter_size=check_size(owner, "filter_size", filter_size),
            lrelu_upsampling=check_size(owner, "lrelu_upsampling", lrelu_upsampling),
            use_radial_filters=radial if use_radial_filters is None else use_radial_filters,
            conv_clamp=conv_clamp,
            magnitude_ema_beta=magnitude_ema_beta,
        )
        self.w_dim, self.num_ws = self.synthesis.w_dim, self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, mapping_layers)

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_emas: bool = False,
    ) -> Tensor:
        """z [N, z_dim], c [N, c_dim] -> images [N, img_channels, height, width], about in [-1, 1]."""
        w = self.mapping(z, c, truncation_psi, truncation_cutoff, update_w_avg=update_emas)
        return self.synthesis(w, update_emas)
