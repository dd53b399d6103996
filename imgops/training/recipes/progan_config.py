"""The settings of the recipe of ProGAN, and its presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..._settings import setting
from ..config import AUTO_OR_TINY, WEIGHT
from ._growing_config import GrowingConfig


@dataclass(frozen=True, kw_only=True)
class ProGANConfig(GrowingConfig):
    """Settings of a run of ProGAN; those left open are the preset's (:meth:`resolve`).

    The help of each field says what it is; ``imgops train --recipe progan --help`` prints them all.

    Attributes:
        preset: "auto" (default) has the paper's networks, rates and schedule, with one batch and one rate for all
            resolutions; "tiny" makes small networks for trying things out on a CPU.
    """

    recipe = "progan"
    first_level = 0
    about = """Train a ProGAN on your pictures, which begins with 4 x 4 pixels and grows.

    Example: imgops train --recipe progan --data photos.zip --resolution 256 --out runs/photos

    A resolution is trained for --grow-kimg thousand images, then the next one fades in over as many. Settings that are
    not given are those of --preset; tiny suits a CPU. Data and classes are as of the recipe stylegan2.
    """

    loss: str = "wgan-gp"
    preset: str = setting("auto", "Run", "What the settings are that no option gives.", allowed=AUTO_OR_TINY)
    drift: float = setting(
        None,
        "Optimization",
        "Weight of the squared logits of real pictures, which keeps logits of wgan-gp from drifting.",
        "0.001; of other losses 0",
        allowed=WEIGHT,
    )

    def of_preset(self, processes: int) -> dict[str, Any]:
        """What the preset alone says of the settings that may be left open (Karras et al. 2018, appendix A)."""
        # so few images as a small network sees need larger steps
        fast = {"g_lr": 0.003, "d_lr": 0.003} if self.preset == "tiny" else {}
        drift = 0.001 if self.loss == "wgan-gp" else 0.0
        return {"grow_kimg": 800.0, "drift": drift, **self.of_paper(processes), **fast}

    def generator_arguments(self, c_dim: int) -> dict[str, Any]:
        """Keyword arguments of :class:`imgops.models.progan.Generator`."""
        return {"z_dim": self.z_dim, **self.shared_arguments(c_dim)}
