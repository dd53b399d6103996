"""What the recipes of StyleGAN2 and StyleGAN3 share: styles, their average, and the discriminator of StyleGAN2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...models.stylegan2 import Discriminator
from ..config import RunConfig
from ..grid import seeded_classes, seeded_latents
from ._adversarial import AdversarialRecipe
from ._style_based_config import StyleBasedConfig

#: latents over which the mean of w of a mapping network is taken, and how many of them at once
MEAN_LATENTS, MAPPED = 10_000, 1000


class StyleBased(AdversarialRecipe):
    """A generator that maps latents to w, whose mean is followed, and the discriminator of StyleGAN2."""

    config: StyleBasedConfig

    @classmethod
    def discriminator(cls, config: RunConfig, c_dim: int) -> nn.Module:
        """StyleGAN2's."""
        assert isinstance(config, StyleBasedConfig)
        return Discriminator(**config.discriminator_arguments(c_dim))

    @classmethod
    @torch.no_grad()
    def renew(cls, network: nn.Module, class_counts: Sequence[int]) -> None:
        """The mean of w, over seeded latents and classes that are as frequent as in the data."""
        mapping: Any = network.get_submodule("mapping")
        seeds, device = range(MEAN_LATENTS), mapping.w_avg.device
        z = seeded_latents(seeds, mapping.z_dim).to(device)
        c = torch.zeros(MEAN_LATENTS, mapping.c_dim, device=device)
        if class_counts:
            labels = torch.arange(mapping.c_dim).repeat_interleave(torch.tensor(class_counts))
            c[torch.arange(MEAN_LATENTS), seeded_classes(seeds, mapping.c_dim, labels)] = 1
        sums = [mapping(*part)[:, 0].double().sum(0) for part in zip(z.split(MAPPED), c.split(MAPPED), strict=True)]
        mapping.w_avg.copy_(torch.stack(sums).sum(0) / MEAN_LATENTS)

    def follow(self, *averages: Tensor) -> None:
        """Move the running average of w."""
        mapping, mean = self.G.mapping, averages[0]
        mapping.w_avg.copy_(mean.to(mapping.w_avg.dtype).lerp(mapping.w_avg, mapping.w_avg_beta))

    def advice(self) -> dict[str, str]:
        """As of all, and on what changes where the batch is computed in parts."""
        at_once = self.config.chunk_of(self.processes.count)
        told = self._told_of_parts(at_once)
        return {**super().advice(), **({"parts": f"of {at_once} images: {'; '.join(told)}"} if told else {})}

    def _told_of_parts(self, at_once: int) -> list[str]:
        """What parts of so many images change, which hold no whole group."""
        group = self.config.mbstd_group
        return [f"the minibatch standard deviation is over {at_once}, not {group}"] if at_once < group else []

    def _rate_factors(self) -> Mapping[str, float]:
        return self.config.rate_factors()

    def _frozen(self) -> list[nn.Parameter]:
        """The parameters that the settings keep as they are."""
        config, blocks = self.config, self.D.block_resolutions
        parts: list[nn.Module] = [self.D.get_submodule(f"b{res}") for res in blocks[: config.freeze_d]]
        if config.freeze_m:
            parts.append(self.G.mapping)
        if config.freeze_e:
            parts += [layer for name, layer in self.G.synthesis.named_modules() if name.endswith(".affine")]
        return [parameter for part in parts for parameter in part.parameters()]
