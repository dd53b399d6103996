"""Checks on arrays that metrics are computed of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def as_tensor(owner: str, name: str, value: Any, dims: int) -> Tensor:
    """A tensor or array of real numbers as a tensor of its dtype, on the device that it is on.

    Raises:
        TypeError: it is no array of real numbers.
        ValueError: another number of dimensions, an empty one, or a value that is not finite.
    """
    try:
        tensor = torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{owner}: {name} must be a tensor or array; got {type(value).__name__}") from None
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{owner}: {name} must hold real numbers; got {tensor.dtype}")
    if tensor.ndim != dims or tensor.numel() == 0:
        shape = "[D]" if dims == 1 else "[N, D]"
        raise ValueError(f"{owner}: {name} must be {shape}, not empty; got {list(tensor.shape)}")
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"{owner}: {name} has values that are not finite")
    return tensor
