"""The recipe of variational autoencoders."""

from __future__ import annotations

import math

from torch import nn

from ...models.vae import VAE
from ..config import RunConfig
from ._parts import Part
from ._reconstruction import Losses, ReconstructionRecipe
from .vae_config import VAEConfig


class VAERecipe(ReconstructionRecipe):
    """A variational autoencoder: the lower bound on the likelihood (Kingma & Welling 2014), in nats per value."""

    config: VAEConfig

    @classmethod
    def finished(cls, config: RunConfig, c_dim: int) -> nn.Module:
        """The averaged network, as it is built."""
        assert isinstance(config, VAEConfig)
        return VAE(**config.network_arguments(c_dim))

    def losses(self, part: Part) -> Losses:
        """What the pictures cost given their codes, and what the codes cost."""
        config, x = self.config, part.real
        mean, log_variance = self.net.distribution(x, part.c)
        noise = part.draws("code").normal(self.net.z_dim)
        raw = self.net.decode_raw(mean + noise * (0.5 * log_variance).exp(), part.c)
        cost = self.compare(raw, x)
        if config.reconstruction != "cross-entropy":
            # of a normal distribution about the reproduction, or with l1 of Laplace's, up to a constant
            cost = cost / (config.pixel_deviation if config.reconstruction == "l1" else 2 * config.pixel_deviation**2)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean(0)
        free = config.free_bits * math.log(2)
        charged = divergence.clamp(min=free) if free else divergence
        values = x[0].numel()
        error = (self.net.shown(raw).detach() - x).square().mean()
        kl = charged.sum() * (self._weight(part.moment.seen) / values)
        # as people report it, of a picture and without its weight
        return Losses({"reconstruction": cost, "kl": kl}, error, {"kl": divergence.sum()})

    def advice(self) -> dict[str, str]:
        """On what parts of a batch change."""
        at_once = self.config.chunk_of(self.processes.count)
        if not self.config.free_bits or at_once == self.config.batch:
            return {}
        return {"parts": f"of {at_once} images: free bits are of their mean, not of {self.config.batch}"}

    def _weight(self, seen: int) -> float:
        """The weight of the divergence, which rises at first."""
        warmup = self.config.kl_warmup_kimg * 1000
        return self.config.beta * (min(1.0, seen / warmup) if warmup else 1.0)
