"""The discriminator of R3GAN."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...nn._checks import check_size
from .._common import levels
from ..network import DiscriminatorNetwork
from .blocks import Resample, ResidualBlock, ScaledConv2d, ScaledLinear


class Discriminator(DiscriminatorNetwork):
    """R3GAN's discriminator (Huang et al. 2024), the mirror image of its generator, without minibatch statistics.

    Args:
        c_dim: size of a label; 0 takes none. Default 0.
        img_resolution, img_channels, channel_base, channel_max, blocks, num_fp16_res, half_dtype: as of
            :class:`imgops.models.r3gan.Generator`.
        embed_dim: size of the embedded label, whose dot product with the last layer's output is the logit. Default 64.

    ``forward(img, c=None)``: img [N, img_channels, height, width], about in [-1, 1], c [N, c_dim] -> logits [N, 1].

    Raises:
        TypeError, ValueError: as of the generator.
    """

    def __init__(
        self,
        c_dim: int = 0,
        img_resolution: int | tuple[int, int] = 32,
        img_channels: int = 3,
        *,
        channel_base: int = 24576,
        channel_max: int = 768,
        blocks: int = 2,
        embed_dim: int = 64,
        num_fp16_res: int = 0,
        half_dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        super().__init__(c_dim, img_resolution, img_channels)
        owner = type(self).__name__
        blocks, embed_dim = check_size(owner, "blocks", blocks), check_size(owner, "embed_dim", embed_dim)
        found = levels(owner, img_resolution, channel_base, channel_max, num_fp16_res, half_dtype)
        self.block_resolutions = list(found)[::-1]
        self.half_dtypes = [found[res].half_dtype for res in self.block_resolutions]
        self.fromrgb = ScaledConv2d(self.img_channels, found[self.block_resolutions[0]].channels, 1)
        for res in self.block_resolutions:
            channels = found[res].channels
            stage: list[nn.Module] = [ResidualBlock(channels, blocks * len(found)) for _ in range(blocks)]
            if res > 4:
                stage.append(Resample(channels, found[res // 2].channels, up=False))
            self.add_module(f"b{res}", nn.Sequential(*stage))
        last = found[4].channels
        # the counterpart of the generator's learned picture: a weight for each pixel of each channel
        self.basis = nn.Parameter(torch.empty(last, *found[4].shape))
        self.linear = ScaledLinear(last, embed_dim if self.c_dim else 1, bias=False)
        # of a label one number alone is 1
        self.embed = ScaledLinear(self.c_dim, embed_dim, bias=False, scale=self.c_dim**0.5) if self.c_dim else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize what no layer holds, for a network that was made on the meta device."""
        nn.init.normal_(self.basis, std=self.basis[0].numel() ** -0.5)

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        self._check_images(img, c)
        dtype = self.basis.dtype
        x = self.fromrgb(img.to(dtype))
        for res, half_dtype in zip(self.block_resolutions, self.half_dtypes, strict=True):
            x = self.get_submodule(f"b{res}")(x.to(half_dtype or dtype))
        x = self.linear((x.to(dtype) * self.basis).sum([2, 3]))
        if self.embed is None or c is None:
            return x
        embedded = self.embed(c.to(dtype))
        return (x * embedded).sum(1, keepdim=True) * embedded.shape[1] ** -0.5
