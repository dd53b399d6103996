"""The epilogue of a pass over an image as one argument: bias, scale, noise, activation, gain and clamp."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Epilogue(NamedTuple):
    """``clamp(gain * act(x * scale + noise + b), -clamp, clamp)`` of an image x [N, C, ...].

    Args:
        b: bias [C]; None adds none.
        scale: factor of each sample and channel, [N, C]; None scales nothing.
        noise: [N or 1, 1, ...]; None adds none.
        act, alpha, gain: the activation, see :func:`imgops.bias_act`.
        clamp: limit of the magnitude; below 0 clamps nothing.
    """

    b: Tensor | None = None
    scale: Tensor | None = None
    noise: Tensor | None = None
    act: str = "linear"
    alpha: float = 0.0
    gain: float = 1.0
    clamp: float = -1.0

    def to(self, dtype: torch.dtype) -> Epilogue:
        """The same with its tensors in a dtype."""
        b, scale, noise = self.b, self.scale, self.noise
        # in the dtype already, as most are: three conversions that do nothing would take a tenth of a small call
        if (
            (b is None or b.dtype == dtype)
            and (scale is None or scale.dtype == dtype)
            and (noise is None or noise.dtype == dtype)
        ):
            return self
        b, scale, noise = (None if t is None else t.to(dtype) for t in (b, scale, noise))
        return Epilogue(b, scale, noise, *self[3:])

    def is_plain(self) -> bool:
        """Whether it leaves everything as it is; a linear activation ignores alpha."""
        return (
            self.b is None
            and self.scale is None
            and self.noise is None
            and self.act == "linear"
            and self.gain == 1
            and self.clamp < 0
        )

    def contiguous(self) -> Epilogue:
        """The same with contiguous tensors."""
        b, scale, noise = (None if t is None else t.contiguous() for t in self[:3])
        return Epilogue(b, scale, noise, *self[3:])
