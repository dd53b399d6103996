"""The recipe of DCGAN (Radford et al. 2015)."""

from __future__ import annotations

from torch import nn

from ...models.dcgan import Discriminator, Generator
from ..config import RunConfig
from ._adversarial import AdversarialRecipe
from .dcgan_config import DCGANConfig


class DCGAN(AdversarialRecipe):
    """Networks with batch norm, which is over what a process computes at once."""

    config: DCGANConfig

    @classmethod
    def finished(cls, config: RunConfig, c_dim: int) -> nn.Module:
        """The generator, as it is built."""
        assert isinstance(config, DCGANConfig)
        return Generator(**config.generator_arguments(c_dim))

    @classmethod
    def discriminator(cls, config: RunConfig, c_dim: int) -> nn.Module:
        """The discriminator, as it is built."""
        assert isinstance(config, DCGANConfig)
        return Discriminator(**config.discriminator_arguments(c_dim))
