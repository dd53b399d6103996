"""The recipes of StyleGAN3 (Karras et al. 2021): a generator without noise, mixed styles and path lengths."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...models.stylegan3 import Generator
from ..config import RunConfig
from ._adversarial import Latents, Made, View
from ._parts import Part
from ._style_based import StyleBased
from .stylegan3_config import StyleGAN3Config

#: deviations of the blur that its filter holds on each side
REACH = 3


class StyleGAN3(StyleBased):
    """Running mean squares in every layer; at first the discriminator sees blurred pictures (-R, appendix F)."""

    config: StyleGAN3Config

    @classmethod
    def finished(cls, config: RunConfig, c_dim: int) -> nn.Module:
        """The averaged generator, as it is built."""
        assert isinstance(config, StyleGAN3Config)
        return Generator(**config.generator_arguments(c_dim))

    def make(self, latents: Latents, watching: bool = False) -> Made:
        """The images of latents; the means of w and of the squares of what layers read are watched."""
        w = self.G.mapping(latents.z, latents.c)
        if not watching:
            return Made(self.G.synthesis(w), w)
        magnitudes: list[Tensor] = []
        images = self.G.synthesis(w, magnitudes=magnitudes)
        return Made(images, w, (w[:, 0].detach().mean(0), torch.stack(magnitudes)))

    def follow(self, *averages: Tensor) -> None:
        """Move the running averages of w and of the squares."""
        super().follow(*averages)
        self.G.synthesis.update_magnitudes(averages[1])

    def view(self, part: Part, phase: str) -> View:
        """As of all, through a blur that fades."""
        config, seen = self.config, part.moment.seen
        left = 1 - seen / (config.blur_kimg * 1000) if config.blur_kimg else 0.0
        sigma = config.blur_sigma * left
        view = super().view(part, phase)
        # a filter of fixed length, as one that shrinks would be compiled again and again
        reach = int(REACH * config.blur_sigma)
        if sigma <= 0 or reach == 0:
            return view
        places = torch.arange(-reach, reach + 1, device=self.device)
        taps = torch.exp(-0.5 * (places / sigma).square())
        return view._replace(blur=taps / taps.sum())
