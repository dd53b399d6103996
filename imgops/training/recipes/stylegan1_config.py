"""The settings of the recipe of StyleGAN1, and its presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..._settings import setting, shape_of
from ..config import AUTO_OR_TINY, BY_PRESET, LAYERS, SHARE, SIZE
from ._growing_config import GrowingConfig

#: (pixels of the longer side, rate from there on)
RATES = ((512, 0.003), (256, 0.002), (128, 0.0015), (0, 0.001))

#: weight of R1 at all resolutions
GAMMA = 10.0


@dataclass(frozen=True, kw_only=True)
class StyleGAN1Config(GrowingConfig):
    """Settings of a run of StyleGAN1; those left open are the preset's (:meth:`resolve`).

    The help of each field says what it is; ``imgops train --recipe stylegan1 --help`` prints them all.

    Attributes:
        preset: "auto" (default) has the paper's networks, rates and schedule, with one batch and one rate for all
            resolutions, and lazy R1; "tiny" makes small networks for trying things out on a CPU.
    """

    recipe = "stylegan1"
    first_level = 1
    about = """Train a StyleGAN1 on your pictures, which begins with 8 x 8 pixels and grows.

    Example: imgops train --recipe stylegan1 --data photos.zip --resolution 256 --out runs/photos

    A resolution is trained for --grow-kimg thousand images, then the next one fades in over as many; --grow-kimg 0
    trains all at once. Settings that are not given are those of --preset; tiny suits a CPU. Data and classes are as of
    the recipe stylegan2.
    """

    preset: str = setting("auto", "Run", "What the settings are that no option gives.", allowed=AUTO_OR_TINY)
    w_dim: int = setting(None, "Networks", "Size of the intermediate latent w.", BY_PRESET, allowed=SIZE)
    mapping_layers: int = setting(None, "Networks", "Layers of the mapping network.", BY_PRESET, allowed=LAYERS)
    displacement: bool = setting(
        False, "Networks", "Let each resolution move the features of the next (modulated spatial displacement)."
    )
    style_mixing: float = setting(
        0.9, "Optimization", "Share of the generated images that mix the styles of two latents.", allowed=SHARE
    )

    def of_preset(self, processes: int) -> dict[str, Any]:
        """What the preset alone says of the settings that may be left open (Karras et al. 2019, appendix C)."""
        small = self.preset == "tiny"
        side = max(shape_of(self.resolution))
        rate = next(rate for least, rate in RATES if side >= least)
        return {
            "grow_kimg": 600.0,
            **self.of_paper(processes),
            "g_lr": 0.002 if small else rate,
            "d_lr": 0.002 if small else rate,
            "r1_gamma": 1.0 if small else GAMMA,
            "w_dim": 64 if small else 512,
            "mapping_layers": 2 if small else 8,
        }

    def generator_arguments(self, c_dim: int) -> dict[str, Any]:
        """Keyword arguments of :class:`imgops.models.stylegan1.Generator`."""
        return {
            "z_dim": self.z_dim,
            "w_dim": self.w_dim,
            "mapping_layers": self.mapping_layers,
            "displacement": self.displacement,
            **self.shared_arguments(c_dim),
        }
