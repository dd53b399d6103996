"""A convolutional autoencoder with a vector between its halves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..._settings import Resolution
from ...nn._checks import check_batch, check_choice, check_labels, check_size
from .._common import halved
from ..network import GeneratorNetwork
from .layers import Decoder, Encoder, LabelEmbedding

#: how a decoder's output is read: as the picture, or as logits of its values from -1 to 1
OUTPUTS = ("linear", "logits")


class Autoencoder(GeneratorNetwork):
    """Pictures to a vector and back (Hinton & Salakhutdinov 2006), by convolutions.

    Standard normal vectors become pictures, too: they are given the mean and covariance that the codes of the data have
    (Ghosh et al. 2020, "From variational to deterministic autoencoders"), which a training follows.

    Args:
        z_dim: size of the vector. Default 128.
        c_dim: size of a label, which both halves see; 0 takes none. Default 0.
        img_resolution: the side of the pictures, or (height, width), which halve together until the shorter is 4 to 7.
            Default 64.
        img_channels: 3 for RGB; 1 and 4 work as well. Default 3.
        channels, channel_max: of the finest level, doubled with each halving up to the limit. Default 32 and 256.
        blocks: residual blocks of each level, >= 0. Default 1.
        output: "linear" (default), or "logits" for a loss by cross-entropy, whose pictures are ``2 sigmoid - 1``.

    ``encode(img, c=None)``: img [N, img_channels, height, width] in [-1, 1] -> [N, z_dim]. ``decode(code, c=None)``:
    the other way. ``reconstruct(img, c=None)``: both. ``forward(z, c=None)``: pictures of standard normal z [N, z_dim].

    Attributes: the buffers ``code_mean`` [z_dim] and ``code_factor`` [z_dim, z_dim], of the codes' distribution.

    Raises:
        TypeError, ValueError: a size that is no int in range, a resolution that does not halve so, an unknown output;
            in calls, inputs of the wrong shape.
    """

    code_mean: Tensor
    code_factor: Tensor
    #: numbers that the encoder makes for each of the code
    per_code = 1

    def __init__(
        self,
        z_dim: int = 128,
        c_dim: int = 0,
        img_resolution: Resolution = 64,
        img_channels: int = 3,
        *,
        channels: int = 32,
        channel_max: int = 256,
        blocks: int = 1,
        output: str = "linear",
    ) -> None:
        super().__init__(z_dim, c_dim, img_resolution, img_channels)
        owner = type(self).__name__
        self.output = check_choice(owner, "output", output, OUTPUTS)
        channels, channel_max = check_size(owner, "channels", channels), check_size(owner, "channel_max", channel_max)
        blocks = check_size(owner, "blocks", blocks, 0)
        height, width, levels = halved(owner, img_resolution)
        self.encoder = Encoder(self.img_channels, channels, channel_max, levels, blocks)
        self.decoder = Decoder(self.img_channels, channels, channel_max, levels, blocks)
        self.grid = self.encoder.out_channels, height, width
        features, more = self.encoder.out_channels * height * width, min(32, self.z_dim) if self.c_dim else 0
        self.to_code = nn.Linear(features + more, self.z_dim * self.per_code)
        self.from_code = nn.Linear(self.z_dim + more, features)
        self.embed_encoder = LabelEmbedding(self.c_dim, more) if self.c_dim else None
        self.embed_decoder = LabelEmbedding(self.c_dim, more) if self.c_dim else None
        self.register_buffer("code_mean", torch.zeros(self.z_dim))
        self.register_buffer("code_factor", torch.eye(self.z_dim))

    def reset_parameters(self) -> None:
        """Initialize the codes' distribution, for a network that was made on the meta device."""
        nn.init.zeros_(self.code_mean)
        nn.init.eye_(self.code_factor)

    def _features(self, img: Tensor, c: Tensor | None) -> Tensor:
        self._check_images(img, c)
        x = self.encoder(img.to(self.to_code.weight.dtype)).flatten(1)
        if self.embed_encoder is not None and c is not None:
            x = self.embed_encoder(x, c)
        return self.to_code(x)  # type: ignore[no-any-return]

    def encode(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        """img [N, img_channels, height, width] -> codes [N, z_dim]."""
        return self._features(img, c)

    def decode_raw(self, code: Tensor, c: Tensor | None = None) -> Tensor:
        """Codes [N, z_dim] -> what the decoder makes, of ``output`` "logits" before the sigmoid."""
        owner = type(self).__name__
        check_batch(owner, "code", code, (self.z_dim,))
        check_labels(owner, c, self.c_dim, code.shape[0])
        x = code.to(self.from_code.weight.dtype)
        if self.embed_decoder is not None and c is not None:
            x = self.embed_decoder(x, c)
        return self.decoder(self.from_code(x).unflatten(1, self.grid))  # type: ignore[no-any-return]

    def shown(self, raw: Tensor) -> Tensor:
        """The pictures of what the decoder makes."""
        return raw if self.output == "linear" else 2 * raw.sigmoid() - 1

    def decode(self, code: Tensor, c: Tensor | None = None) -> Tensor:
        """Codes [N, z_dim] -> pictures [N, img_channels, height, width]."""
        return self.shown(self.decode_raw(code, c))

    def reconstruct(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        """Pictures through both halves."""
        return self.decode(self.encode(img, c), c)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        self._check_latents(z, c)
        z = z.to(self.code_mean.dtype)
        return self.decode(self.code_mean + z @ self.code_factor.t(), c)

    @torch.no_grad()
    def set_codes(self, mean: Tensor, covariance: Tensor) -> None:
        """Take over the distribution of the codes: mean [z_dim] and covariance [z_dim, z_dim]."""
        values, vectors = torch.linalg.eigh(covariance.double().cpu())
        # a code that hardly varies has a variance that rounding may make negative
        factor = vectors * values.clamp(min=0).sqrt()
        self.code_mean.copy_(mean)
        self.code_factor.copy_(factor)

    def everything(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """A picture through both halves."""
        img = z.new_empty(len(z), *self._img_shape)
        return self.decode(self.encode(img, c) + z, c)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, output={self.output!r}"
