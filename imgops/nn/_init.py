"""How layers initialise what they hold, when they are made and, after the meta device, again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..ops.upfirdn2d import setup_filter


def zero(bias: Tensor | None) -> None:
    """Set a bias, where there is one, to zero."""
    if bias is not None:
        nn.init.zeros_(bias)


@torch.no_grad()
def set_filter(f: Tensor, taps: Any) -> None:
    """Write the filter of these taps into a buffer."""
    f.copy_(setup_filter(taps, device=f.device))
