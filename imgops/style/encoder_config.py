"""Settings of the recipe of the encoder that ships with the package: ``imgops train --recipe encoder``."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from .._settings import Bounds, setting
from ..training.config import POSITIVE, SIZE
from .training_config import NetworkConfig
from .training_settings import TRAINING

#: side of the crops in pixels
SIDE = 128
_PRESETS: dict[str, dict[str, Any]] = {
    "auto": {"resolution": SIDE, "batch": 16, "kimg": 64.0},
    "tiny": {"resolution": 64, "batch": 4, "kimg": 0.08},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig(NetworkConfig):
    """Settings of the recipe encoder; those left open are the preset's.

    The help of each field says what it is; ``imgops train --recipe encoder --help`` prints them all.
    """

    recipe = "encoder"
    # the learning rates follow from the length
    changeable: ClassVar[tuple[str, ...]] = tuple(name for name in NetworkConfig.changeable if name != "kimg")
    about = """Train a small encoder that predicts the features of EfficientNet-Lite2 (distillation).

    Example: imgops train --recipe encoder --data PICTURES --out runs/encoder

    The folder PICTURES is one that docs/training_pictures.py fills. Then: imgops style and imgops dream with --weights
    runs/encoder/network.safetensors. The encoder that comes along was made by python -m imgops.style.encoder_training,
    which trains it so and tests it.
    """

    data: str = setting(
        dataclasses.MISSING,
        "Data",
        "Folder of the folders contents, styles, patterns and stamps.",
        "unless --resume",
        kw_only=False,
    )
    resolution: int = setting(
        None, "Data", "Side of the crops in pixels.", "by the preset", allowed=Bounds(64, most=SIZE.most)
    )
    # it makes no pictures
    grid_kimg: float = setting(20.0)
    lr: float = setting(0.002, TRAINING, "Highest learning rate, reached after a tenth of the way.", allowed=POSITIVE)
    precision: str = "bfloat16"

    def from_preset(self, processes: int) -> dict[str, Any]:
        """What the preset says of the settings that may be left open."""
        return {**_PRESETS["auto"], **_PRESETS[self.preset]}
