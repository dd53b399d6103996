"""The settings of the recipe of variational autoencoders."""

from __future__ import annotations

from dataclasses import dataclass

from ..._settings import setting
from ..config import POSITIVE, WEIGHT
from ._reconstruction_config import VectorCodeConfig


@dataclass(frozen=True, kw_only=True)
class VAEConfig(VectorCodeConfig):
    """Settings of a run of a variational autoencoder; those left open are the preset's (:meth:`resolve`).

    The help of each field says what it is; ``imgops train --recipe vae --help`` prints them all.
    """

    recipe = "vae"
    about = """Train a variational autoencoder on your pictures (Kingma & Welling 2014).

    Example: imgops train --recipe vae --data photos.zip --resolution 64 --beta 0.5 --out runs/vae

    Sheets show pictures, what became of them, and samples.
    """

    beta: float = setting(
        1.0,
        "Optimization",
        "Weight of the divergence of codes from the prior (Higgins et al. 2017), beside the sum over the pixels.",
        allowed=WEIGHT,
    )
    kl_warmup_kimg: float = setting(
        0.0, "Optimization", "That weight rises from 0 over so many thousand images.", allowed=WEIGHT
    )
    free_bits: float = setting(
        0.0,
        "Optimization",
        "Bits of each number of the code that cost nothing, as a mean over the batch (Kingma et al. 2016).",
        allowed=WEIGHT,
    )
    pixel_deviation: float = setting(
        0.1,
        "Optimization",
        "Standard deviation of a value, from -1 to 1, about its reproduction (of l1 the scale of Laplace's "
        "distribution); it sets what an error costs.",
        allowed=POSITIVE,
    )

    def idle(self) -> dict[str, tuple[str, ...]]:
        """What does nothing beside the other settings: how the codes are charged, where they weigh nothing."""
        charged = () if self.beta else ("kl_warmup_kimg", "free_bits")
        plain = ("pixel_deviation",) if self.reconstruction == "cross-entropy" else ()
        named = f"with --reconstruction {self.reconstruction}"
        found = super().idle()
        return {**found, named: (*found[named], *plain), "with --beta 0": charged}
