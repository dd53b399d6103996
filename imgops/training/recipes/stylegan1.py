"""The recipe of StyleGAN1 (Karras et al. 2019): networks that grow, noise in every layer, and mixed styles."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ...models.stylegan1 import Discriminator, Generator
from .._draws import Draws
from ..config import RunConfig
from ._adversarial import Made
from ._growing import GrowingRecipe
from ._styles import MixedLatents, Styles
from .stylegan1_config import StyleGAN1Config

#: factor on the mapping network's rate
MAPPING_RATE = 0.01


class StyleGAN1(GrowingRecipe, Styles):
    """Latents whose styles are mixed; the mapping network learns by a hundredth of the others' rate."""

    config: StyleGAN1Config

    @classmethod
    def finished(cls, config: RunConfig, c_dim: int) -> nn.Module:
        """The averaged generator, as it is built."""
        assert isinstance(config, StyleGAN1Config)
        return Generator(**config.generator_arguments(c_dim))

    @classmethod
    def discriminator(cls, config: RunConfig, c_dim: int) -> nn.Module:
        """The discriminator, as it is built."""
        assert isinstance(config, StyleGAN1Config)
        return Discriminator(**config.discriminator_arguments(c_dim))

    def latents(self, draws: Draws) -> MixedLatents:
        """Random latents, some of two whose styles are mixed, noise and labels."""
        shapes = self.G.synthesis.noise_shapes[: self.G.synthesis.layers]
        return self.mixed_latents(draws, self.config.style_mixing, len(shapes), shapes)

    def make(self, latents: MixedLatents, watching: bool = False) -> Made:
        """The images of latents, of the highest level in use, with their w, whose mean is watched."""
        w = self.mixed_w(latents, self.config.style_mixing)
        return Made(self.G.synthesis.grown(w, noise=latents.noise), w, (w[:, 0].detach().mean(0),))

    def _rate_factors(self, network: nn.Module) -> Mapping[str, float]:
        return {"style": MAPPING_RATE} if network is self.G else {}
