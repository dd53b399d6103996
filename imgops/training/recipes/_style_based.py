"""What the recipes of StyleGAN2 and StyleGAN3 share: the discriminator of StyleGAN2, and parts that are not trained."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ...models.stylegan2 import Discriminator
from ..config import RunConfig
from ._style_based_config import StyleBasedConfig
from ._styles import Styles


class StyleBased(Styles):
    """A generator that maps latents to w, and the discriminator of StyleGAN2."""

    config: StyleBasedConfig

    @classmethod
    def discriminator(cls, config: RunConfig, c_dim: int) -> nn.Module:
        """StyleGAN2's."""
        assert isinstance(config, StyleBasedConfig)
        return Discriminator(**config.discriminator_arguments(c_dim))

    def _rate_factors(self, network: nn.Module) -> Mapping[str, float]:
        return self.config.rate_factors() if network is self.D else {}

    def _frozen(self) -> list[nn.Parameter]:
        """The parameters that the settings keep as they are."""
        config, blocks = self.config, self.D.block_resolutions
        parts: list[nn.Module] = [self.D.get_submodule(f"b{res}") for res in blocks[: config.freeze_d]]
        if config.freeze_m:
            parts.append(self.G.mapping)
        if config.freeze_e:
            parts += [layer for name, layer in self.G.synthesis.named_modules() if name.endswith(".affine")]
        return [parameter for part in parts for parameter in part.parameters()]
