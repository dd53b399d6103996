"""What the ops share: the namespaces of their twins, their registration, and the checks on arguments."""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _backend

#: what exists here; read once, so that a traced call sees plain data
STATUSES = _backend.load()
#: the dtypes that every twin takes
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

_TRITON = [device for device in ("cpu", "cuda") if STATUSES["triton", device].available]
_triton_library = torch.library.Library("imgops_triton", "DEF")


def namespace(twin: str) -> Any:
    """The ops of a twin: ``imgops`` holds the kernels in C++, by device; ``imgops_triton`` those in Triton."""
    return torch.ops.imgops_triton if twin == "triton" else torch.ops.imgops


def register(
    name: str,
    *,
    fake: Callable[..., Any],
    triton: Callable[..., Any] | None,
    backward: Callable[..., Any],
    setup_context: Callable[..., Any],
) -> None:
    """Give the op ``name`` of each namespace that exists its fake and its gradient, and Triton's its kernel.

    ``triton`` has the schema in its annotations, the same as the one in csrc/library.cpp. ``backward`` gets the
    namespace before ctx, so that a gradient runs on the twin that ran the forward; what its ctx.needs_input_grad says
    is what the pass asks for. Without ``triton`` the op has no kernel there.
    """
    spaces = ["imgops"] if STATUSES["cpu", "cpu"].available else []
    if _TRITON and triton is not None:
        _triton_library.define(name + torch.library.infer_schema(triton, mutates_args=()))
        for device in _TRITON:
            _triton_library.impl(name, triton, device.upper())
        spaces.append("imgops_triton")

    def remembering(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.tensors = [i for i, value in enumerate(inputs) if isinstance(value, Tensor)]
        setup_context(ctx, inputs, output)

    def asked(ops: Any, ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        # torch.library sets it back after each pass
        ctx.needs_input_grad = _asked_for(ctx)
        return backward(ops, ctx, *gradients)

    for space in spaces:
        torch.library.register_fake(f"{space}::{name}", fake)
        torch.library.register_autograd(
            f"{space}::{name}",
            functools.partial(asked, getattr(torch.ops, space)),
            setup_context=remembering,
        )


def _asked_for(ctx: Any) -> tuple[bool, ...]:
    """ctx.needs_input_grad without the inputs whose gradient this pass has no use for.

    ``torch.autograd.grad(y, x, create_graph=True)``, with which every gradient penalty begins, has none for a weight's,
    and it costs as much as the rest. PyTorch tells its own ops alone: what it tells is private, and of a leaf it tells
    nothing, so that without an answer the gradient is computed.
    """
    needs = list(ctx.needs_input_grad)
    will_execute = getattr(torch._C, "_will_engine_execute_node", None)
    if will_execute is not None and not torch.compiler.is_compiling():
        for i, (node, _) in zip(ctx.tensors, ctx.next_functions, strict=True):
            # the node of a leaf has a variable
            if needs[i] and node is not None and not hasattr(node, "variable"):
                try:
                    needs[i] = will_execute(node)
                except RuntimeError:
                    # somebody calls the node, and not the engine
                    break
    return tuple(needs)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def dense_format(x: Tensor) -> torch.memory_format:
    """The memory format that an op's output takes: channels-last where x is, else contiguous."""
    if x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


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
        if size not in (allowed if isinstance(allowed, tuple) else (allowed,)):
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
