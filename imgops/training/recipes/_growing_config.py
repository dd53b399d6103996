"""The settings of networks that grow: their lower levels are trained first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..._settings import setting, shape_of, start_shape
from ..config import BY_PRESET, WEIGHT
from ._groups_config import GroupsConfig

#: what makes a step of 32 px well under a second on a CPU
_TINY: dict[str, Any] = {
    "kimg": 200.0,
    "batch": 16,
    "z_dim": 64,
    "channel_base": 1024,
    "channel_max": 64,
    "grow_kimg": 8.0,
    "num_fp16_res": 0,
}

#: pixels of a side that the transforms of ada and fixed need
AUGMENTED = 6


@dataclass(frozen=True, kw_only=True)
class GrowingConfig(GroupsConfig):
    """Settings of networks that grow.

    The help of each field says what it is.

    Attributes:
        first_level: with which a run begins; the smallest pictures are of level 0.
    """

    first_level: ClassVar[int]
    for_cpu = "--preset tiny --resolution 32"

    grow_kimg: float = setting(
        None,
        "Optimization",
        "Thousands of images that train a resolution; over as many the next one fades in. 0: all at once.",
        BY_PRESET,
        allowed=WEIGHT,
    )

    def of_paper(self, processes: int) -> dict[str, Any]:
        """What the presets say of both families."""
        own = _TINY if self.preset == "tiny" else {}
        batch = self.batch or own.get("batch") or self.usual_batch(processes)
        return {
            "kimg": 25_000.0,
            "batch": batch,
            "mbstd_group": self.usual_group(batch, processes),
            "z_dim": 512,
            "channel_base": 16384,
            "channel_max": 512,
            "g_lr": 0.001,
            "d_lr": 0.001,
            "r1_gamma": self.automatic_gamma(batch),
            "ema_kimg": 10.0,
            "ema_rampup": 0.05,
            "augment": "none",
            **self.of_precision(),
            **own,
        }

    def level_at(self, seen: int) -> float:
        """The level in use after so many images, as :meth:`imgops.models.progan.Growing.grow` takes it."""
        *_, last = start_shape(*shape_of(self.resolution))
        first = min(self.first_level, last)
        if self.grow_kimg == 0:
            return float(last)
        steps, rest = divmod(seen / (1000 * self.grow_kimg), 2)
        return min(float(last), first + steps + max(0.0, rest - 1))

    def check_together(self, processes: int) -> None:
        """Raise ValueError where settings do not go together."""
        super().check_together(processes)
        height, width, _ = start_shape(*shape_of(self.resolution))
        least = min(height, width) * 2 ** int(self.level_at(0))
        if self.augment in ("ada", "fixed") and least < AUGMENTED:
            raise ValueError(
                f"augment must be none or diffaug where pictures are of {least} pixels at first, as ada and fixed need "
                f"{AUGMENTED}, or grow_kimg be 0; got {self.augment}"
            )

    def of_precision(self) -> dict[str, Any]:
        """bfloat16: nothing in these discriminators keeps numbers within float16's range."""
        return {**super().of_precision(), "half_dtype": "bfloat16"}

    def growth(self) -> str:
        """With which size a run begins, and when it has the whole one."""
        height, width, last = start_shape(*shape_of(self.resolution))
        first, end = self.level_at(0), self.level_at(self.total)
        if first == last:
            return ""
        at = 2 ** int(first)
        text = f"{width * at} x {height * at} pixels at first, which are the quickest"
        if end == last:
            return f"{text}; all after {(last - first) * 2 * self.grow_kimg:,.0f} thousand images"
        at = 2 ** int(end)
        return f"{text}; the run ends at {width * at} x {height * at}: longer by --kimg, or quicker by --grow-kimg"

    def discriminator_arguments(self, c_dim: int) -> dict[str, Any]:
        """Keyword arguments of the discriminator."""
        return {"mbstd_group_size": self.mbstd_group, **self.shared_arguments(c_dim)}
