"""The settings of networks that begin with a small picture, or end with one, and double it level by level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..._settings import Bounds, Choice, setting, shape_of
from ..config import BY_PRESET, RESOLUTIONS, SIZE
from ._adversarial_config import AdversarialConfig


@dataclass(frozen=True, kw_only=True)
class LevelsConfig(AdversarialConfig):
    """Settings of such networks: how wide they are, and how precise.

    The help of each field says what it is.
    """

    channel_base: int = setting(
        None,
        "Networks",
        "Layers of resolution R have channel_base / R channels ...",
        BY_PRESET,
        allowed=Bounds(1, most=2**24),
    )
    channel_max: int = setting(None, "Networks", "... but no more than this.", BY_PRESET, allowed=SIZE)
    num_fp16_res: int = setting(
        None,
        "Networks",
        "How many of the highest resolutions run in half precision.",
        "4 on a GPU, else 0",
        allowed=RESOLUTIONS,
    )
    half_dtype: str = setting(
        None,
        "Networks",
        "Dtype of the layers in half precision.",
        "float16; on a CPU bfloat16",
        allowed=Choice(("float16", "bfloat16")),
    )

    @property
    def half_precision(self) -> bool:
        """Whether layers run in half precision, of resolved settings."""
        return self.num_fp16_res > 0

    def of_precision(self) -> dict[str, Any]:
        """What the device says of half precision."""
        cuda = self.device.startswith("cuda")
        # CPUs multiply bfloat16, and emulate float16
        return {"num_fp16_res": 4 if cuda else 0, "half_dtype": "float16" if cuda else "bfloat16"}

    def usual_batch(self, processes: int) -> int:
        """The batch for new data (Karras et al. 2020, "ADA", appendix C): each process has as many."""
        side = max(shape_of(self.resolution))
        return self.shareable(min(processes * min(4096 // side, 32), 64), processes)

    def idle(self) -> dict[str, tuple[str, ...]]:
        """What does nothing beside the other settings: how half precision is, where there is none."""
        return {**super().idle(), "with --num-fp16-res 0": () if self.num_fp16_res else ("half_dtype",)}

    def shared_arguments(self, c_dim: int) -> dict[str, Any]:
        """Keyword arguments that the networks have in common."""
        # settings are read without torch
        import torch

        return {
            "c_dim": c_dim,
            "img_resolution": self.resolution,
            "img_channels": self.channels,
            "channel_base": self.channel_base,
            "channel_max": self.channel_max,
            "num_fp16_res": self.num_fp16_res,
            "half_dtype": getattr(torch, self.half_dtype),
        }
