"""VQ-VAE with one level of codes or two, and the prior from which they are drawn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..._settings import Resolution, shape_of
from ...nn import FusedConv2d
from ...nn._checks import check_batch, check_size
from ...nn.quantize import VectorQuantizer
from .._common import check_resolution
from ..autoencoder import Decoder, Encoder
from ..network import GeneratorNetwork
from .prior import CodePrior


def grids_of(owner: str, img_resolution: Resolution, levels: int, two_levels: bool) -> list[tuple[int, int]]:
    """The (height, width) of each grid of codes, the coarsest first."""
    height, width = shape_of(check_resolution(owner, img_resolution))
    step = 2 ** (levels + two_levels)
    if height % step or width % step:
        raise ValueError(f"{owner}: img_resolution must be divisible by {step}; got {width} x {height}")
    return [(height // step, width // step)] * two_levels + [(height >> levels, width >> levels)]


class VQVAE(GeneratorNetwork):
    """Vector-quantized autoencoder (van den Oord et al. 2017), with two levels as in VQ-VAE-2 (Razavi et al. 2019).

    A picture becomes a grid of codes, each one of ``num_codes`` vectors; of two levels the coarser one is quantized
    first, and the finer one sees it. A small PixelCNN for each level says how likely codes are, so that pictures can be
    drawn.

    Args:
        c_dim: size of a label, which the priors see; 0 takes none. Default 0.
        img_resolution: the side of the pictures, or (height, width), divisible by 2 ** levels, with two levels by twice
            that. Default 64.
        img_channels: 3 for RGB; 1 and 4 work as well. Default 3.
        levels: how often the sides are halved to the (finer) grid. Default 2.
        two_levels: a second grid of half the sides. Default False.
        num_codes, code_dim: vectors of each codebook, and their size. Default 512 and 64.
        channels, channel_max: of the finest layers, doubled with each halving up to the limit. Default 64 and 128.
        blocks: residual blocks of each level, >= 0. Default 2.
        prior_channels, prior_layers: of the PixelCNN. Default 128 and 6.

    ``encode(img)``: the indices of the codes [N, h, w] of each level, the coarsest first. ``decode(indices)``: the
    pictures. ``reconstruct(img, c=None)``: both. ``forward(z, c=None)``: pictures of standard normal z [N, z_dim], of
    which each number draws one code; ``z_dim`` is how many codes a picture has.

    Raises:
        TypeError, ValueError: a size that is no int in range, a resolution that does not divide so; in calls, inputs of
            the wrong shape.
    """

    # each number of z draws a code
    smooth = False

    def __init__(
        self,
        c_dim: int = 0,
        img_resolution: Resolution = 64,
        img_channels: int = 3,
        *,
        levels: int = 2,
        two_levels: bool = False,
        num_codes: int = 512,
        code_dim: int = 64,
        channels: int = 64,
        channel_max: int = 128,
        blocks: int = 2,
        prior_channels: int = 128,
        prior_layers: int = 6,
    ) -> None:
        owner = type(self).__name__
        levels, num_codes = check_size(owner, "levels", levels), check_size(owner, "num_codes", num_codes)
        grids = grids_of(owner, img_resolution, levels, two_levels)
        super().__init__(sum(h * w for h, w in grids), c_dim, img_resolution, img_channels)
        self.grids = grids
        code_dim, channels = check_size(owner, "code_dim", code_dim), check_size(owner, "channels", channels)
        channel_max, blocks = check_size(owner, "channel_max", channel_max), check_size(owner, "blocks", blocks, 0)
        prior_channels = check_size(owner, "prior_channels", prior_channels)
        prior_layers = check_size(owner, "prior_layers", prior_layers, 0)
        self.encoder = Encoder(self.img_channels, channels, channel_max, levels, blocks)
        wide = self.encoder.out_channels
        self.to_code = FusedConv2d(wide + code_dim * two_levels, code_dim, 1)
        self.quantizer = VectorQuantizer(num_codes, code_dim)
        self.encoder_top = Encoder(wide, wide, wide, 1, blocks) if two_levels else None
        self.to_code_top = FusedConv2d(wide, code_dim, 1) if two_levels else None
        self.quantizer_top = VectorQuantizer(num_codes, code_dim) if two_levels else None
        self.decoder_top = Decoder(code_dim, wide, wide, 1, blocks) if two_levels else None
        self.from_code_top = FusedConv2d(code_dim, wide, 1) if two_levels else None
        self.from_code = FusedConv2d(
            code_dim * len(self.grids), self.decoder_channels(channels, channel_max, levels), 1
        )
        self.decoder = Decoder(self.img_channels, channels, channel_max, levels, blocks)
        self.priors = nn.ModuleList(
            CodePrior(num_codes, prior_channels, prior_layers, self.c_dim, coarser=i > 0)
            for i in range(len(self.grids))
        )

    @staticmethod
    def decoder_channels(channels: int, channel_max: int, levels: int) -> int:
        """The channels that the decoder takes."""
        return min(channels * 2**levels, channel_max)

    @property
    def quantizers(self) -> list[VectorQuantizer]:
        """Of each level, the coarsest first."""
        return [quantizer for quantizer in (self.quantizer_top, self.quantizer) if quantizer is not None]

    def quantize(self, img: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """img [N, img_channels, height, width] -> what the decoder made of the codes; the vectors before they were
        quantized [N, code_dim, h, w] and the indices [N, h, w] of each level, the coarsest first."""
        check_batch(type(self).__name__, "img", img, self._img_shape)
        features = self.encoder(img.to(self.to_code.weight.dtype))
        vectors, indices, values = [], [], []
        if self.encoder_top is not None and self.to_code_top is not None and self.quantizer_top is not None:
            vectors.append(self.to_code_top(self.encoder_top(features)))
            value, index = self.quantizer_top(vectors[0])
            values.append(value)
            indices.append(index)
            features = torch.cat([features, self._finer(value)], 1)
        vectors.append(self.to_code(features))
        value, index = self.quantizer(vectors[-1])
        return self._decoded([*values, value]), vectors, [*indices, index]

    def _finer(self, value: Tensor) -> Tensor:
        """The coarser codes on the finer grid."""
        assert self.decoder_top is not None
        assert self.from_code_top is not None
        return self.decoder_top(self.from_code_top(value))  # type: ignore[no-any-return]

    def _decoded(self, values: list[Tensor]) -> Tensor:
        parts = [self._finer(value) for value in values[:-1]]
        return self.decoder(self.from_code(torch.cat([*parts, values[-1]], 1)))  # type: ignore[no-any-return]

    def encode(self, img: Tensor) -> list[Tensor]:
        """img [N, img_channels, height, width] -> the indices of its codes, int64 [N, h, w] of each level."""
        return self.quantize(img)[2]

    def decode(self, indices: list[Tensor]) -> Tensor:
        """The indices of each level -> pictures [N, img_channels, height, width]."""
        return self._decoded([q.look_up(index) for q, index in zip(self.quantizers, indices, strict=True)])

    def reconstruct(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        """Pictures through both halves; labels change nothing."""
        return self.quantize(img)[0]

    def likelihoods(self, indices: list[Tensor], c: Tensor | None = None) -> list[Tensor]:
        """The logits [N, num_codes, h, w] of each level's codes, given those before."""
        above = [None, *indices[:-1]]
        return [prior(index, c, top) for prior, index, top in zip(self.priors, indices, above, strict=True)]

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        self._check_latents(z, c)
        # a standard normal number is below itself with a probability that is spread evenly
        uniform = torch.special.ndtr(z.to(self.to_code.weight.dtype))
        indices: list[Tensor] = []
        for prior, (h, w), part in zip(
            self.priors, self.grids, uniform.split([h * w for h, w in self.grids], 1), strict=True
        ):
            indices.append(prior.draw(part.unflatten(1, (h, w)), c, indices[-1] if indices else None))  # type: ignore[operator]
        return self.decode(indices)

    def everything(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """A picture through both halves, and how likely its codes are."""
        img = z.new_empty(len(z), *self._img_shape)
        made, _, indices = self.quantize(img)
        self.likelihoods(indices, c)
        return made

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, grids={self.grids}"
