"""How layers initialize their parameters and buffers: when they are built, and again after the meta device."""

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
    """Write the filter made of these taps into a buffer."""
    f.copy_(setup_filter(taps, device=f.device))
