"""What recipes share whose generators map latents to styles: the mean of w, and images that mix two styles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...nn.mapping import MEAN_LATENTS
from .._draws import Draws
from ..config import RunConfig
from ..grid import seeded_classes, seeded_latents
from ._adversarial import AdversarialRecipe


class MixedLatents(NamedTuple):
    """What generated images are made of.

    z and other [n, z_dim], of which the layers in ``mixed``, bool [n, num_ws, 1], take the other; the layers' noise
    [n, 1, height, width]; labels [n, c_dim] or None.
    """

    z: Tensor
    other: Tensor
    mixed: Tensor
    noise: Sequence[Tensor]
    c: Tensor | None


class Styles(AdversarialRecipe):
    """A generator that maps latents to w, whose mean is followed."""

    @classmethod
    @torch.no_grad()
    def renew(cls, network: nn.Module, class_counts: Sequence[int], config: RunConfig, images: int) -> None:
        """The mean of w, over seeded latents and classes that are as frequent as in the data."""
        mapping: Any = getattr(network, "mapping")  # noqa: B009
        seeds, device = range(MEAN_LATENTS), mapping.w_avg.device
        z = seeded_latents(seeds, mapping.z_dim).to(device)
        c = torch.zeros(MEAN_LATENTS, mapping.c_dim, device=device)
        if class_counts:
            labels = torch.arange(mapping.c_dim).repeat_interleave(torch.tensor(class_counts))
            c[torch.arange(MEAN_LATENTS), seeded_classes(seeds, mapping.c_dim, labels)] = 1
        mapping.settle(z, c)

    def follow(self, *averages: Tensor) -> None:
        """Move the running average of w."""
        mapping, mean = self.G.mapping, averages[0]
        mapping.w_avg.copy_(mean.to(mapping.w_avg.dtype).lerp(mapping.w_avg, mapping.w_avg_beta))

    def mixed_latents(self, draws: Draws, share: float, layers: int, shapes: Sequence[Sequence[int]]) -> MixedLatents:
        """Random latents, some of two whose styles are mixed (Karras et al. 2019, section 3.1), noise and labels.

        Args:
            draws: random numbers.
            share: of the images that mix two.
            layers: how many that take a w are in use.
            shapes: of the noise, [1, height, width], of each layer that is in use.
        """
        z_dim = self.config.z_dim
        sizes = [z_dim, z_dim, *(math.prod(shape) for shape in shapes)]
        z, other, *flat = draws.normal(sum(sizes)).split(sizes, 1)
        noise = [values.unflatten(1, shape) for values, shape in zip(flat, shapes, strict=True)]
        which, first, mix = draws.uniform(3).split(1, 1)
        # from a random layer on, each sample that mixes uses the second latent
        places = torch.arange(self.G.num_ws, device=self.device)
        mixed = (mix < share) & (places >= 1 + (first * (layers - 1)).long())
        return MixedLatents(z, other, mixed[:, :, None], noise, self._class_of(which[:, 0]))

    def mixed_w(self, latents: MixedLatents, share: float) -> Tensor:
        """w [n, num_ws, w_dim] of latents; its first layer never takes the second latent."""
        w = self.G.mapping(latents.z, latents.c)
        return torch.where(latents.mixed, self.G.mapping(latents.other, latents.c), w) if share > 0 else w
