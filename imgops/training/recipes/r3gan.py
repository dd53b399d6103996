"""The recipe of R3GAN (Huang et al. 2024): a relativistic loss with R1 and R2 in every step, and schedules."""

from __future__ import annotations

from torch import Tensor, nn

from ...models.r3gan import Discriminator, Generator
from ..config import RunConfig
from ._adversarial import AdversarialRecipe
from ._base import Moment
from .r3gan_config import R3GANConfig


class R3GAN(AdversarialRecipe):
    """Rates, beta2, the penalties' weight and the augmentation follow half a cosine."""

    config: R3GANConfig

    @classmethod
    def finished(cls, config: RunConfig, c_dim: int) -> nn.Module:
        """The averaged generator, as it is built."""
        assert isinstance(config, R3GANConfig)
        return Generator(**config.generator_arguments(c_dim))

    @classmethod
    def discriminator(cls, config: RunConfig, c_dim: int) -> nn.Module:
        """The discriminator, as it is built."""
        assert isinstance(config, R3GANConfig)
        return Discriminator(**config.discriminator_arguments(c_dim))

    def step(self, real: Tensor, labels: Tensor, moment: Moment) -> dict[str, Tensor]:
        """As of all, with what the schedules say of the moment."""
        config, share = self.config, self.config.progress(moment.seen)

        def between(first: float, last: float) -> float:
            return first + (last - first) * share

        self.penalty_weight = between(config.gamma, config.r1_gamma_end) / 2
        for name, rate in ("G", config.g_lr), ("D", config.d_lr):
            for group in self.optimizers[name].param_groups:
                group["lr"] = between(rate, config.lr_end)
                group["betas"] = config.beta1, between(config.beta2, config.beta2_end)
        if self.augmentation.pipe is not None and config.augment == "fixed":
            self.augmentation.pipe.get_buffer("p").fill_(between(config.augment_p, config.augment_p_end))
        return super().step(real, labels, moment)
