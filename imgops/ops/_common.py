"""What the ops share: which backends there are, dtypes and formats, and the checks on arguments."""

from __future__ import annotations

import contextlib
import functools
import math
import numbers
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from .. import _backend

#: what exists here; read once, so that a traced call sees plain data
STATUSES = _backend.load()
#: the dtypes that every backend takes
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

#: the largest factor, padding and up-sampled size that ops take: a sum of a few of them fits 64 bits
INT_MAX = 2**60
#: the largest finite number that ops take: sums may be in float32
FLOAT_MAX = torch.finfo(torch.float32).max
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def untraced(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """The function, which ``torch.jit.trace`` does not look into.

    A tracer hands out sizes as tensors, and warns of each that is compared or taken for a number: of no use in a check,
    nor for the size of a filter, which a trace may take for constant.
    """

    @functools.wraps(function)
    def call(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        if not is_traced():
            return function(*args, **kwargs)
        state, set_state = torch._C._get_tracing_state(), torch._C._set_tracing_state  # type: ignore[attr-defined]
        set_state(None)
        try:
            return function(*args, **kwargs)
        finally:
            set_state(state)

    return call


@untraced
def is_empty(t: Tensor) -> bool:
    """Whether t has no elements."""
    return t.numel() == 0


@untraced
def constant_shape(t: Tensor) -> tuple[int, ...]:
    """The sizes of a filter or a weight, which a trace takes for constant."""
    return tuple(t.shape)


def known(condition: bool | torch.SymBool) -> bool:
    """Whether the condition holds; of sizes that a compiler leaves open, whether it holds for all."""
    if torch.compiler.is_compiling():
        from torch.fx.experimental.symbolic_shapes import statically_known_true

        return statically_known_true(condition)
    return bool(condition)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def dense_format(x: Tensor) -> torch.memory_format:
    """The memory format that an op's output takes: channels-last where x is, else contiguous."""
    if x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def swapped_channels(weight: Tensor, groups: int) -> Tensor:
    """The weight whose inputs are the outputs of each group, and the other way around: [O, I / groups, kh, kw] ->
    [I, O / groups, kh, kw]; a view where there is one group."""
    if groups == 1:
        return weight.transpose(0, 1)
    return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


def gradient_wanted(*tensors: Tensor | None) -> bool:
    """Whether a gradient for one of the tensors may be asked for, so that what it reads must be kept."""
    if not gradients_on():
        return False
    # a tensor from torch.func.vmap does not say that it requires a gradient
    return is_transformed() or is_traced() or any(t is not None and t.requires_grad for t in tensors)


def gradients_on() -> bool:
    """Whether gradients are recorded, or may be when the trace that is being made runs."""
    return torch.is_grad_enabled() or is_traced()


def is_transformed() -> bool:
    """Whether a transform of ``torch.func`` calls."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def in_forward_mode() -> bool:
    """Whether tensors may carry tangents of forward mode."""
    return getattr(torch.autograd.forward_ad, "_current_level", -1) >= 0


def is_traced() -> bool:
    """Whether ``torch.jit.trace`` looks on: it traces again without gradients, and both graphs must be the same."""
    return not torch.compiler.is_compiling() and torch._C._is_tracing()


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """A context in which products on x's device keep their dtype, where autocast would cast them to half precision."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else contextlib.nullcontext()


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype that autocast asks for on x's device; None where it is off, or the device (meta, say) has none."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return None


@contextlib.contextmanager
def autocast_off(x: Tensor) -> Iterator[Tensor]:
    """A context without autocast, as the op chooses its dtypes; gives x in autocast's dtype, or float64 as it is."""
    dtype = autocast_dtype(x)
    if dtype is None:
        yield x
        return
    with without_autocast(x):
        yield x if x.dtype == torch.float64 else x.to(dtype)


def check_dense(op: str, name: str, x: Tensor) -> None:
    """Raise unless x has strides: sparse, nested and oneDNN's tensors have none."""
    if x.is_nested or x.layout != torch.strided:
        kind = "a nested tensor" if x.is_nested else str(x.layout)
        raise TypeError(f"imgops.{op}: {name} must be a dense tensor, as x.to_dense() gives; got {kind}")


def check_tensor(op: str, name: str, x: Any, ndim: int | None = None) -> None:
    """Raise unless x is a tensor of a supported floating-point dtype (and of ``ndim`` dimensions)."""
    if not isinstance(x, Tensor):
        raise TypeError(f"imgops.{op}: {name} must be a torch.Tensor; got {type(x).__name__}")
    if x.dtype not in DTYPES:
        allowed = ", ".join(str(d).removeprefix("torch.") for d in DTYPES)
        raise TypeError(f"imgops.{op}: {name} must have one of the dtypes {allowed}; got {x.dtype}")
    check_dense(op, name, x)
    if ndim is not None and x.ndim != ndim:
        raise ValueError(f"imgops.{op}: {name} must have {ndim} dimensions; got shape {list(x.shape)}")


@untraced
def check_operand(op: str, name: str, t: Any, x: Tensor, shape: Sequence[int | tuple[int, ...]]) -> None:
    """Raise unless t is on x's device and has the shape, where a tuple lists the sizes allowed in its place."""
    check_tensor(op, name, t, len(shape))
    if t.device != x.device:
        raise ValueError(f"imgops.{op}: {name} must be on x's device {x.device}; got {t.device}")
    for size, allowed in zip(t.shape, shape, strict=True):
        # compared one by one, as a compiler does not look for an open size in a tuple
        if not (any(size == a for a in allowed) if isinstance(allowed, tuple) else size == allowed):
            wanted = [" or ".join(map(str, dict.fromkeys(a))) if isinstance(a, tuple) else a for a in shape]
            raise ValueError(
                f"imgops.{op}: {name} must have shape [{', '.join(map(str, wanted))}]; got {list(t.shape)}"
            )


@untraced
def check_weight(op: str, x: Tensor, weight: Any, groups: int, transposed: bool = False) -> None:
    """Raise unless the weight is that of a convolution of x [N, I, H, W]: [O, I / groups, kh, kw], of a transposed one
    [I, O / groups, kh, kw]."""
    check_tensor(op, "weight", weight, 4)
    if 0 in weight.shape:
        # PyTorch too refuses such a weight, or gives a result without a gradient
        raise ValueError(
            f"imgops.{op}: weight must have input channels, output channels and taps; got shape {list(weight.shape)}"
        )
    inputs, outputs = x.shape[1], weight.shape[1] * groups if transposed else weight.shape[0]
    if inputs % groups or outputs % groups:
        raise ValueError(
            f"imgops.{op}: groups must divide the channels of x and weight, {inputs} and {outputs}; got {groups}"
        )
    channels = (inputs, outputs // groups) if transposed else (outputs, inputs // groups)
    check_operand(op, "weight", weight, x, (*channels, *weight.shape[2:]))


def check_bool(op: str, name: str, value: Any) -> bool:
    """The boolean, Python's or NumPy's, as a bool; raise TypeError for all else, as any number would pass for one."""
    # NumPy's booleans are told by name, as NumPy is not imported here
    kind = type(value)
    if kind is not bool and (kind.__module__, kind.__name__) not in (("numpy", "bool"), ("numpy", "bool_")):
        raise TypeError(f"imgops.{op}: {name} must be a bool; got {value!r}")
    return bool(value)


def check_number(op: str, name: str, value: Any, minimum: float | None = None) -> float:
    """The number as a float; raise TypeError if it is none, ValueError if it is below ``minimum``, NaN or too large."""
    if torch.jit.is_tracing() and isinstance(value, Tensor) and value.ndim == 0:
        # the older ONNX exporter makes tensors of the defaults of a network's forward
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"imgops.{op}: {name} must be a number; got {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"imgops.{op}: {name} must fit a float32; got an int of {len(str(value))} digits") from None
    if FLOAT_MAX < abs(number) < math.inf:
        raise ValueError(f"imgops.{op}: {name} must fit a float32; got {number:g}")
    if number != number or (minimum is not None and number < minimum):
        raise ValueError(
            f"imgops.{op}: {name} must be {'a number' if minimum is None else f'>= {minimum:g}'}; got {number}"
        )
    return number


def as_int(value: Any) -> Any:
    """The value as an int if it is an integer of Python or NumPy, or a tensor without dimensions that holds one.

    A size that a compiler leaves open stays open. None stands for all else, booleans among it.
    """
    if type(value) is int or isinstance(value, torch.SymInt):
        return value
    if isinstance(value, bool) or (isinstance(value, Tensor) and (value.ndim > 0 or value.dtype == torch.bool)):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


@untraced
def check_int(op: str, name: str, value: Any, minimum: int | None = None) -> int:
    """The int; raise TypeError if it is none (see :func:`as_int`), ValueError if it is out of range."""
    integer = as_int(value)
    if integer is None:
        raise TypeError(f"imgops.{op}: {name} must be an int; got {type(value).__name__}")
    _check_range(op, name, integer, minimum)
    return integer


@untraced
def check_ints(op: str, name: str, value: Any, lengths: tuple[int, ...], minimum: int | None = None) -> list[int]:
    """The int, or sequence of ints of one of the lengths, as a list; an int is a sequence of one."""
    # most values are ints, of which the checks of a sequence take longest
    several = type(value) is not int and (isinstance(value, (tuple, list, Sequence)) or getattr(value, "ndim", 0) == 1)
    values = list(value) if several else [value]
    integers = [as_int(v) for v in values]
    if any(i is None for i in integers):
        raise TypeError(f"imgops.{op}: {name} must be an int or a sequence of ints; got {value!r}")
    if len(integers) not in lengths:
        raise ValueError(f"imgops.{op}: {name} takes {' or '.join(map(str, lengths))} ints; got {value!r}")
    for integer in integers:
        _check_range(op, name, integer, minimum)
    return integers


@untraced
def check_pair(op: str, name: str, value: Any, minimum: int) -> tuple[int, int]:
    """The int, or two, as (height, width)."""
    values = check_ints(op, name, value, (1, 2), minimum)
    return values[0], values[-1]


def _check_range(op: str, name: str, value: int, minimum: int | None) -> None:
    if minimum is not None and value < minimum:
        raise ValueError(f"imgops.{op}: {name} must be >= {minimum}; got {value}")
    if isinstance(value, int) and abs(value) > INT_MAX:
        raise ValueError(f"imgops.{op}: {name} must be within {INT_MAX} of 0; got {value}")


def check_positions(op: str, height: int, width: int, up: Sequence[int]) -> None:
    """Raise ValueError where the positions in an up-sampled image are beyond what kernels count; open sizes pass."""
    if any(isinstance(n, int) and n > INT_MAX for n in (height * up[1], width * up[0])):
        raise ValueError(
            f"imgops.{op}: up {tuple(up)} makes more than {INT_MAX} rows or columns of x of {height} x {width}"
        )


def check_bytes(op: str, size: Sequence[int]) -> None:
    """Raise ValueError where a tensor of this size is larger than any memory; open sizes are a compiler's to check."""
    if all(isinstance(n, int) for n in size) and math.prod(size) * 8 > 2**63 - 1:
        raise ValueError(f"imgops.{op}: a tensor of {' x '.join(map(str, size))} is larger than any memory")
