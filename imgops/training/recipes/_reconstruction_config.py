"""The settings of recipes that learn to reproduce pictures through a code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..._settings import Bounds, Choice, check_halved, setting
from ..config import AUTO_OR_TINY, BY_PRESET, DECAY, POSITIVE, SIZE, WEIGHT, GeneratorConfig

#: how a picture and its reproduction are compared
RECONSTRUCTIONS = ("mse", "l1", "cross-entropy", "perceptual")
#: what the preset says
_COMMON: dict[str, Any] = {
    "kimg": 2_000.0,
    "batch": 64,
    "base_channels": 32,
    "channel_max": 256,
    "blocks": 1,
    "lr": 1e-3,
}
_TINY: dict[str, Any] = {"kimg": 200.0, "batch": 32, "base_channels": 16, "channel_max": 48, "lr": 2e-3}


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig(GeneratorConfig):
    """Settings of networks that make a code of a picture, and the picture of the code.

    The help of each field says what it is.

    Attributes:
        preset: "auto" (default), or "tiny", which makes small networks for trying things out on a CPU.
    """

    for_cpu = "--preset tiny --resolution 32"
    encoders: ClassVar[tuple[str, ...]] = (*GeneratorConfig.encoders, "perceptual_weights")

    preset: str = setting("auto", "Run", "What the settings are that no option gives.", allowed=AUTO_OR_TINY)
    base_channels: int = setting(
        None,
        "Networks",
        "Channels of the layer next to the picture; each level further has twice as many ...",
        "32; of tiny 16",
        allowed=SIZE,
    )
    channel_max: int = setting(None, "Networks", "... but no more than this.", "256; of tiny 48", allowed=SIZE)
    blocks: int = setting(None, "Networks", "Residual blocks of each level.", "1", allowed=Bounds(0, most=64))
    reconstruction: str = setting(
        "mse",
        "Optimization",
        "How a picture and its reproduction are compared: mse (mean squared error), l1, cross-entropy of the values "
        "between 0 and 1, or perceptual (l1 over layers of an encoder, beside the mean squared error).",
        allowed=Choice(RECONSTRUCTIONS),
    )
    perceptual_weights: str | None = setting(
        None,
        "Optimization",
        "Encoder of perceptual: a file, or a name such as embedded.",
        "embedded",
    )
    perceptual_weight: float = setting(
        0.1, "Optimization", "Weight of the encoder's part of perceptual.", allowed=WEIGHT
    )
    optimizer: str = setting("adam", "Optimization", "adam or sgd.", allowed=Choice(("adam", "sgd")))
    lr: float = setting(None, "Optimization", "Learning rate.", BY_PRESET, allowed=POSITIVE)
    beta1: float = setting(0.9, "Optimization", "Adam's beta1, or the momentum of sgd.", allowed=DECAY)
    beta2: float = setting(0.999, "Optimization", "Adam's beta2.", allowed=DECAY)
    ema_kimg: float = setting(
        10.0, "Optimization", "Half-life of the averaged network, in thousands of images ...", allowed=WEIGHT
    )
    ema_rampup: float = setting(
        None,
        "Optimization",
        "... but at most this share of the images shown so far; 0: no such limit.",
        "0.05; with --init 0",
        allowed=WEIGHT,
    )

    def from_preset(self, processes: int) -> dict[str, Any]:
        """What the preset says of the settings that may be left open."""
        values = {**_COMMON, **(_TINY if self.preset == "tiny" else {})}
        if self.optimizer == "sgd":
            values["lr"] *= 50
        # an average that begins with a trained network need not forget it
        values["ema_rampup"] = 0.05 if self.init is None else 0.0
        return {**values, "batch": self.shareable(values["batch"], processes)}

    def idle(self) -> dict[str, tuple[str, ...]]:
        """What does nothing beside the other settings."""
        perceptual = () if self.reconstruction == "perceptual" else ("perceptual_weights", "perceptual_weight")
        return {
            **super().idle(),
            f"with --reconstruction {self.reconstruction}": perceptual,
            "with --optimizer sgd": () if self.optimizer == "adam" else ("beta2",),
            "with --ema-kimg 0": () if self.ema_kimg else ("ema_rampup",),
        }

    def network_arguments(self, c_dim: int) -> dict[str, Any]:
        """Keyword arguments of the network."""
        return {
            "c_dim": c_dim,
            "img_resolution": self.resolution,
            "img_channels": self.channels,
            "channels": self.base_channels,
            "channel_max": self.channel_max,
            "blocks": self.blocks,
        }


@dataclass(frozen=True, kw_only=True)
class VectorCodeConfig(ReconstructionConfig):
    """Settings of networks whose code is a vector."""

    z_dim: int = setting(None, "Networks", "Size of the code.", BY_PRESET, allowed=SIZE)

    def check_resolution(self) -> None:
        """Raise ValueError unless pictures halve to a small grid."""
        check_halved("resolution", self.resolution)

    def from_preset(self, processes: int) -> dict[str, Any]:
        """What the preset says of the settings that may be left open."""
        return {**super().from_preset(processes), "z_dim": 32 if self.preset == "tiny" else 128}

    def network_arguments(self, c_dim: int) -> dict[str, Any]:
        """Keyword arguments of the network."""
        output = "logits" if self.reconstruction == "cross-entropy" else "linear"
        return {"z_dim": self.z_dim, "output": output, **super().network_arguments(c_dim)}
