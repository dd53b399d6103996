"""The settings of networks whose discriminator measures how much the images of a group vary."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..._settings import setting
from ..config import BY_PRESET, SIZE
from ._levels_config import LevelsConfig


@dataclass(frozen=True, kw_only=True)
class GroupsConfig(LevelsConfig):
    """Settings of such networks.

    The help of each field says what it is.
    """

    mbstd_group: int = setting(
        None,
        "Networks",
        "Images over which the discriminator measures variety; divides what a process computes at once.",
        BY_PRESET,
        allowed=SIZE,
    )

    @property
    def group(self) -> int:
        """``mbstd_group``."""
        return self.mbstd_group

    def usual_group(self, batch: int, processes: int) -> int:
        """The most of four images that a process's share of a batch, and what it computes at once, are groups of."""
        sized = replace(self, batch=batch)
        share, chunk = max(1, sized.share(processes)), max(1, sized.chunk_of(processes))
        # of the whole share even where smaller parts, as a run then says, cut the groups up
        return next(n for n in (4, 3, 2, 1) if share % n == 0 and chunk % min(n, chunk) == 0)

    def check_together(self, processes: int) -> None:
        """Raise ValueError where settings do not go together."""
        super().check_together(processes)
        chunk = self.chunk_of(processes)
        if chunk % min(self.mbstd_group, chunk):
            raise ValueError(f"mbstd_group must divide the (micro-)batch of {chunk}; got {self.mbstd_group}")
