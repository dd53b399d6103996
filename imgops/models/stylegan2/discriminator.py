"""The discriminator of StyleGAN2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...nn import EqualizedConv2d, EqualizedLinear, MappingNetwork, MinibatchStdDev, downsample2d
from ...nn._checks import check_choice, check_size
from ...nn._init import set_filter
from ...nn.resample import RESAMPLE_TAPS
from ...ops.upfirdn2d import setup_filter
from .._common import ARCHITECTURES, levels
from ..network import DiscriminatorNetwork


class DiscriminatorBlock(nn.Module):
    """The layers of one resolution (Karras et al. 2020, figure 7).

    Args:
        in_channels: of the block above; 0 makes the first block, which reads the image alone.
        channels, out_channels: inside the block, and of its output.
        img_channels: of the image.
        architecture: "skip" reads the image, down-sampled, at every resolution, "resnet" adds each block's input to
            its output, "orig" does neither.
        half_dtype: dtype of the activations in this block; None is the weights'.
        half_channels_last: lay those out channels-last.
        act, resample_filter, conv_clamp: of the layers; see :class:`imgops.nn.EqualizedConv2d`.

    ``forward(x, img)``: x [N, in_channels, R, R] or None, img [N, img_channels, R, R] -> x [N, out_channels, R / 2,
    R / 2] and img down-sampled likewise ("skip") or None.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        channels: int,
        out_channels: int,
        img_channels: int,
        *,
        architecture: str,
        half_dtype: torch.dtype | None,
        half_channels_last: bool,
        act: str,
        resample_filter: tuple[float, ...],
        conv_clamp: float | None,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.reads_image = in_channels == 0 or architecture == "skip"
        self.half_dtype, self.half_channels_last = half_dtype, half_channels_last
        self.taps = resample_filter
        self.register_buffer("resample_filter", setup_filter(resample_filter))

        def conv(inputs: int, outputs: int, kernel_size: int, down: int = 1) -> EqualizedConv2d:
            return EqualizedConv2d(
                inputs, outputs, kernel_size, act=act, down=down, resample_filter=resample_filter, conv_clamp=conv_clamp
            )

        if self.reads_image:
            self.fromrgb = conv(img_channels, channels, 1)
        self.conv0 = conv(channels, channels, 3)
        self.conv1 = conv(channels, out_channels, 3, down=2)
        if architecture == "resnet":
            # published networks do not clamp the skip
            self.skip = EqualizedConv2d(channels, out_channels, 1, bias=False, down=2, resample_filter=resample_filter)

    def reset_parameters(self) -> None:
        """Initialize the filter, for a block that was made on the meta device."""
        set_filter(self.resample_filter, self.taps)

    def forward(self, x: Tensor | None, img: Tensor | None) -> tuple[Tensor, Tensor | None]:
        dtype = self.half_dtype or self.conv0.weight.dtype
        half = self.half_dtype is not None
        layout = torch.channels_last if half and self.half_channels_last else torch.preserve_format
        if x is not None:
            x = x.to(dtype=dtype, memory_format=layout)
        if self.reads_image and img is not None:
            y = self.fromrgb(img.to(dtype=dtype, memory_format=layout))
            x = y if x is None else x + y
            img = downsample2d(img, self.resample_filter) if self.architecture == "skip" else None
        if self.architecture == "resnet":
            # the sum of two branches is scaled so that its variance stays the same
            gain = 0.5**0.5
            y = self.skip(x, gain)
            x = self.conv1(self.conv0(x), gain)
            return y + x, img
        return self.conv1(self.conv0(x)), img


class DiscriminatorEpilogue(nn.Module):
    """The layers of the smallest shape: minibatch standard deviation, convolution, two linear layers; full precision.

    Args:
        in_channels: of the block above, and of the layers here.
        cmap_dim: size of the mapped label, onto which the output is projected; 0 takes none.
        shape: the smallest height and width. Default (4, 4).
        img_channels, architecture, act: as in :class:`DiscriminatorBlock`.
        mbstd_group_size, mbstd_num_channels: of :class:`imgops.nn.MinibatchStdDev`; 0 channels leave it out.
        resample_filter, conv_clamp: of the 3x3 convolution; see :class:`imgops.nn.EqualizedConv2d`.

    ``forward(x, img, cmap)``: x [N, in_channels, height, width], img likewise with img_channels for "skip", cmap
    [N, cmap_dim] or None -> logits [N, 1].
    """

    def __init__(
        self,
        in_channels: int,
        cmap_dim: int,
        img_channels: int,
        *,
        architecture: str,
        act: str,
        mbstd_group_size: int | None,
        mbstd_num_channels: int,
        resample_filter: tuple[float, ...],
        conv_clamp: float | None,
        shape: tuple[int, int] = (4, 4),
    ) -> None:
        super().__init__()
        self.cmap_dim = cmap_dim
        if architecture == "skip":
            # published networks do not clamp this convolution
            self.fromrgb = EqualizedConv2d(img_channels, in_channels, 1, act=act, resample_filter=resample_filter)
        self.reads_image = architecture == "skip"
        self.mbstd = MinibatchStdDev(mbstd_group_size, mbstd_num_channels) if mbstd_num_channels > 0 else None
        self.conv = EqualizedConv2d(
            in_channels + mbstd_num_channels,
            in_channels,
            3,
            act=act,
            resample_filter=resample_filter,
            conv_clamp=conv_clamp,
        )
        self.fc = EqualizedLinear(in_channels * shape[0] * shape[1], in_channels, act=act)
        self.out = EqualizedLinear(in_channels, cmap_dim or 1)

    def forward(self, x: Tensor, img: Tensor | None, cmap: Tensor | None) -> Tensor:
        dtype = self.conv.weight.dtype
        x = x.to(dtype=dtype, memory_format=torch.contiguous_format)
        if self.reads_image and img is not None:
            x = x + self.fromrgb(img.to(dtype))
        if self.mbstd is not None:
            x = self.mbstd(x)
        x = self.out(self.fc(self.conv(x).flatten(1)))
        # the projection has unit variance if its factors have
        return x if cmap is None else (x * cmap).sum(dim=1, keepdim=True) * self.cmap_dim**-0.5


