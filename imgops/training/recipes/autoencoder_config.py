"""The settings of the recipe of autoencoders."""

from __future__ import annotations

from dataclasses import dataclass

from ..._settings import setting
from ..config import SHARE
from ._reconstruction_config import VectorCodeConfig


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(VectorCodeConfig):
    """Settings of a run of an autoencoder; those left open are the preset's (:meth:`resolve`).

    The help of each field says what it is; ``imgops train --recipe autoencoder --help`` prints them all.
    """

    recipe = "autoencoder"
    about = """Train an autoencoder on your pictures: a network that makes a short code of each and the picture of it.

    Example: imgops train --recipe autoencoder --data photos.zip --resolution 64 --out runs/codes

    Sheets show pictures, what became of them, and samples: pictures of codes that are drawn as those of the data are
    spread.
    """

    code_share: float = setting(
        0.01,
        "Optimization",
        "Share of a batch in the running distribution of the codes, which samples are drawn from.",
        allowed=SHARE,
    )

    def check_together(self, processes: int) -> None:
        """Raise ValueError where settings do not go together."""
        super().check_together(processes)
        if self.ema_snapshot_kimg:
            raise ValueError(
                f"ema_snapshot_kimg must not be given with the recipe {self.recipe}, whose averages would have the "
                f"codes of the last network; got {self.ema_snapshot_kimg:g}"
            )
