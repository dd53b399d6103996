"""The generator of StyleGAN2: mapping network and synthesis network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..._settings import shape_of
from ...nn import EqualizedConv2d, MappingNetwork, SynthesisLayer, ToRGB, upsample2d
from ...nn._checks import check_batch, check_choice, check_size
from ...nn._init import set_filter
from ...nn.resample import RESAMPLE_TAPS
from ...nn.synthesis import NOISE_MODES
from ...ops.upfirdn2d import setup_filter
from .._common import ARCHITECTURES, levels
from ..network import GeneratorNetwork


class SynthesisBlock(nn.Module):
    """The layers of one resolution (Karras et al. 2020, figure 7).

    Args:
        in_channels: of the block below; 0 makes the first block, which starts from a learned constant.
        out_channels, w_dim, img_channels: sizes, >= 1.
        resolution: side of the output, or (height, width).
        is_last: the highest resolution, which gives an image in every architecture.
        architecture: "skip" sums an image over the blocks, "resnet" adds each block's input to its output, "orig"
            does neither.
        half_dtype: dtype of the activations in this block; None is w's.
        half_channels_last: lay those out channels-last.
        use_noise, act, resample_filter, conv_clamp: of the layers; see :class:`imgops.nn.SynthesisLayer`.

    ``forward(x, img, w, noise_mode="random", noise=None)``: x [N, in_channels, height / 2, width / 2] or None,
    img likewise with img_channels or None, w [N, num_conv + num_torgb, w_dim], noise None or num_conv tensors ->
    (x, img) of this resolution, img in w's dtype.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int | tuple[int, int],
        img_channels: int,
        *,
        is_last: bool,
        architecture: str,
        half_dtype: torch.dtype | None,
        half_channels_last: bool,
        use_noise: bool,
        act: str,
        resample_filter: tuple[float, ...],
        conv_clamp: float | None,
    ) -> None:
        super().__init__()
        self.is_first = in_channels == 0
        self.resnet = architecture == "resnet" and not self.is_first
        self.half_dtype, self.half_channels_last = half_dtype, half_channels_last
        self.num_conv = 1 if self.is_first else 2
        self.num_torgb = 1 if is_last or architecture == "skip" else 0
        self.taps = resample_filter
        self.register_buffer("resample_filter", setup_filter(resample_filter))

        def layer(channels: int, up: int) -> SynthesisLayer:
            return SynthesisLayer(
                channels,
                out_channels,
                w_dim,
                resolution,
                up=up,
                use_noise=use_noise,
                act=act,
                resample_filter=resample_filter,
                conv_clamp=conv_clamp,
            )

        if self.is_first:
            self.const = nn.Parameter(torch.empty(out_channels, *shape_of(resolution)))
            nn.init.normal_(self.const)
        else:
            self.conv0 = layer(in_channels, up=2)
        self.conv1 = layer(out_channels, up=1)
        if self.num_torgb:
            self.torgb = ToRGB(out_channels, img_channels, w_dim, conv_clamp=conv_clamp)
        if self.resnet:
            # published networks do not clamp the skip
            self.skip = EqualizedConv2d(in_channels, out_channels, 1, bias=False, up=2, resample_filter=resample_filter)

    def reset_parameters(self) -> None:
        """Initialize the block's own parameter and buffer, for one that was made on the meta device."""
        set_filter(self.resample_filter, self.taps)
        if self.is_first:
            nn.init.normal_(self.const)

    def forward(
        self,
        x: Tensor | None,
        img: Tensor | None,
        w: Tensor,
        noise_mode: str = "random",
        noise: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        first, last = (None, None) if noise is None else (noise[0], noise[-1])
        if x is None:
            x = self.const.expand(w.shape[0], -1, -1, -1)
        half = self.half_dtype is not None
        layout = torch.channels_last if half and self.half_channels_last else torch.preserve_format
        x = x.to(dtype=self.half_dtype or w.dtype, memory_format=layout)

        if self.is_first:
            x = self.conv1(x, w[:, 0], noise_mode, noise=last)
        elif self.resnet:
            # the sum of two branches is scaled so that its variance stays the same
            gain = 0.5**0.5
            y = self.skip(x, gain)
            x = self.conv0(x, w[:, 0], noise_mode, noise=first)
            x = self.conv1(x, w[:, 1], noise_mode, gain, last)
            x = y + x
        else:
            x = self.conv0(x, w[:, 0], noise_mode, noise=first)
            x = self.conv1(x, w[:, 1], noise_mode, noise=last)

        if img is not None:
            img = upsample2d(img, self.resample_filter)
        if self.num_torgb:
            y = self.torgb(x, w[:, self.num_conv]).to(dtype=w.dtype, memory_format=torch.contiguous_format)
            img = y if img is None else img + y
        return x, img


class SynthesisNetwork(nn.Module):
    """w to an image, from a learned constant up through one :class:`SynthesisBlock` per resolution.

    The arguments are those of :class:`Generator`. ``forward(w, noise_mode="random", noise=None)``: w [N, num_ws, w_dim]
    -> [N, img_channels, height, width] in w's dtype. ``noise`` takes the place of noise_mode: for each layer that adds
    noise a standard normal tensor [N, 1, height, width], as ``noise_shapes`` lists them.

    Attributes: ``noise_shapes``, [1, height, width] of each layer that adds noise, lowest resolution first.
    """

    def __init__(
        self,
        w_dim: int,
        img_resolution: int | tuple[int, int],
        img_channels: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        architecture: str = "skip",
        num_fp16_res: int = 0,
        half_dtype: torch.dtype = torch.float16,
        half_channels_last: bool = False,
        conv_clamp: float | None = 256,
        use_noise: bool = True,
        act: str = "lrelu",
        resample_filter: tuple[float, ...] = RESAMPLE_TAPS,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        self.w_dim = check_size(owner, "w_dim", w_dim)
        self.img_channels = check_size(owner, "img_channels", img_channels)
        check_choice(owner, "architecture", architecture, ARCHITECTURES)
        found = levels(owner, img_resolution, channel_base, channel_max, num_fp16_res, half_dtype)
        self.block_resolutions, self.img_resolution = list(found), img_resolution
        self.img_height, self.img_width = found[self.block_resolutions[-1]].shape
        # the w's that each block takes, as a slice [start, stop) of the num_ws
        self.w_ranges: list[tuple[int, int]] = []
        self.noise_shapes: list[tuple[int, int, int]] = []
        in_channels = start = 0
        for res, (shape, channels, half) in found.items():
            block = SynthesisBlock(
                in_channels,
                channels,
                w_dim,
                shape,
                img_channels,
                is_last=res == self.block_resolutions[-1],
                architecture=architecture,
                half_dtype=half,
                half_channels_last=half_channels_last,
                use_noise=use_noise,
                act=act,
                resample_filter=resample_filter,
                conv_clamp=conv_clamp,
            )
            self.w_ranges.append((start, start + block.num_conv + block.num_torgb))
            # ToRGB shares its w with the first convolution of the next block
            start += block.num_conv
            self.add_module(f"b{res}", block)
            in_channels = channels
            if use_noise:
                self.noise_shapes += [(1, *shape)] * block.num_conv
        self.num_ws = self.w_ranges[-1][1]

    def forward(self, w: Tensor, noise_mode: str = "random", noise: Sequence[Tensor] | None = None) -> Tensor:
        owner = type(self).__name__
        check_batch(owner, "w", w, (self.num_ws, self.w_dim))
        check_choice(owner, "noise_mode", noise_mode, NOISE_MODES)
        if noise is not None:
            self._check_noise(owner, noise)
        w = w.to(self.get_parameter("b4.const").dtype)
        x: Any = None
        img: Any = None
        layers = 0
        for res, (start, stop) in zip(self.block_resolutions, self.w_ranges, strict=True):
            block: Any = self.get_submodule(f"b{res}")
            own = None if noise is None else noise[layers : layers + block.num_conv]
            x, img = block(x, img, w[:, start:stop], noise_mode, own)
            layers += block.num_conv
        return img

    def _check_noise(self, owner: str, noise: Sequence[Tensor]) -> None:
        if len(noise) != (layers := len(self.noise_shapes)):
            raise ValueError(f"{owner}: noise must be {layers} tensors, one for each layer; got {len(noise)}")
        for tensor, shape in zip(noise, self.noise_shapes, strict=True):
            check_batch(owner, "noise", tensor, shape)

    def extra_repr(self) -> str:
        return f"w_dim={self.w_dim}, num_ws={self.num_ws}, img_resolution={self.img_resolution}"


class Generator(GeneratorNetwork):
    """StyleGAN2's generator (Karras et al. 2020), with optional labels.

    Args:
        z_dim, w_dim: sizes of the latent and of the intermediate latent. Published networks: 512.
        c_dim: size of a label; 0 takes none.
        img_resolution: the side of the images, or (height, width): 8 to 4096 pixels that halve together until the
            shorter is at most 16. Blocks are named by 4, 8, 16, ..., whatever the shape that the images start from.
        img_channels: 3 for RGB; 1 and 4 work as well.
        mapping_layers: default 8.
        channel_base, channel_max: ``min(channel_base / resolution, channel_max)`` channels. Default 32768, 512.
        architecture: "skip" (default), "resnet" or "orig".
        num_fp16_res: how many of the highest resolutions run in half precision (4x4 never does). Default 0.
        half_dtype: torch.float16 (default) or torch.bfloat16. Parameters and images stay float32.
        half_channels_last: lay the half-precision activations out channels-last. Default False.
        conv_clamp: largest magnitude of what a convolution (other than a skip of "resnet") or ToRGB returns, >= 0, in
            every precision; None: no limit. Default 256.
        use_noise: False leaves the layers' noise out. Default True.
        act: activation of the synthesis layers. Default "lrelu".
        resample_filter: taps of the low-pass filter of up-sampling. Default [1, 3, 3, 1].

    Attributes: ``mapping`` (z, c -> w [N, num_ws, w_dim], see :class:`MappingNetwork`), ``synthesis`` (w -> image, see
    :class:`SynthesisNetwork`), ``num_ws``, and the sizes above.

    Raises:
        TypeError, ValueError: a size that is no int in range, a resolution that does not halve so, an unknown
            architecture, act or dtype; in the forward, inputs of the wrong shape, an unknown noise_mode.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        img_resolution: int | tuple[int, int],
        img_channels: int,
        mapping_layers: int = 8,
        channel_base: int = 32768,
        channel_max: int = 512,
        architecture: str = "skip",
        num_fp16_res: int = 0,
        half_dtype: torch.dtype = torch.float16,
        half_channels_last: bool = False,
        conv_clamp: float | None = 256,
        use_noise: bool = True,
        act: str = "lrelu",
        resample_filter: tuple[float, ...] = RESAMPLE_TAPS,
    ) -> None:
        super().__init__(z_dim, c_dim, img_resolution, img_channels)
        self.synthesis = SynthesisNetwork(
            w_dim,
            img_resolution,
            img_channels,
            channel_base,
            channel_max,
            architecture,
            num_fp16_res,
            half_dtype,
            half_channels_last,
            conv_clamp,
            use_noise,
            act,
            resample_filter,
        )
        self.w_dim, self.num_ws = self.synthesis.w_dim, self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, mapping_layers)

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_w_avg: bool = False,
        noise_mode: str = "random",
    ) -> Tensor:
        """z [N, z_dim], c [N, c_dim] -> images [N, img_channels, height, width], about in [-1, 1]."""
        w = self.mapping(z, c, truncation_psi, truncation_cutoff, update_w_avg)
        return self.synthesis(w, noise_mode)
