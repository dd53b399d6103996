"""What the ops share: which twins there are, dtypes and formats, and the checks on arguments."""

from __future__ import annotations

import contextlib
import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _backend

#: what exists here; read once, so that a traced call sees plain data
STATUSES = _backend.load()
#: the dtypes that every twin takes
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def dense_format(x: Tensor) -> torch.memory_format:
    """The memory format that an op's output takes: channels-last where x is, else contiguous."""
    if x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def gradient_wanted(*tensors: Tensor | None) -> bool:
    """Whether a gradient for one of the tensors may be asked for, so that what it takes must be kept."""
    if not torch.is_grad_enabled():
        return False
    # a tensor that torch.func.vmap hands out does not say so
    transformed = not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()
    return transformed or any(t is not None and t.requires_grad for t in tensors)


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """A context in which products beside x stay in their dtype, where autocast would take them to half precision."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else contextlib.nullcontext()


def check_tensor(op: str, name: str, x: Any, ndim: int | None = None) -> None:
    """Raise unless x is a tensor of a supported floating-point dtype (and of ``ndim`` dimensions)."""
    if not isinstance(x, Tensor):
        raise TypeError(f"imgops.{op}: {name} must be a torch.Tensor; got {type(x).__name__}")
    if x.dtype not in DTYPES:
        allowed = ", ".join(str(d).removeprefix("torch.") for d in DTYPES)
        raise TypeError(f"imgops.{op}: {name} must have one of the dtypes {allowed}; got {x.dtype}")
    if ndim is not None and x.ndim != ndim:
        raise ValueError(f"imgops.{op}: {name} must have {ndim} dimensions; got shape {list(x.shape)}")


def check_operand(op: str, name: str, t: Any, x: Tensor, shape: Sequence[int | tuple[int, ...]]) -> None:
    """Raise unless t lies beside x and has the shape, where a tuple lists the sizes allowed in its place."""
    check_tensor(op, name, t, len(shape))
    if t.device != x.device:
        raise ValueError(f"imgops.{op}: {name} must be on x's device {x.device}; got {t.device}")
    for size, allowed in zip(t.shape, shape, strict=True):
        # compared one by one: a compiler with open sizes does not look into a tuple of them
        if not any(size == a for a in (allowed if isinstance(allowed, tuple) else (allowed,))):
            wanted = [" or ".join(map(str, dict.fromkeys(a))) if isinstance(a, tuple) else a for a in shape]
            raise ValueError(
                f"imgops.{op}: {name} must have shape [{', '.join(map(str, wanted))}]; got {list(t.shape)}"
            )


def check_number(op: str, name: str, value: Any, minimum: float | None = None) -> float:
    """The number as a float; raise TypeError if it is none, ValueError if it is below ``minimum`` or NaN."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"imgops.{op}: {name} must be a number; got {type(value).__name__}")
    value = float(value)
    if value != value or (minimum is not None and value < minimum):
        raise ValueError(
            f"imgops.{op}: {name} must be {'a number' if minimum is None else f'>= {minimum:g}'}; got {value}"
        )
    return value


def check_ints(op: str, name: str, value: Any, lengths: tuple[int, ...], minimum: int | None = None) -> list[int]:
    """The int, or sequence of ints of one of the lengths, as a list; an int is a sequence of one."""
    values = list(value) if isinstance(value, (tuple, list, torch.Size)) else [value]
    if any(isinstance(v, bool) or not isinstance(v, (int, torch.SymInt)) for v in values):
        raise TypeError(f"imgops.{op}: {name} must be an int or a sequence of ints; got {value!r}")
    if len(values) not in lengths:
        raise ValueError(f"imgops.{op}: {name} takes {' or '.join(map(str, lengths))} ints; got {value!r}")
    if minimum is not None and any(v < minimum for v in values):
        raise ValueError(f"imgops.{op}: {name} must be >= {minimum}; got {value!r}")
    return values
