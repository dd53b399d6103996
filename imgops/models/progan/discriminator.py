"""The discriminator of ProGAN and of StyleGAN1."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ...nn import EqualizedConv2d, EqualizedLinear, MinibatchStdDev
from .._common import levels
from ..network import DiscriminatorNetwork
from .generator import NEAREST
from .growing import Growing, halved_often


class DiscriminatorBlock(nn.Module):
    """The layers of one level: two convolutions, the second of which halves the sides.

    Args:
        in_channels, out_channels: sizes.
        resample_filter: taps of the filter by which it halves.

    Shapes: x [N, in_channels, H, W] -> [N, out_channels, H / 2, W / 2] in x's dtype.
    """

    def __init__(self, in_channels: int, out_channels: int, resample_filter: tuple[float, ...]) -> None:
        super().__init__()
        self.conv0 = EqualizedConv2d(in_channels, in_channels, 3, act="lrelu")
        self.conv1 = EqualizedConv2d(in_channels, out_channels, 3, act="lrelu", down=2, resample_filter=resample_filter)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1(self.conv0(x))  # type: ignore[no-any-return]


class LastBlock(nn.Module):
    """The layers of the smallest pictures, to a vector: the minibatch's deviation, a convolution, a full connection.

    Args:
        channels: of input and output.
        shape: (height, width) of the pictures.
        mbstd_group_size: images over which the deviation is taken; None is the batch.

    Shapes: x [N, channels, height, width] -> [N, channels].
    """

    def __init__(self, channels: int, shape: tuple[int, int], mbstd_group_size: int | None) -> None:
        super().__init__()
        self.mbstd = MinibatchStdDev(mbstd_group_size)
        self.conv = EqualizedConv2d(channels + 1, channels, 3, act="lrelu")
        self.linear = EqualizedLinear(channels * shape[0] * shape[1], channels, act="lrelu")

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.conv(self.mbstd(x)).flatten(1))  # type: ignore[no-any-return]


class Discriminator(Growing, DiscriminatorNetwork):
    """ProGAN's discriminator (Karras et al. 2018, table 2), the mirror image of the generator, with optional labels.

    With labels the logit is moved by the dot product of an embedded label and the features (projection, Miyato & Koyama
    2018).

    Args:
        c_dim, img_resolution, img_channels, channel_base, channel_max, num_fp16_res, half_dtype: as of
            :class:`Generator`.
        mbstd_group_size: images over which the deviation is taken, which divides the batch; None is the batch.
            Default 4.

    ``forward(img, c=None)``: img [N, img_channels, H, W], of the highest level in use, c [N, c_dim] -> logits [N, 1].

    Raises:
        TypeError, ValueError: as of the generator.
    """

    #: of the filter by which a level halves: the mean of four pixels
    taps: ClassVar[tuple[float, ...]] = NEAREST

    def __init__(
        self,
        c_dim: int = 0,
        img_resolution: int | tuple[int, int] = 64,
        img_channels: int = 3,
        *,
        channel_base: int = 16384,
        channel_max: int = 512,
        mbstd_group_size: int | None = 4,
        num_fp16_res: int = 0,
        half_dtype: torch.dtype = torch.float16,
    ) -> None:
        super().__init__(c_dim, img_resolution, img_channels)
        owner = type(self).__name__
        found = levels(owner, img_resolution, channel_base, channel_max, num_fp16_res, half_dtype)
        self.block_resolutions, self.shapes = list(found), [level.shape for level in found.values()]
        self.half_dtypes = [level.half_dtype for level in found.values()]
        first = before = found[4].channels
        for res, (shape, channels, _) in found.items():
            last = LastBlock(channels, shape, mbstd_group_size) if res == 4 else None
            self.add_module(f"b{res}", last or DiscriminatorBlock(channels, before, self.taps))
            self.add_module(f"fromrgb{res}", EqualizedConv2d(self.img_channels, channels, 1, act="lrelu"))
            before = channels
        self.out = EqualizedLinear(first, 1)
        self.embed = EqualizedLinear(self.c_dim, first, bias=False) if self.c_dim else None
        self._begin(len(found))

    @property
    def _img_shape(self) -> tuple[int, int, int]:
        # of the highest level in use
        return self.img_channels, *self.shapes[self.top]

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        self._check_images(img, c)
        dtype = self.out.weight.dtype
        img = img.to(dtype)
        x = self._read(img, self.top)
        for i in range(self.top, -1, -1):
            x = self._layer("b", i)(x.to(self.half_dtypes[i] or dtype))
            if self.fading and i == self.top:
                below = self._read(halved_often(img, 1), i - 1)
                x = below.lerp(x.to(below.dtype), self.share.to(below.dtype))
        features = x.to(dtype)
        logits = self.out(features)
        if self.embed is None or c is None:
            return logits  # type: ignore[no-any-return]
        return logits + (self.embed(c.to(dtype)) * features).sum(1, keepdim=True) * features.shape[1] ** -0.5

    def _read(self, img: Tensor, level: int) -> Tensor:
        """What a level makes of the image."""
        return self._layer("fromrgb", level)(img.to(self.half_dtypes[level] or img.dtype))  # type: ignore[no-any-return]

    def _layer(self, name: str, level: int) -> nn.Module:
        return self.get_submodule(f"{name}{self.block_resolutions[level]}")
