"""The settings that StyleGAN2 and StyleGAN3 share: a mapping network, and the discriminator of StyleGAN2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..._settings import Choice, setting, shape_of, start_shape
from ..config import BY_PRESET, LAYERS, RESOLUTIONS, SIZE, TRANSFER
from ._groups_config import GroupsConfig

#: resolution from which on the networks of the preset auto have twice the channels, and that of a lower learning rate
WIDE_FROM, SLOW_FROM = 512, 1024
ARCHITECTURE = Choice(("skip", "resnet", "orig"))
#: what makes a step of 32 px well under a second on a CPU; the rest is as of auto
TINY: dict[str, Any] = {
    "kimg": 200.0,
    "batch": 16,
    "z_dim": 64,
    "w_dim": 64,
    "channel_base": 1024,
    "channel_max": 64,
    "d_mapping_layers": 2,
    "num_fp16_res": 0,
}


@dataclass(frozen=True, kw_only=True)
class StyleBasedConfig(GroupsConfig):
    """Settings of a generator that maps latents to styles, and of its discriminator.

    The help of each field says what it is.
    """

    w_dim: int = setting(None, "Networks", "Size of the intermediate latent w.", BY_PRESET, allowed=SIZE)
    mapping_layers: int = setting(
        None, "Networks", "Layers of the generator's mapping network.", BY_PRESET, allowed=LAYERS
    )
    d_mapping_layers: int = setting(
        None,
        "Networks",
        "Layers of the discriminator's mapping network, which it has where there are classes.",
        "8; of the preset tiny 2",
        allowed=LAYERS,
    )
    d_architecture: str = setting(
        None, "Networks", "How the discriminator's resolutions are connected.", BY_PRESET, allowed=ARCHITECTURE
    )
    half_channels_last: bool = setting(
        False, "Networks", "Lay images in half precision out channels-last, the layout of tensor cores."
    )
    d_lr_layers: str | None = setting(
        None,
        "Optimization",
        "Factors on --d-lr for parts of the discriminator, as b64=0.1,b32=0.5; the number is that of the resolution.",
        "1",
    )
    freeze_d: int = setting(
        0,
        TRANSFER,
        "Keep the discriminator's so many highest resolutions (Freeze-D).",
        allowed=RESOLUTIONS,
    )
    freeze_m: bool = setting(False, TRANSFER, "Keep the generator's mapping network.")
    freeze_e: bool = setting(False, TRANSFER, "Keep the generator's affine layers, which make styles.")

    def of_new_data(self, batch: int | None, processes: int) -> dict[str, Any]:
        """What is chosen for data that no published result is of (Karras et al. 2020, "ADA", appendix C).

        Each setting follows from the resolution and the batch; the batch, where it is None, from the resolution and the
        number of processes.
        """
        height, width = shape_of(self.resolution)
        side = max(height, width)
        batch = self.usual_batch(processes) if batch is None else batch
        return {
            "batch": batch,
            "mbstd_group": self.usual_group(batch, processes),
            "channel_base": 32768 if side >= WIDE_FROM else 16384,
            "lr": 0.002 if side >= SLOW_FROM else 0.0025,
            "r1_gamma": self.automatic_gamma(batch),
            "ema_kimg": batch * 10 / 32,
            "ema_rampup": 0.05,
            "mapping_layers": 2,
        }

    def rate_factors(self) -> dict[str, float]:
        """The factor on the discriminator's learning rate of each of its parts that has one.

        Raises:
            ValueError: a part that the discriminator lacks, or a factor that is no number of 0 or more.
        """
        *_, doublings = start_shape(*shape_of(self.resolution))
        parts = [f"b{4 * 2**k}" for k in range(doublings + 1)] + ["mapping"]
        factors = {}
        for text in (self.d_lr_layers or "").split(",") if self.d_lr_layers else ():
            name, _, factor = text.strip().partition("=")
            try:
                factors[name] = float(factor)
            except ValueError:
                factors[name] = -1.0
            if name not in parts or not 0 <= factors[name] < float("inf"):
                raise ValueError(
                    f"d_lr_layers must be factors for {', '.join(parts)}, as {parts[-2]}=0.1; got {text.strip()!r}"
                )
        return factors

    def check_together(self, processes: int) -> None:
        """Raise ValueError where settings do not go together."""
        super().check_together(processes)
        self.rate_factors()
        *_, doublings = start_shape(*shape_of(self.resolution))
        if self.freeze_d > doublings:
            raise ValueError(
                f"freeze_d must be at most {doublings}, the resolutions above the lowest; got {self.freeze_d}"
            )

    def idle(self) -> dict[str, tuple[str, ...]]:
        """What does nothing beside the other settings: how half precision is, where there is none."""
        halves = () if self.num_fp16_res else ("half_dtype", "half_channels_last")
        return {**super().idle(), "with --num-fp16-res 0": halves}

    def generator_arguments(self, c_dim: int) -> dict[str, Any]:
        """Keyword arguments of the generator that are the same for all families."""
        return {
            "z_dim": self.z_dim,
            "w_dim": self.w_dim,
            "mapping_layers": self.mapping_layers,
            **self.shared_arguments(c_dim),
        }

    def discriminator_arguments(self, c_dim: int) -> dict[str, Any]:
        """Keyword arguments of :class:`imgops.models.stylegan2.Discriminator`."""
        return {
            "architecture": self.d_architecture,
            "mapping_layers": self.d_mapping_layers,
            "mbstd_group_size": self.mbstd_group,
            **self.shared_arguments(c_dim),
        }

    def shared_arguments(self, c_dim: int) -> dict[str, Any]:
        """Keyword arguments that both networks have."""
        return {**super().shared_arguments(c_dim), "half_channels_last": self.half_channels_last}
