"""The settings of the recipe of StyleGAN2, and its presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..._settings import Bounds, Choice, same_as, setting
from ..config import BY_PRESET, INTERVAL, SHARE, WEIGHT
from ._style_based_config import ARCHITECTURE, TINY, StyleBasedConfig

#: what the presets say where they do not differ: of Karras et al. 2020, "Training Generative Adversarial Networks with
#: Limited Data", as published with it
_COMMON: dict[str, Any] = {
    "kimg": 25_000.0,
    "z_dim": 512,
    "w_dim": 512,
    "channel_max": 512,
    "channel_base": 32768,
    "d_architecture": "resnet",
    "pl_weight": 2.0,
    "style_mixing": 0.9,
    "ema_rampup": 0.0,
    "mapping_layers": 8,
    "d_mapping_layers": 8,
}
#: presets that do not depend on the resolution and the number of processes
_FIXED: dict[str, dict[str, Any]] = {
    "stylegan2": {"batch": 32, "mbstd_group": 4, "lr": 0.002, "r1_gamma": 10.0, "ema_kimg": 10.0},
    "paper256": {
        "batch": 64,
        "mbstd_group": 8,
        "lr": 0.0025,
        "r1_gamma": 1.0,
        "ema_kimg": 20.0,
        "channel_base": 16384,
    },
    "paper512": {"batch": 64, "mbstd_group": 8, "lr": 0.0025, "r1_gamma": 0.5, "ema_kimg": 20.0},
    "paper1024": {"batch": 32, "mbstd_group": 4, "lr": 0.002, "r1_gamma": 2.0, "ema_kimg": 10.0},
    "cifar": {
        "kimg": 100_000.0,
        "batch": 64,
        "mbstd_group": 32,
        "lr": 0.0025,
        "r1_gamma": 0.01,
        "ema_kimg": 500.0,
        "ema_rampup": 0.05,
        "mapping_layers": 2,
        "d_architecture": "orig",
        "pl_weight": 0.0,
        "style_mixing": 0.0,
    },
}
PRESETS = Choice(("auto", *_FIXED, "tiny"))


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(StyleBasedConfig):
    """Settings of a run of StyleGAN2; those left open are the preset's (:meth:`resolve`).

    The help of each field says what it is; ``imgops train --help`` prints them all.

    Attributes:
        preset: "auto" (default) chooses by the resolution and the number of processes, as Karras et al. 2020 ("ADA") do
            for new data; "stylegan2", "paper256", "paper512", "paper1024" and "cifar" are those of published results;
            "tiny" makes small networks for trying things out on a CPU.
    """

    recipe = "stylegan2"
    for_cpu = "--preset tiny --resolution 32"
    about = """Train a StyleGAN2 on your pictures.

    Example: imgops train --data samples:textures --resolution 32 --out runs/textures

    Settings that are not given are those of --preset; tiny suits a CPU. A folder or zip of pictures works as --data,
    and so do WebDataset shards; imgops data makes one that is read quickly. Classes come from its dataset.json, if any:
    {"labels": [["name.png", 0], ...], "names": ["cats", ...]}, or with --labels folders from its subfolders.
    """

    augment: str = same_as(
        StyleBasedConfig,
        "augment",
        shown="ada; none of the preset stylegan2, and of the losses wgan-gp and relativistic",
    )
    preset: str = setting("auto", "Run", "What the settings are that no option gives.", allowed=PRESETS)
    g_architecture: str = setting(
        "skip", "Networks", "How the generator's resolutions are connected.", allowed=ARCHITECTURE
    )
    noise_strength: float = setting(
        0.0,
        "Networks",
        "How strong the generator's noise is at first; it is learned. Above 0 suits textures.",
        allowed=Bounds(0, most=1000.0),
    )
    pl_weight: float = setting(None, "Optimization", "Weight of the path-length penalty.", BY_PRESET, allowed=WEIGHT)
    pl_interval: int = setting(4, "Optimization", "The path-length penalty runs every so many steps.", allowed=INTERVAL)
    pl_decay: float = setting(
        0.01, "Optimization", "Share of the new lengths in their running mean, per step.", allowed=SHARE
    )
    pl_batch_shrink: int = setting(
        2, "Optimization", "The path length is measured on this fraction of the batch.", allowed=INTERVAL
    )
    style_mixing: float = setting(
        None,
        "Optimization",
        "Share of the generated images that mix the styles of two latents.",
        BY_PRESET,
        allowed=SHARE,
    )

    @classmethod
    def recorded(cls, values: Mapping[str, Any]) -> TrainingConfig:
        """The settings that a file of a run holds; null used to stand for no ramp-up, and mapping_layers was of both
        networks."""
        none = {"ema_rampup": 0.0} if values.get("ema_rampup", 0) is None else {}
        both = {"d_mapping_layers": values["mapping_layers"]} if "mapping_layers" in values else {}
        return super().recorded({**both, **values, **none})

    def of_preset(self, processes: int) -> dict[str, Any]:
        """What the preset alone says of the settings that may be left open; ``lr`` is that of both networks."""
        values = {**_COMMON, **self.of_precision()}
        if self.preset in _FIXED:
            values |= _FIXED[self.preset]
        else:
            own = TINY if self.preset == "tiny" else {}
            values |= self.of_new_data(self.batch or own.get("batch"), processes) | own
        lr = values.pop("lr")
        return {**values, "g_lr": lr, "d_lr": lr, "augment": "none" if self.preset == "stylegan2" else "ada"}

    def idle(self) -> dict[str, tuple[str, ...]]:
        """What does nothing beside the other settings: how path lengths are measured, where they weigh nothing."""
        path = () if self.pl_weight else ("pl_interval", "pl_decay", "pl_batch_shrink")
        return {**super().idle(), "with --pl-weight 0": path}

    def generator_arguments(self, c_dim: int) -> dict[str, Any]:
        """Keyword arguments of :class:`imgops.models.stylegan2.Generator`."""
        return {"architecture": self.g_architecture, **super().generator_arguments(c_dim)}