class Discriminator(DiscriminatorNetwork):
    """StyleGAN2's discriminator (Karras et al. 2020), with optional labels (Karras et al. 2020, "ADA").

    With labels, a mapping network takes c to cmap_dim features, and the logit is their dot product with the last
    layer's output, divided by ``sqrt(cmap_dim)`` (projection, Miyato & Koyama 2018).

    Args:
        c_dim: size of a label; 0 takes none.
        img_resolution: the side of the images, or (height, width), as of
            :class:`imgops.models.stylegan2.Generator`.
        img_channels: 3 for RGB; 1 and 4 work as well.
        channel_base, channel_max: ``min(channel_base / resolution, channel_max)`` channels. Default 32768, 512.
        architecture: "resnet" (default), "skip" or "orig".
        mbstd_group_size: samples per group of the minibatch standard deviation, which must divide the batch. A batch
            that is smaller is one group; with None every batch is. Default 4.
        mapping_layers: of the labels' mapping network. Default 8.
        num_fp16_res: how many of the highest resolutions run in half precision (4x4 never does). Default 0.
        half_dtype: torch.float16 (default) or torch.bfloat16. Parameters and logits stay float32.
        half_channels_last: lay the half-precision activations out channels-last. Default False.
        conv_clamp: largest magnitude of what a 3x3 convolution, or a 1x1 convolution of the image above 4x4, returns,
            >= 0, in every precision; None: no limit. Default 256.
        cmap_dim: size of the mapped label; default: the channels at 4x4.
        mbstd_num_channels: feature maps that the minibatch standard deviation adds; 0 leaves it out. Default 1.
        act: activation. Default "lrelu".
        resample_filter: taps of the low-pass filter of down-sampling. Default [1, 3, 3, 1].

    ``forward(img, c=None)``: img [N, img_channels, height, width], about in [-1, 1], c [N, c_dim] ->
    logits [N, 1]; above 0 for real.

    Raises:
        TypeError, ValueError: a size that is no int in range, a resolution that no generator has, an unknown
            architecture, act or dtype; in the forward, inputs of the wrong shape.
    """

    def __init__(
        self,
        c_dim: int,
        img_resolution: int | tuple[int, int],
        img_channels: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        architecture: str = "resnet",
        mbstd_group_size: int | None = 4,
        mapping_layers: int = 8,
        num_fp16_res: int = 0,
        half_dtype: torch.dtype = torch.float16,
        half_channels_last: bool = False,
        conv_clamp: float | None = 256,
        cmap_dim: int | None = None,
        mbstd_num_channels: int = 1,
        act: str = "lrelu",
        resample_filter: tuple[float, ...] = RESAMPLE_TAPS,
    ) -> None:
        super().__init__(c_dim, img_resolution, img_channels)
        owner = type(self).__name__
        mbstd_num_channels = check_size(owner, "mbstd_num_channels", mbstd_num_channels, 0)
        check_choice(owner, "architecture", architecture, ARCHITECTURES)
        # from the highest resolution down; the 4x4 layers come last and are different
        found = levels(owner, img_resolution, channel_base, channel_max, num_fp16_res, half_dtype)
        *self.block_resolutions, _ = sizes = list(found)[::-1]
        if self.c_dim == 0:
            cmap_dim = 0
        elif cmap_dim is None:
            cmap_dim = found[4].channels
        else:
            cmap_dim = check_size(owner, "cmap_dim", cmap_dim)
        for res in self.block_resolutions:
            block = DiscriminatorBlock(
                found[res].channels if res < sizes[0] else 0,
                found[res].channels,
                found[res // 2].channels,
                img_channels,
                architecture=architecture,
                half_dtype=found[res].half_dtype,
                half_channels_last=half_channels_last,
                act=act,
                resample_filter=resample_filter,
                conv_clamp=conv_clamp,
            )
            self.add_module(f"b{res}", block)
        if c_dim > 0:
            self.mapping = MappingNetwork(0, c_dim, cmap_dim, None, mapping_layers)
        self.b4 = DiscriminatorEpilogue(
            found[4].channels,
            cmap_dim,
            img_channels,
            architecture=architecture,
            act=act,
            mbstd_group_size=mbstd_group_size,
            mbstd_num_channels=mbstd_num_channels,
            resample_filter=resample_filter,
            conv_clamp=conv_clamp,
            shape=found[4].shape,
        )

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        self._check_images(img, c)
        x, rest = None, img
        for res in self.block_resolutions:
            x, rest = self.get_submodule(f"b{res}")(x, rest)
        cmap = self.mapping(None, c) if self.c_dim > 0 else None
        return self.b4(x, rest, cmap)
