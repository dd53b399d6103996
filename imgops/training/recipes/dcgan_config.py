"""The settings of the recipe of DCGAN, and its presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..._settings import Bounds, Choice, check_halved, setting
from ..config import SIZE
from ._adversarial_config import AdversarialConfig

#: what the presets say where they do not differ: of Radford et al. 2015, section 4
_COMMON: dict[str, Any] = {
    "kimg": 5_000.0,
    "batch": 128,
    "z_dim": 100,
    "base_channels": 64,
    "channel_max": 512,
    "kernel_size": 4,
    "batch_norm_d": True,
    "g_lr": 2e-4,
    "d_lr": 2e-4,
}
#: textbooks' for digits: 100 -> 7 x 7 x 256 -> 14 x 14 -> 28 x 28
_OWN: dict[str, dict[str, Any]] = {
    "auto": {},
    "textbook": {
        "batch": 256,
        "base_channels": 128,
        "channel_max": 256,
        "kernel_size": 5,
        "batch_norm_d": False,
        "g_lr": 1e-4,
        "d_lr": 1e-4,
    },
    "tiny": {"kimg": 200.0, "batch": 32, "z_dim": 64, "base_channels": 16, "channel_max": 64},
}
PRESETS = Choice(tuple(_OWN))


@dataclass(frozen=True, kw_only=True)
class DCGANConfig(AdversarialConfig):
    """Settings of a run of DCGAN; those left open are the preset's (:meth:`resolve`).

    The help of each field says what it is; ``imgops train --recipe dcgan --help`` prints them all.

    Attributes:
        preset: "auto" (default) is the paper's, "textbook" the layout for digits of 28 px, "tiny" makes small networks
            for trying things out on a CPU.
    """

    recipe = "dcgan"
    for_cpu = "--preset tiny --resolution 32"
    about = """Train a DCGAN on your pictures.

    Example: imgops train --recipe dcgan --data digits.zip --resolution 28 --channels 1 --out runs/digits

    Settings that are not given are those of --preset; tiny suits a CPU. Data and classes are as of the recipe
    stylegan2.
    """

    beta1: float = 0.5
    beta2: float = 0.999
    preset: str = setting("auto", "Run", "What the settings are that no option gives.", allowed=PRESETS)
    base_channels: int = setting(
        None,
        "Networks",
        "Channels of the layer next to the picture; each layer further has twice as many ...",
        "64; of textbook 128, of tiny 16",
        allowed=SIZE,
    )
    channel_max: int = setting(
        None, "Networks", "... but no more than this.", "512; of textbook 256, of tiny 64", allowed=SIZE
    )
    kernel_size: int = setting(
        None, "Networks", "Side of the kernels, 4 or 5.", "4; of textbook 5", allowed=Bounds(4, 5)
    )
    batch_norm_d: bool = setting(None, "Networks", "Batch norm in the discriminator, too.", "yes; of textbook no")

    def of_preset(self, processes: int) -> dict[str, Any]:
        """What the preset alone says of the settings that may be left open."""
        own = {**_COMMON, **_OWN[self.preset]}
        batch = self.shareable(own["batch"], processes)
        # no R1, and no average, whose batch norm would be of other weights
        return {**own, "batch": batch, "r1_gamma": 0.0, "ema_kimg": 0.0, "ema_rampup": 0.0, "augment": "none"}

    def check_resolution(self) -> None:
        """Raise ValueError unless pictures halve to the small one that they begin with."""
        check_halved("resolution", self.resolution)

    def check_together(self, processes: int) -> None:
        """Raise ValueError where settings do not go together."""
        super().check_together(processes)
        if self.ema_kimg or self.ema_snapshot_kimg:
            raise ValueError(
                "ema_kimg must be 0, and ema_snapshot_kimg not be given, with batch norm, whose statistics would be of "
                f"other weights; got {self.ema_kimg:g} and {self.ema_snapshot_kimg}"
            )

    def generator_arguments(self, c_dim: int) -> dict[str, Any]:
        """Keyword arguments of :class:`imgops.models.dcgan.Generator`."""
        return {"z_dim": self.z_dim, **self._shared_arguments(c_dim)}

    def discriminator_arguments(self, c_dim: int) -> dict[str, Any]:
        """Keyword arguments of :class:`imgops.models.dcgan.Discriminator`."""
        return {"batch_norm": self.batch_norm_d, **self._shared_arguments(c_dim)}

    def _shared_arguments(self, c_dim: int) -> dict[str, Any]:
        return {
            "c_dim": c_dim,
            "img_resolution": self.resolution,
            "img_channels": self.channels,
            "channels": self.base_channels,
            "channel_max": self.channel_max,
            "kernel_size": self.kernel_size,
        }
