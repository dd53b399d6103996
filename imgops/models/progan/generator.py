"""The generator of ProGAN."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...nn import EqualizedConv2d, EqualizedLinear, pixel_norm
from .._common import levels
from ..network import GeneratorNetwork
from .growing import Growing, doubled

#: each pixel becomes a square of four
NEAREST = (1.0, 1.0)


class GeneratorBlock(nn.Module):
    """The layers of one level: pixels doubled but for the first, two convolutions, each with pixel norm.

    Karras et al. 2018, table 2. The first level makes its pixels of the latent by a fully connected layer, and has one
    convolution.

    Args:
        in_channels: of the level below; of the first level, the size of the latent.
        out_channels: of the level.
        shape: of the first level's pictures, (height, width); None for the others.

    Shapes: x [N, in_channels, H / 2, W / 2], of the first level [N, in_channels] -> [N, out_channels, H, W] in x's
    dtype.
    """

    def __init__(self, in_channels: int, out_channels: int, shape: tuple[int, int] | None) -> None:
        super().__init__()
        self.shape = shape
        if shape is None:
            self.conv0 = EqualizedConv2d(in_channels, out_channels, 3, act="lrelu", up=2, resample_filter=NEAREST)
        else:
            self.linear = EqualizedLinear(in_channels, out_channels * shape[0] * shape[1], act="lrelu")
        self.conv1 = EqualizedConv2d(out_channels, out_channels, 3, act="lrelu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv0(x) if self.shape is None else self.linear(x).unflatten(1, (-1, *self.shape))
        return pixel_norm(self.conv1(pixel_norm(x)))


class Generator(Growing, GeneratorNetwork):
    """ProGAN's generator (Karras et al. 2018, "Progressive Growing of GANs"), with optional labels beside the latent.

    Weights have the equalized learning rate; leaky ReLU has the gain of sqrt(2) that the paper's weights have.

    Args:
        z_dim: size of the latent. Default 512.
        c_dim: size of a label; 0 takes none. Default 0.
        img_resolution: the side of the images, or (height, width), as of :class:`imgops.models.stylegan2.Generator`.
            Default 64.
        img_channels: 3 for RGB; 1 and 4 work as well. Default 3.
        channel_base, channel_max: ``min(channel_base / resolution, channel_max)`` channels. Default 16384 and 512.
        num_fp16_res: how many of the highest resolutions run in half precision (4x4 never does). Default 0.
        half_dtype: torch.float16 (default) or torch.bfloat16. Parameters and images stay float32.

    ``forward(z, c=None)``: z [N, z_dim], c [N, c_dim] -> images [N, img_channels, height, width], about in [-1, 1]; of
    a network that still grows, those of its highest level in use, enlarged. ``grown(z, c=None)`` gives these as they
    are; :meth:`Growing.grow` says which that is.

    Raises:
        TypeError, ValueError: a size that is no int in range, a resolution that does not halve so, an unknown dtype;
            in the forward, inputs of the wrong shape.
    """

    def __init__(
        self,
        z_dim: int = 512,
        c_dim: int = 0,
        img_resolution: int | tuple[int, int] = 64,
        img_channels: int = 3,
        *,
        channel_base: int = 16384,
        channel_max: int = 512,
        num_fp16_res: int = 0,
        half_dtype: torch.dtype = torch.float16,
    ) -> None:
        super().__init__(z_dim, c_dim, img_resolution, img_channels)
        owner = type(self).__name__
        found = levels(owner, img_resolution, channel_base, channel_max, num_fp16_res, half_dtype)
        self.block_resolutions, self.half_dtypes = list(found), [level.half_dtype for level in found.values()]
        before = self.z_dim + self.c_dim
        for i, (res, (shape, channels, _)) in enumerate(found.items()):
            self.add_module(f"b{res}", GeneratorBlock(before, channels, shape if i == 0 else None))
            self.add_module(f"torgb{res}", EqualizedConv2d(channels, self.img_channels, 1))
            before = channels
        self._begin(len(found))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        return doubled(self.grown(z, c), self.levels - 1 - self.top)

    def grown(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """The images of the highest level in use, [N, img_channels, height, width] by 2 ** (levels - 1 - top)."""
        self._check_latents(z, c)
        dtype = self.get_parameter("b4.conv1.weight").dtype
        x = pixel_norm(z.to(dtype))
        if c is not None and self.c_dim:
            x = torch.cat([x, c.to(dtype)], 1)
        below = x
        for i in range(self.top + 1):
            below, x = x, self._layer("b", i)(x.to(self.half_dtypes[i] or dtype))
        img = self._layer("torgb", self.top)(x).to(dtype)
        if self.fading:
            img = doubled(self._layer("torgb", self.top - 1)(below).to(dtype)).lerp(img, self.share)
        return img  # type: ignore[no-any-return]

    def _layer(self, name: str, level: int) -> nn.Module:
        return self.get_submodule(f"{name}{self.block_resolutions[level]}")
