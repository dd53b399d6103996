"""The recipe of ProGAN (Karras et al. 2018): networks that grow, by the Wasserstein loss with drift."""

from __future__ import annotations

from torch import Tensor, nn

from ...models.progan import Discriminator, Generator
from ..config import RunConfig
from ._adversarial import Latents, Made
from ._growing import GrowingRecipe
from .progan_config import ProGANConfig


class ProGAN(GrowingRecipe):
    """The logits of real pictures have no place of their own in its loss, so their squares are weighed a little."""

    config: ProGANConfig

    @classmethod
    def finished(cls, config: RunConfig, c_dim: int) -> nn.Module:
        """The averaged generator, as it is built."""
        assert isinstance(config, ProGANConfig)
        return Generator(**config.generator_arguments(c_dim))

    @classmethod
    def discriminator(cls, config: RunConfig, c_dim: int) -> nn.Module:
        """The discriminator, as it is built."""
        assert isinstance(config, ProGANConfig)
        return Discriminator(**config.discriminator_arguments(c_dim))

    def make(self, latents: Latents, watching: bool = False) -> Made:
        """The images of latents, of the highest level in use."""
        return Made(self.G.grown(latents.z, latents.c))

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """As of all, with the drift of the real pictures' logits."""
        return super().discriminator_loss(real_logits, fake_logits) + self.config.drift * real_logits.square().mean()
