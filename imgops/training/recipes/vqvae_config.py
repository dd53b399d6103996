"""The settings of the recipe of VQ-VAE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..._settings import Bounds, resolution_text, setting, shape_of
from ..config import DECAY, SHARE, SIZE, WEIGHT
from ._reconstruction_config import ReconstructionConfig

_TINY = {"lr": 1e-3, "num_codes": 128, "code_dim": 16, "prior_channels": 32, "prior_layers": 3}


@dataclass(frozen=True, kw_only=True)
class VQVAEConfig(ReconstructionConfig):
    """Settings of a run of VQ-VAE; those left open are the preset's (:meth:`resolve`).

    The help of each field says what it is; ``imgops train --recipe vqvae --help`` prints them all.
    """

    recipe = "vqvae"
    about = """Train a VQ-VAE on your pictures: each becomes a grid of codes (van den Oord et al. 2017).

    Example: imgops train --recipe vqvae --data photos.zip --resolution 64 --two-levels --out runs/codes

    A small PixelCNN learns beside it how likely codes are, and draws samples. Sheets show pictures, what became of
    them, and samples.
    """

    levels: int = setting(
        2, "Networks", "How often the sides are halved to the (finer) grid of codes.", allowed=Bounds(1, most=8)
    )
    two_levels: bool = setting(False, "Networks", "A second grid of half the sides (VQ-VAE-2, Razavi et al. 2019).")
    num_codes: int = setting(None, "Networks", "Vectors of each codebook.", "512; of tiny 128", allowed=SIZE)
    code_dim: int = setting(None, "Networks", "Size of a code.", "64; of tiny 16", allowed=SIZE)
    prior_channels: int = setting(None, "Networks", "Channels of the PixelCNN.", "128; of tiny 32", allowed=SIZE)
    prior_layers: int = setting(
        None, "Networks", "Layers of the PixelCNN.", "6; of tiny 3", allowed=Bounds(0, most=100)
    )
    commitment: float = setting(0.25, "Optimization", "Weight of how far vectors are from their codes.", allowed=WEIGHT)
    codebook_decay: float = setting(0.99, "Optimization", "Decay of a code's running mean, per step.", allowed=DECAY)
    restart_share: float = setting(
        0.05,
        "Optimization",
        "A code that has less than this share of the mean number of vectors begins anew at one of the batch.",
        allowed=SHARE,
    )

    def from_preset(self, processes: int) -> dict[str, Any]:
        """What the preset says of the settings that may be left open."""
        own = {"num_codes": 512, "code_dim": 64, "prior_channels": 128, "prior_layers": 6}
        return {**super().from_preset(processes), **own, **(_TINY if self.preset == "tiny" else {})}

    def check_resolution(self) -> None:
        """Raise ValueError unless the sides halve to the coarsest grid of codes."""
        super().check_resolution()
        step = 2 ** (self.levels + self.two_levels)
        if any(side % step for side in shape_of(self.resolution)):
            raise ValueError(
                f"resolution must be divisible by {step}, as the coarsest grid of codes is that coarser; got "
                f"{resolution_text(self.resolution)}"
            )

    def check_together(self, processes: int) -> None:
        """Raise ValueError where settings do not go together."""
        super().check_together(processes)
        if self.ema_snapshot_kimg:
            raise ValueError(
                f"ema_snapshot_kimg must not be given with the recipe {self.recipe}, whose averages would have the "
                f"codebook of the last network; got {self.ema_snapshot_kimg:g}"
            )
        if self.reconstruction == "cross-entropy":
            raise ValueError("reconstruction must be mse, l1 or perceptual with codes of a codebook; got cross-entropy")

    def network_arguments(self, c_dim: int) -> dict[str, Any]:
        """Keyword arguments of :class:`imgops.models.vqvae.VQVAE`."""
        return {
            **super().network_arguments(c_dim),
            "levels": self.levels,
            "two_levels": self.two_levels,
            "num_codes": self.num_codes,
            "code_dim": self.code_dim,
            "prior_channels": self.prior_channels,
            "prior_layers": self.prior_layers,
        }
