"""Networks of which the lower levels are trained first: which of them are in use, and how the next one fades in."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ops._common import check_number
from ..network import Network


class Growing(Network):
    """A network whose levels come into use one after another (Karras et al. 2018, section 2).

    Level 0 has the smallest pictures, each level has twice the side of the one before. The buffer ``level`` says how
    many are in use, so that a checkpoint holds it: 2 is the first three, 1.25 the first two with the third faded in by
    a quarter. At first all are in use.

    Attributes:
        level: [], float32.
        top: the highest level in use.
        fading: whether that one is faded in partly.
    """

    level: Tensor

    def _begin(self, levels: int) -> None:
        """All of so many levels are in use."""
        self.levels = levels
        self.register_buffer("level", torch.tensor(levels - 1.0))
        # numbers beside the tensor, as a network that waits for its device, or is compiled, cannot look into one
        self.top, self.fading = levels - 1, False

    def grow(self, level: float) -> None:
        """Use the levels up to this one.

        Args:
            level: from 0 to the last; a fraction fades the next one in.

        Raises:
            TypeError, ValueError: a level that is no number in range.
        """
        owner, last = type(self).__name__, self.levels - 1
        if not 0 <= (level := check_number(owner, "level", level)) <= last:
            raise ValueError(f"{owner}: level must be in [0, {last}]; got {level:g}")
        self.level.fill_(level)
        self._note(level)

    def reset_parameters(self) -> None:
        """Use all levels, for a network that was made on the meta device."""
        self.grow(self.levels - 1)

    def _note(self, level: float) -> None:
        self.top, self.fading = math.ceil(level), level < math.ceil(level)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if not self.level.is_meta:
            # a state dict of another resolution may say more
            self.grow(min(float(self.level), self.levels - 1.0))

    @property
    def share(self) -> Tensor:
        """How far the highest level in use is faded in, above 0."""
        return self.level - (self.top - 1)


def halved_often(images: Tensor, times: int) -> Tensor:
    """Images [N, C, H, W] of which each pixel is the mean of a square of 2 ** times."""
    return F.avg_pool2d(images, 2**times) if times else images


def doubled(images: Tensor, times: int = 1) -> Tensor:
    """Images [N, C, H, W] of which each pixel becomes a square of 2 ** times."""
    return F.interpolate(images, scale_factor=2.0**times, mode="nearest") if times else images
