"""Checks on the arguments of layers, shared by them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..ops._common import INT_MAX, as_int, untraced
from ..reference.bias_act import ACTIVATIONS

HALF_DTYPES = (torch.float16, torch.bfloat16)


def check_size(owner: str, name: str, value: Any, minimum: int = 1, maximum: int | None = INT_MAX) -> int:
    """Return the size as an int; raise TypeError if it is no integer, ValueError if it is out of range."""
    size = as_int(value)
    if size is None:
        raise TypeError(f"{owner}: {name} must be an int; got {type(value).__name__}")
    if size < minimum:
        raise ValueError(f"{owner}: {name} must be >= {minimum}; got {size}")
    if maximum is not None and size > maximum:
        raise ValueError(f"{owner}: {name} must be <= {maximum}; got {size}")
    return size


def check_choice(owner: str, name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """Return the value; raise ValueError unless it is one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{owner}: {name} must be one of {', '.join(allowed)}; got {value!r}")
    return value


@untraced
def smaller_than(x: Tensor, pixels: int) -> bool:
    """Whether a picture [N, C, H, W] has a side below ``pixels``; sides are compared one by one, as compilers need."""
    return x.shape[2] < pixels or x.shape[3] < pixels


def activation_gain(owner: str, act: str) -> float:
    """The default gain of an activation; raise ValueError if there is none of that name."""
    return ACTIVATIONS[check_choice(owner, "act", act, tuple(ACTIVATIONS))].default_gain


def check_convolution(
    owner: str, in_channels: int, out_channels: int, kernel_size: int, up: int, down: int
) -> tuple[int, int, int, int, int]:
    """Return the checked sizes of a layer; raise unless the kernel has a center and at most one of the factors is above
    1."""
    sizes = {
        "in_channels": in_channels, "out_channels": out_channels, "kernel_size": kernel_size, "up": up, "down": down
    }  # fmt: skip
    in_channels, out_channels, kernel_size, up, down = (check_size(owner, name, n) for name, n in sizes.items())
    if kernel_size % 2 == 0:
        raise ValueError(f"{owner}: kernel_size must be odd; got {kernel_size}")
    if up > 1 and down > 1:
        raise ValueError(f"{owner}: up and down cannot both be above 1; got up={up}, down={down}")
    return in_channels, out_channels, kernel_size, up, down


def check_half_dtype(owner: str, half_dtype: Any) -> None:
    """Raise ValueError unless the dtype is one of half precision."""
    if half_dtype not in HALF_DTYPES:
        raise ValueError(f"{owner}: half_dtype must be torch.float16 or torch.bfloat16; got {half_dtype}")


@untraced
def check_batch(owner: str, name: str, t: Any, shape: tuple[int, ...]) -> None:
    """Raise unless t is a tensor of shape [N, *shape]."""
    if not isinstance(t, Tensor):
        raise TypeError(f"{owner}: {name} must be a torch.Tensor; got {type(t).__name__}")
    if t.ndim != len(shape) + 1 or t.shape[1:] != shape:
        raise ValueError(f"{owner}: {name} must have shape [N, {', '.join(map(str, shape))}]; got {list(t.shape)}")


@untraced
def check_labels(owner: str, c: Any, c_dim: int, batch: int | None) -> None:
    """Raise unless c is [batch, c_dim], or None (or empty) where the network takes no labels."""
    if c is None and c_dim > 0:
        raise ValueError(
            f"{owner}: c must have shape [N, {c_dim}], for the network was built with c_dim={c_dim}; got None"
        )
    if c is not None:
        check_batch(owner, "c", c, (c_dim,))
        if batch is not None and c.shape[0] != batch:
            raise ValueError(f"{owner}: c must have a row for each of the {batch} samples; got {c.shape[0]}")
