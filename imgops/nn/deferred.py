"""Results of convolutions that wait for what a forward does with them.

Within a :class:`Deferral` a convolution returns a tensor without values. A sum, a factor or an activation that a
forward then calls as a function becomes a part of the convolution. Images that a forward puts side by side or enlarges
are not made either, and a convolution reads them where they lie. Before any other function reads such a tensor its
values are made: a mode of PyTorch (``torch.overrides.TorchFunctionMode``) sees every function of PyTorch that a forward
calls. docs/design.md says what it does not see.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._device import DeviceContext

from .._epilogue import Epilogue
from ..ops._common import autocast_dtype, dense_format, in_forward_mode, without_autocast
from .convolving import Activation, Assembled, convolve, output_size

_Result = TypeVar("_Result")


class _Convolution(NamedTuple):
    """A convolution that waits, with what is a part of it by now."""

    conv: nn.Conv2d
    x: Tensor | Assembled
    epilogue: Epilogue
    #: how many more functions one after another may become parts of it
    more: int
    residual: Tensor | None = None
    residual_scale: float = 1.0

    def values(self) -> Tensor:
        weight, epilogue = None, self.epilogue
        if self.residual is not None and epilogue.scale is not None:
            # the op would scale the residual too; the factors of a normalization are the same for each sample
            weight = self.conv.weight * epilogue.scale[0, :, None, None, None]
            epilogue = epilogue._replace(scale=None)
        return convolve(self.conv, self.x, epilogue, self.residual, self.residual_scale, weight)

    def has_format_of(self, other: Tensor) -> bool:
        """Whether the result certainly has the memory format of another tensor."""
        format = dense_format(other)
        tensors = [other, self.conv.weight, *(self.x.parts if isinstance(self.x, Assembled) else [self.x])]
        return all(t.is_contiguous(memory_format=format) for t in tensors)

    def activated(self, activation: Activation) -> _Convolution | None:
        e = self.epilogue
        if e.act != "linear" or e.gain != 1 or e.clamp >= 0:
            return None
        return self._replace(epilogue=e._replace(act=activation.act, alpha=activation.alpha, clamp=activation.clamp))

    def scaled(self, factor: float) -> _Convolution | None:
        gain = self.epilogue.gain * factor
        if self.epilogue.act != "linear" or self.epilogue.clamp >= 0 or not math.isfinite(gain):
            return None
        return self._replace(epilogue=self.epilogue._replace(gain=gain))

    def plus(self, residual: Tensor) -> _Convolution | None:
        e = self.epilogue
        # 1 / gain of a smaller one could exceed float32
        if e.act != "linear" or e.clamp >= 0 or abs(e.gain) < 1e-6 or self.residual is not None:
            return None
        return self._replace(residual=residual, residual_scale=1 / e.gain)


def can_defer() -> bool:
    """Whether results may wait here: no gradient is recorded, and nothing else looks at what a forward calls."""
    modes = (torch._C._get_function_stack_at(i) for i in range(torch._C._len_torch_function_stack()))
    return not (
        torch.jit.is_tracing()  # type: ignore[no-untyped-call]
        or any(type(mode) not in (Deferral, DeviceContext) for mode in modes)
        or _is_changed()
    )


def _is_changed() -> bool:
    """Whether functions do more here than compute, which a forward can ask for itself: they record gradients, cast, are
    transformed or looked at."""
    return (
        torch.is_grad_enabled()
        or torch.is_autocast_enabled("cpu")
        or torch.is_autocast_enabled("cuda")
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or in_forward_mode()
    )


class _Misused(Exception):
    """A forward reads a tensor that a function took before, and that so has no values; tracing had not seen it."""


class Deferral(TorchFunctionMode):
    """Within :meth:`run` results of some convolutions wait.

    Args:
        layers: the convolutions, and how many functions one after another each alone take the result of the one before.
        outer: the deferral that this one runs within, if any.
    """

    def __init__(self, layers: Mapping[nn.Module, int], outer: Deferral | None) -> None:
        super().__init__()
        self._layers = layers
        self._outer = outer
        #: by their ids: tensors that wait for values, what makes these, and tensors that were taken by a function that
        #: became a part of a convolution, and get no values any more
        self._waiting: dict[int, Tensor] = {}
        self._works: dict[int, _Convolution | Assembled] = {}
        self._used: dict[int, Tensor] = {}
        #: whose memory all tensors without values have, also the outer deferral's
        self._nans: dict[tuple[torch.dtype, torch.device], Tensor] = {} if outer is None else outer._nans
        #: whether a tensor without values was read, so that results are wrong
        self.misused = False
        #: what became parts of convolutions, by the names of their functions
        self.parts: set[str] = set()

    def run(self, call: Callable[[], _Result]) -> _Result | None:
        """What ``call`` returns; it is not to be used if :attr:`misused` is set then."""
        try:
            with self:
                result = call()
        except Exception:
            # a forward may raise another error for _Misused, which an outer deferral may have raised
            if not self.misused:
                raise
            return None
        with torch._C.DisableTorchFunction():
            self.finish()
            self.misused |= bool(_held(self._used)) or any(map(self._lacks_values, _tensors([result])))
        return result

    def waits(self, layer: nn.Module) -> bool:
        """Whether the result of a layer is to wait."""
        return layer in self._layers and not _is_changed()

    def wait(self, conv: nn.Conv2d, x: Tensor | Assembled, epilogue: Epilogue) -> Tensor:
        """The result of a convolution, without values."""
        work, size = _Convolution(conv, x, epilogue, self._layers[conv]), output_size(conv, x)
        # an image that is too small, or of other channels, is an error of this call
        fits = min(size) > 0 and x.shape[1] == conv.weight.shape[1] * conv.groups
        return self._place(work, size, x) if fits else work.values()

    def given(self, x: Tensor, assembled: bool) -> Tensor | Assembled:
        """A tensor that a layer takes, with its values; or what it is assembled of, where the layer can do that."""
        work = self._works.get(id(x))
        if isinstance(work, Assembled) and assembled:
            self.parts.add("interpolate" if work.nearest > 1 else "cat")
            return work
        self.see([x])
        return x

    def finish(self) -> None:
        """Make the values of all that wait and that anybody still has."""
        for number in _held(self._waiting):
            self._make(number)
        self._waiting.clear()
        self._works.clear()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _LOOKS:
            return func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            if func in _JOINING and not _is_changed():
                y = self._combined(func, args, kwargs)
                if y is None:
                    y = self._assembled(func, args, kwargs)
                if y is not None:
                    return y
            self.see([*args, *kwargs.values()])
            if func not in _PURE and self._waiting:
                # it may write to what a waiting convolution reads
                self.finish()
        return func(*args, **kwargs)

    def _place(self, work: _Convolution | Assembled, size: Collection[int], like: Tensor | Assembled) -> Tensor:
        kind = like.dtype, like.device
        nan = self._nans.get(kind)
        if nan is None:
            nan = self._nans[kind] = torch.full((1,), math.nan, dtype=like.dtype, device=like.device)
        # of the NaN's storage and no view of the NaN, as the data of a view cannot be set
        place = torch.empty(0, dtype=like.dtype, device=like.device)
        place.set_(nan.untyped_storage(), 0, tuple(size), (0,) * len(size))
        self._waiting[id(place)], self._works[id(place)] = place, work
        return place

    def _make(self, number: int) -> None:
        place, work = self._waiting.pop(number), self._works.pop(number)
        # the convolution was called before autocast, if that is on by now
        with nullcontext() if autocast_dtype(place) is None else without_autocast(place):
            # to set a tensor's data does not count as to write to it
            place.data = work.values()

    def see(self, arguments: Iterable[Any]) -> None:
        """Make the values of all tensors among a function's arguments."""
        if not self._nans:
            return
        for x in _tensors(arguments):
            if id(x) in self._waiting:
                self._make(id(x))
            elif self._lacks_values(x):
                owner = self
                while owner._outer is not None and id(x) not in owner._used:
                    owner = owner._outer
                owner.misused = True
                raise _Misused

    def _lacks_values(self, x: Tensor) -> bool:
        """Whether a tensor that does not wait has no values: a part of another, or an alias that no function made."""
        return any(torch._C._is_alias_of(x, nan) for nan in self._nans.values())  # type: ignore[attr-defined]

    def _convolution(self, x: Any) -> _Convolution | None:
        work = self._works.get(id(x))
        return work if isinstance(work, _Convolution) else None

    def _combined(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """What a function gives of a waiting convolution, without values, if it can become a part of that."""
        if not self._waiting:
            return None
        if func in _ACTIVATIONS and args:
            x, inplace, work = args[0], False, self._convolution(args[0])
            if work is not None:
                activation, inplace = _ACTIVATIONS[func](*args, **kwargs)
                work = work.activated(activation) if activation is not None else None
        elif func in _BINARY and len(args) == 2 and not kwargs:
            inplace, (x, other) = func in _IN_PLACE, args
            if not inplace and func not in _QUOTIENTS and self._convolution(x) is None:
                x, other = other, x
            work = self._convolution(x)
            if work is not None:
                if func in _SUMS:
                    # a sum has the format of its first argument
                    fits = x is args[0] or (type(other) is Tensor and work.has_format_of(other))
                    work = self._sum(work, x, other) if fits else None
                else:
                    work = self._product(work, other, func in _QUOTIENTS)
        else:
            return None
        # where another function takes a result too, only a function in place leaves it to be read
        if work is None or not (inplace or work.more):
            return None
        work = work._replace(more=max(0, work.more - 1))
        self.parts.add(func.__name__.rstrip("_"))
        if inplace:
            self._works[id(x)] = work
            # layers that run as one tell by it that a result was written to
            if not x.is_inference():
                torch.autograd.graph.increment_version(x)
            return x
        del self._works[id(x)]
        self._used[id(x)] = self._waiting.pop(id(x))
        return self._place(work, x.shape, x)

    def _sum(self, work: _Convolution, x: Tensor, other: Any) -> _Convolution | None:
        fits = type(other) is Tensor and other is not x and (other.shape, other.dtype) == (x.shape, x.dtype)
        if not fits or other.device != x.device:
            return None
        self.see([other])
        return work.plus(other)

    @staticmethod
    def _product(work: _Convolution, factor: Any, quotient: bool) -> _Convolution | None:
        if type(factor) not in (int, float) or (quotient and factor == 0):
            return None
        return work.scaled(1 / factor if quotient else factor)

    def _assembled(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """What a function gives that puts images side by side, or enlarges one, without values."""
        parts = _CHANNELS[func](*args, **kwargs) if func in _CHANNELS else None
        nearest = 1
        if parts is None and func is F.interpolate:
            parts, nearest = _enlarged(*args, **kwargs)
        if parts is None or not all(type(x) is Tensor and x.ndim == 4 and x.numel() for x in parts):
            return None
        first = parts[0]
        like = [(x.dtype, x.device, x.shape[0], *x.shape[2:]) for x in parts]
        if len(set(like)) > 1 or not first.is_floating_point():
            return None
        waiting = self._works.get(id(first))
        if nearest > 1 and isinstance(waiting, Assembled) and waiting.nearest == 1:
            parts = waiting.parts
        else:
            self.see(parts)
        work = Assembled.of(parts, nearest)
        return self._place(work, work.shape, work)


def _references(tensors: dict[int, Tensor], number: int) -> int:
    return sys.getrefcount(tensors[number])


#: of a tensor that nobody has but the dict
_NOT_HELD = _references({0: torch.empty(0)}, 0)


def _held(tensors: dict[int, Tensor]) -> list[int]:
    """The numbers of those tensors that somebody has beside the dict."""
    return [number for number in tensors if _references(tensors, number) > _NOT_HELD]


def _tensors(arguments: Iterable[Any]) -> Iterator[Tensor]:
    for x in arguments:
        if isinstance(x, Tensor):
            yield x
        elif isinstance(x, (list, tuple)):
            yield from _tensors(x)
        elif isinstance(x, dict):
            yield from _tensors(x.values())


def _enlarged(
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: Any = None,
    recompute_scale_factor: Any = None,
    antialias: bool = False,
) -> tuple[list[Any] | None, int]:
    """The image, and how often its pixels are repeated, of a call of ``F.interpolate`` that repeats them twice."""
    plain = mode in ("nearest", "nearest-exact") and align_corners is None and not recompute_scale_factor
    if not plain or antialias or type(input) is not Tensor or input.ndim != 4:
        return None, 1
    height, width = input.shape[2:]
    if size is None:
        twice = scale_factor in (2, (2, 2), [2, 2])
    else:
        twice = (tuple(size) if isinstance(size, (list, tuple)) else (size, size)) == (2 * height, 2 * width)
    return ([input], 2) if twice else (None, 1)


def _of_channels(
    tensors: Any, dim: Any = 0, *, axis: Any = None, out: Tensor | None = None
) -> list[Any] | tuple[Any, ...] | None:
    """What a call of ``torch.cat`` puts side by side, if these are the channels of images."""
    fits = (dim if axis is None else axis) in (1, -3) and out is None and type(tensors) in (list, tuple)
    # of one tensor a copy is wanted
    return tensors if fits and len(tensors) > 1 else None


def _call_of(activation: Activation) -> Callable[..., tuple[Activation | None, bool]]:
    return lambda input, inplace=False, out=None: (activation if out is None else None, inplace)


def _leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> tuple[Activation, bool]:
    return Activation("lrelu", negative_slope), inplace


def _elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> tuple[Activation | None, bool]:
    return Activation("elu") if alpha == 1 else None, inplace


_T = Tensor
_RELU, _SIGMOID, _TANH = (_call_of(Activation(act)) for act in ("relu", "sigmoid", "tanh"))
#: of functions that are activations: the activation that a call is, and whether it writes to its input
_ACTIVATIONS: dict[Any, Callable[..., tuple[Activation | None, bool]]] = {
    F.relu: _RELU,
    torch.relu: _RELU,
    _T.relu: _RELU,
    torch.relu_: lambda input: (Activation("relu"), True),
    _T.relu_: lambda input: (Activation("relu"), True),
    F.relu6: _call_of(Activation("relu", clamp=6.0)),
    F.leaky_relu: _leaky_relu,
    F.silu: _call_of(Activation("swish")),
    F.hardswish: _call_of(Activation("hardswish")),
    F.elu: _elu,
    F.selu: _call_of(Activation("selu")),
    torch.sigmoid: _SIGMOID,
    _T.sigmoid: _SIGMOID,
    torch.tanh: _TANH,
    _T.tanh: _TANH,
}
_SUMS = {torch.add, _T.add, _T.add_}
_QUOTIENTS = {torch.div, _T.div, _T.div_}
_IN_PLACE = {_T.add_, _T.mul_, _T.div_}
_BINARY = {torch.mul, _T.mul, _T.mul_, *_SUMS, *_QUOTIENTS}
_CHANNELS = dict.fromkeys((torch.cat, torch.concat, torch.concatenate), _of_channels)
_JOINING = {*_ACTIVATIONS, *_BINARY, *_CHANNELS, F.interpolate}
#: names, as a graph has them, of functions that can become a part of a convolution, and of those that make its input
COMBINED = {
    *(function.__name__.rstrip("_") for function in (*_ACTIVATIONS, *_BINARY)),
    *("iadd", "imul", "truediv", "itruediv"),
}
CHANNELS = {"cat", "concat", "concatenate", "interpolate"}
#: functions that read no values
_LOOKS = {
    *(
        getattr(_T, name).__get__
        for name in ("shape", "dtype", "device", "ndim", "requires_grad", "is_cuda", "_version")
    ),
    *(_T.size, _T.dim, _T.numel, _T.is_floating_point, _T.is_inference),
}
#: functions that write to none of their arguments
_PURE = {torch.conv2d, torch.conv_transpose2d, F.linear, F.group_norm}
