"""The settings of the recipe of R3GAN, and its presets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..._settings import Bounds, Choice, same_as, setting
from ..config import BY_PRESET, DECAY, KIMG, POSITIVE, SHARE, WEIGHT
from ._adversarial_config import AUGMENTATION
from ._levels_config import LevelsConfig

#: of published runs: batch, and the last probability of augmentation (Huang et al. 2024, appendix)
_PUBLISHED: dict[str, dict[str, Any]] = {
    "cifar": {"batch": 512, "augment_p_end": 0.55, "channel_base": 24576},
    "ffhq64": {"batch": 256, "augment_p_end": 0.3, "channel_base": 49152},
    "ffhq256": {"batch": 256, "augment_p_end": 0.3, "channel_base": 24576},
}
#: what makes a step of 32 px well under a second on a CPU
_TINY: dict[str, Any] = {
    "kimg": 200.0,
    "schedule_kimg": 200.0,
    "batch": 16,
    "channel_base": 1024,
    "channel_max": 64,
    "num_fp16_res": 0,
}
PRESETS = Choice(("auto", *_PUBLISHED, "tiny"))


@dataclass(frozen=True, kw_only=True)
class R3GANConfig(LevelsConfig):
    """Settings of a run of R3GAN; those left open are the preset's (:meth:`resolve`).

    The help of each field says what it is; ``imgops train --recipe r3gan --help`` prints them all.

    Attributes:
        preset: "auto" (default) is for new data; "cifar", "ffhq64" and "ffhq256" are those of published results; "tiny"
            makes small networks for trying things out on a CPU.
    """

    recipe = "r3gan"
    for_cpu = "--preset tiny --resolution 32"
    about = """Train an R3GAN on your pictures, whose loss compares each picture with one of the other kind.

    Example: imgops train --recipe r3gan --data photos.zip --resolution 64 --out runs/photos

    Rates, Adam's beta2, the weight of both penalties and the augmentation change along a cosine over the first
    --schedule-kimg thousand images. Settings that are not given are those of --preset; tiny suits a CPU. Data and
    classes are as of the recipe stylegan2.
    """

    loss: str = "relativistic"
    augment: str = same_as(LevelsConfig, "augment", shown="fixed")
    augment_p: float = same_as(LevelsConfig, "augment_p", shown="0")
    preset: str = setting("auto", "Run", "What the settings are that no option gives.", allowed=PRESETS)
    blocks: int = setting(2, "Networks", "Residual blocks of each resolution.", allowed=Bounds(1, most=64))
    schedule_kimg: float = setting(
        None, "Optimization", "Thousands of images until all schedules end.", "20,000; of tiny 200", allowed=KIMG
    )
    lr_end: float = setting(5e-5, "Optimization", "Learning rate of both networks at their end.", allowed=POSITIVE)
    beta2: float = 0.9
    beta2_end: float = setting(0.99, "Optimization", "Adam's beta2 at their end.", allowed=DECAY)
    r1_gamma_end: float = setting(
        None,
        "Optimization",
        "Weight of the penalties at their end.",
        "a tenth of --r1-gamma",
        allowed=WEIGHT,
        also="--gamma-end",
    )
    augment_p_end: float = setting(
        None, AUGMENTATION, "Probability of each transform of fixed at their end.", BY_PRESET, allowed=SHARE
    )

    def of_preset(self, processes: int) -> dict[str, Any]:
        """What the preset alone says of the settings that may be left open."""
        own = _TINY if self.preset == "tiny" else _PUBLISHED.get(self.preset, {})
        return {
            "kimg": 20_000.0,
            "schedule_kimg": 20_000.0,
            "batch": self.usual_batch(processes),
            "z_dim": 64,
            "channel_base": 24576,
            "channel_max": 768,
            "g_lr": 2e-4,
            "d_lr": 2e-4,
            "r1_gamma": self.automatic_gamma(self.batch or 1),
            "ema_kimg": 500.0,
            "ema_rampup": 0.05,
            "augment_p_end": 0.3,
            **self.of_precision(),
            **own,
        }

    def from_preset(self, processes: int) -> dict[str, Any]:
        """What the preset says, with the last weight of the penalties, and no augmentation at first."""
        values = super().from_preset(processes)
        gamma = self.r1_gamma if isinstance(self.r1_gamma, (int, float)) else values["r1_gamma"]
        return {**values, "augment": "fixed", "augment_p": 0.0, "r1_gamma_end": float(gamma) / 10}

    def progress(self, seen: int) -> float:
        """How far the schedules are after so many images: from 0 to 1, along half a cosine."""
        return (1 - math.cos(math.pi * min(1.0, seen / (self.schedule_kimg * 1000)))) / 2

    def of_precision(self) -> dict[str, Any]:
        """bfloat16, as published: nothing in these networks keeps numbers within float16's range."""
        return {**super().of_precision(), "half_dtype": "bfloat16"}

    def check_together(self, processes: int) -> None:
        """Raise ValueError where settings do not go together."""
        super().check_together(processes)
        if self.loss != "relativistic" or self.r1_interval != 1:
            raise ValueError(
                "loss must be relativistic and r1_interval 1 with the recipe r3gan, whose schedules are for these; got "
                f"{self.loss} and {self.r1_interval}"
            )

    def idle(self) -> dict[str, tuple[str, ...]]:
        """What does nothing beside the other settings: the end of a probability that there is not."""
        return {**super().idle(), "unless --augment fixed": () if self.augment == "fixed" else ("augment_p_end",)}

    def generator_arguments(self, c_dim: int) -> dict[str, Any]:
        """Keyword arguments of :class:`imgops.models.r3gan.Generator`."""
        return {"z_dim": self.z_dim, "blocks": self.blocks, **self.shared_arguments(c_dim)}

    def discriminator_arguments(self, c_dim: int) -> dict[str, Any]:
        """Keyword arguments of :class:`imgops.models.r3gan.Discriminator`."""
        return {"blocks": self.blocks, **self.shared_arguments(c_dim)}
