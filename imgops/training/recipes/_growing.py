"""What the recipes of ProGAN and StyleGAN1 share: networks that grow by a schedule, and pictures of their size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...models.progan.growing import doubled, halved_often
from ..config import RunConfig
from ._adversarial import AdversarialRecipe
from ._base import Moment
from ._growing_config import GrowingConfig
from ._parts import Part


class GrowingRecipe(AdversarialRecipe):
    """Networks whose levels come into use one after another (Karras et al. 2018, section 2)."""

    config: GrowingConfig

    def begin(self) -> None:
        """The first level is in use."""
        super().begin()
        level = self.config.level_at(0)
        self.G.grow(level)
        self.D.grow(level)

    remedy = (
        "begin a new run with --init and the last checkpoint, --grow-kimg 0 where it was fully grown, a lower learning "
        "rate or a higher --r1-gamma or --gp-weight"
    )

    @property
    def measured_at(self) -> int:
        """The end: the last resolution takes the most."""
        return self.config.total

    def advice(self) -> dict[str, str]:
        """As of all, and on how the networks grow."""
        growth = self.config.growth()
        return {**super().advice(), **({"growth": growth} if growth else {})}

    @classmethod
    def renew(cls, network: Any, class_counts: Sequence[int], config: RunConfig, images: int) -> None:
        """The levels that were in use."""
        assert isinstance(config, GrowingConfig)
        super().renew(network, class_counts, config, images)
        network.grow(config.level_at(max(0, images - config.batch)))

    def step(self, real: Tensor, labels: Tensor, moment: Moment) -> dict[str, Tensor]:
        """As of all, of the level that the schedule says; ``level`` is reported."""
        level = self.config.level_at(moment.seen)
        for network in self.G, self.D, self.G_ema:
            network.grow(level)
        return {**super().step(real, labels, moment), "level": torch.full([], level, device=self.device)}

    def prepare(self, part: Part) -> Part:
        """Real pictures of the size of the level, which fade in as the generated ones do."""
        real = halved_often(part.real, self.D.levels - 1 - self.D.top)
        if self.D.fading:
            real = doubled(halved_often(real, 1)).lerp(real, self.D.share)
        return part._replace(real=real)
