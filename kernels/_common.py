"""What the launchers share: layouts, dtypes and the options of every launch."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

#: compiler options of every launch; contraction into fused multiply-adds is pinned, as Triton's default changes
OPTIONS = {"enable_fp_fusion": True}

ACC_DTYPE = {
    torch.float64: torch.float64,
    torch.float32: torch.float32,
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
}
TL_DTYPE = {torch.float64: tl.float64, torch.float32: tl.float32}


def dense_format(x: Tensor) -> torch.memory_format:
    """The memory format of the output for x: channels-last where x is that and not contiguous, else contiguous."""
    if x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format
