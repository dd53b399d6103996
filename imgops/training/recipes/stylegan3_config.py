"""The settings of the recipes of StyleGAN3, and their presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..._settings import Bounds, resolution_text, setting, shape_of
from ..config import AUTO_OR_TINY, BY_PRESET, WEIGHT
from ._style_based_config import TINY, StyleBasedConfig

#: the weight of R1 by pixels and batch: 0.5, 2, 8 and 32 at 128, 256, 512 and 1024 px for a batch of 32
GAMMA = 0.5 * 32 / 128**2
#: the longer side of what the first layer makes, without its margin: enough for waves of its band, and no more
FIRST = 9, 17
#: images in which half of a running mean square is forgotten
MAGNITUDE_IMAGES = 20_000


@dataclass(frozen=True, kw_only=True)
class StyleGAN3Config(StyleBasedConfig):
    """Settings of a run of StyleGAN3; those left open are the preset's (:meth:`resolve`).

    The help of each field says what it is; ``imgops train --recipe stylegan3-t --help`` prints them all.

    Attributes:
        family: "t" or "r", the ``config`` of :class:`imgops.models.stylegan3.Generator`.
        preset: "auto" (default) chooses by the resolution and the number of processes, as Karras et al. 2021 do; "tiny"
            makes small networks for trying things out on a CPU.
    """

    family: ClassVar[str]
    for_cpu = "--preset tiny --resolution 32"

    preset: str = setting("auto", "Run", "What the settings are that no option gives.", allowed=AUTO_OR_TINY)
    num_layers: int = setting(
        None, "Networks", "Layers of the generator, without the last one.", "14; of tiny 6", allowed=Bounds(3, most=100)
    )
    margin_size: int = setting(
        None,
        "Networks",
        "Pixels around the picture that all layers but the last two have.",
        "10; of tiny 6",
        allowed=Bounds(0, most=1000),
    )
    blur_sigma: float = setting(
        None,
        "Optimization",
        "Deviation in pixels of the blur through which the discriminator sees pictures at first ...",
        BY_PRESET,
        allowed=Bounds(0, most=100),
    )
    blur_kimg: float = setting(
        None, "Optimization", "... which is gone after so many thousand images.", "200 batch / 32", allowed=WEIGHT
    )

    def of_preset(self, processes: int) -> dict[str, Any]:
        """What the preset alone says of the settings that may be left open."""
        small = self.preset == "tiny"
        own = TINY if small else {}
        values = self.of_new_data(self.batch or own.get("batch"), processes)
        del values["lr"]
        batch = self.batch or own.get("batch", values["batch"])
        return {
            "kimg": 25_000.0,
            "z_dim": 512,
            "w_dim": 512,
            "channel_max": 512,
            "d_architecture": "resnet",
            "d_mapping_layers": 8,
            **self.of_precision(),
            **values,
            "g_lr": 0.0025,
            "d_lr": 0.002,
            "num_layers": 6 if small else 14,
            "margin_size": 6 if small else 10,
            # of a small picture such a blur leaves nothing
            "blur_sigma": 10.0 if self.family == "r" and not small else 0.0,
            "blur_kimg": batch * 200 / 32,
            **own,
        }

    def check_resolution(self) -> None:
        """Raise ValueError unless the discriminator's resolutions and the generator's first layer fit."""
        super().check_resolution()
        shape, (low, high) = shape_of(self.resolution), FIRST
        while max(shape) > high and not any(side % 2 for side in shape):
            shape = shape[0] // 2, shape[1] // 2
        if not low <= max(shape) <= high:
            raise ValueError(
                f"resolution must be sides that halve together until the longer is {low} to {high} with the recipe "
                f"{self.recipe}; got {resolution_text(self.resolution)}"
            )

    def automatic_gamma(self, batch: int) -> float:
        """The weight of R1 to begin with: in proportion to the pixels, 0.5 at 128 px for a batch of 32."""
        if self.loss == "relativistic":
            return super().automatic_gamma(batch)
        height, width = shape_of(self.resolution)
        return GAMMA * height * width / batch

    def idle(self) -> dict[str, tuple[str, ...]]:
        """What does nothing beside the other settings: how long a blur lasts that is none."""
        return {
            **super().idle(),
            "with --blur-sigma 0": () if self.blur_sigma else ("blur_kimg",),
            "with --blur-kimg 0": () if self.blur_kimg else ("blur_sigma",),
        }

    def generator_arguments(self, c_dim: int) -> dict[str, Any]:
        """Keyword arguments of :class:`imgops.models.stylegan3.Generator`."""
        arguments = super().generator_arguments(c_dim)
        twice = 2 if self.family == "r" else 1
        return {
            **arguments,
            "config": self.family,
            "channel_base": self.channel_base * twice,
            "channel_max": self.channel_max * twice,
            "num_layers": self.num_layers,
            "margin_size": self.margin_size,
            "magnitude_ema_beta": 0.5 ** (self.batch / MAGNITUDE_IMAGES),
        }


_ABOUT = """Train a StyleGAN3 on your pictures, of which what is drawn moves{more} with its surface.

    Example: imgops train --recipe stylegan3-{family} --data photos.zip --resolution 256 --out runs/photos

    Settings that are not given are those of --preset; tiny suits a CPU. Data and classes are as of the recipe
    stylegan2.
    """


@dataclass(frozen=True, kw_only=True)
class StyleGAN3TConfig(StyleGAN3Config):
    """Settings of the generator whose pictures move."""

    recipe = "stylegan3-t"
    family = "t"
    about = _ABOUT.format(family="t", more="")


@dataclass(frozen=True, kw_only=True)
class StyleGAN3RConfig(StyleGAN3Config):
    """Settings of the generator whose pictures move and turn."""

    recipe = "stylegan3-r"
    family = "r"
    about = _ABOUT.format(family="r", more=" and turns")
