"""The generator of R3GAN."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...nn._checks import check_size
from .._common import levels
from ..network import GeneratorNetwork
from .blocks import Resample, ResidualBlock, ScaledConv2d, ScaledLinear


class Generator(GeneratorNetwork):
    """R3GAN's generator (Huang et al. 2024, "The GAN is dead; long live the GAN!"): a ResNet from z to an image.

    z, and an embedded label beside it, scales the channels of a learned picture of the lowest resolution; each
    resolution has residual blocks, and the last one a 1 x 1 convolution to the image.

    Args:
        z_dim: size of the latent. Default 64.
        c_dim: size of a label; 0 takes none. Default 0.
        img_resolution: the side of the images, or (height, width), as of :class:`imgops.models.stylegan2.Generator`.
            Default 32.
        img_channels: 3 for RGB; 1 and 4 work as well. Default 3.
        channel_base, channel_max: ``min(channel_base / resolution, channel_max)`` channels. Default 24576 and 768.
        blocks: residual blocks of each resolution, >= 1. Default 2.
        embed_dim: size of the embedded label. Default that of z.
        num_fp16_res: how many of the highest resolutions run in half precision (4x4 never does). Default 0.
        half_dtype: torch.bfloat16 (default) or torch.float16. Parameters and images stay float32.

    ``forward(z, c=None)``: z [N, z_dim], c [N, c_dim] -> images [N, img_channels, height, width], about in [-1, 1].

    Raises:
        TypeError, ValueError: a size that is no int in range, a resolution that does not halve so, an unknown dtype;
            in the forward, inputs of the wrong shape.
    """

    def __init__(
        self,
        z_dim: int = 64,
        c_dim: int = 0,
        img_resolution: int | tuple[int, int] = 32,
        img_channels: int = 3,
        *,
        channel_base: int = 24576,
        channel_max: int = 768,
        blocks: int = 2,
        embed_dim: int | None = None,
        num_fp16_res: int = 0,
        half_dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        super().__init__(z_dim, c_dim, img_resolution, img_channels)
        owner = type(self).__name__
        blocks = check_size(owner, "blocks", blocks)
        found = levels(owner, img_resolution, channel_base, channel_max, num_fp16_res, half_dtype)
        self.block_resolutions, self.half_dtypes = list(found), [level.half_dtype for level in found.values()]
        embed_dim = self.z_dim if embed_dim is None else check_size(owner, "embed_dim", embed_dim)
        # of a label one number alone is 1
        self.embed = ScaledLinear(self.c_dim, embed_dim, bias=False, scale=self.c_dim**0.5) if self.c_dim else None
        self.linear = ScaledLinear(self.z_dim + (embed_dim if self.c_dim else 0), found[4].channels, bias=False)
        self.basis = nn.Parameter(torch.empty(found[4].channels, *found[4].shape))
        before = found[4].channels
        for res, (_, channels, _) in found.items():
            stage: list[nn.Module] = [] if res == 4 else [Resample(before, channels, up=True)]
            stage += [ResidualBlock(channels, blocks * len(found)) for _ in range(blocks)]
            before = channels
            self.add_module(f"b{res}", nn.Sequential(*stage))
        self.torgb = ScaledConv2d(before, self.img_channels, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize what no layer holds, for a network that was made on the meta device."""
        nn.init.normal_(self.basis)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        self._check_latents(z, c)
        dtype = self.basis.dtype
        z = z.to(dtype)
        if self.embed is not None and c is not None:
            z = torch.cat([z, self.embed(c.to(dtype))], 1)
        x = self.basis * self.linear(z)[:, :, None, None]
        for res, half_dtype in zip(self.block_resolutions, self.half_dtypes, strict=True):
            x = self.get_submodule(f"b{res}")(x.to(half_dtype or dtype))
        return self.torgb(x.to(dtype))  # type: ignore[no-any-return]
