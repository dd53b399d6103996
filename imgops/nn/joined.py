"""Layers that stay where they are in a network and run as one: a convolution, batch normalization and an activation, or
group normalization and an activation.

:func:`join` changes the classes of layers to subclasses of what they were, and nothing else. Within a forward of the
module that calls them one after another, the first layer computes the result of all, and the others hand it on.
Everywhere else, and where a hook looks at what passes between them, each does what it always does; a convolution is
:func:`imgops.conv2d` even then. docs/design.md says why it is built this way.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..ops.adain import instance_norm
from .chains import Chain, ConvChain, Joined, base_class, chains_of, takes
from .convolving import Assembled
from .deferred import Deferral, can_defer

_Conv = TypeVar("_Conv", bound=nn.Conv2d)
_Result = TypeVar("_Result")
_Sequence = TypeVar("_Sequence", bound=nn.Sequential)


class _Thread(threading.local):
    """What the module that runs in this thread calls one after another."""

    def __init__(self) -> None:
        self.chains: dict[Chain, _Progress] = {}
        self.deferral: Deferral | None = None


class _Progress:
    """How far a chain has come within its caller's forward.

    Attributes:
        result: what the first layer gave, until the last was called.
        version: how often that had been written to.
        wrong: whether other layers were called, or other tensors given, than the chain expects.
    """

    def __init__(self) -> None:
        self.result: Tensor | None = None
        self.version = 0
        self.wrong = False

    def start(self, result: Tensor) -> None:
        # the first layer is called again before the last: somebody else calls it
        self.wrong |= self.result is not None
        self.result, self.version = result, _version(result)

    def is_as_given(self) -> bool:
        """Whether the result was not written to."""
        assert self.result is not None
        # a deferral would look at each call
        with torch._C.DisableTorchFunction():
            return _version(self.result) == self.version


def _version(x: Tensor) -> int:
    """How often a tensor was written to; in inference mode nobody counts it."""
    return 0 if x.is_inference() else x._version


_thread = _Thread()


def call_chains(chains: Sequence[Chain], owner: nn.Module, call: Callable[[], _Result]) -> _Result:
    """The result of ``call``, a part of the owner's forward that calls the layers of each chain one after another.

    If it does not, a warning says so, and it is called again without these chains.
    """
    before = _thread.chains
    own = {chain: _Progress() for chain in chains}
    _thread.chains = before | own
    try:
        result = call()
    finally:
        _thread.chains = before
    wrong = [chain for chain, progress in own.items() if progress.wrong or progress.result is not None]
    if not wrong:
        return result
    names = ", ".join(repr(chain.first) for chain in wrong)
    warnings.warn(
        f"{type(owner).__name__} does not always call the same layers one after another, after {names}: they run by "
        "themselves from now on, and the forward ran twice; imgops.accelerate again after a change of what it does",
        stacklevel=2,
    )
    if isinstance(owner, _Caller):
        owner._chains = [chain for chain in owner._chains if chain not in wrong]
    return call_chains([chain for chain in chains if chain not in wrong], owner, call)


class _Joined(Joined):
    """A layer of a chain, or a module that calls chains; its base class comes after this one."""

    #: those that it begins, is part of, or calls; none of a module that is made anew, as a part of a sequence is
    _chains: Sequence[Chain] = ()

    def __init_subclass__(cls, **more: Any) -> None:
        """Made by :func:`_class` alone: what the base does when somebody inherits from it is not for this."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        # the class is made at run time, so that copies and pickles name its base
        # Python has it for every class from 3.11 on
        state = self.__getstate__() if hasattr(self, "__getstate__") else self.__dict__
        return _made, (self._base, type(self).__mro__[1]), state


def _made(base: Any, how: Any) -> Any:
    made = _class(base, how)
    return made.__new__(made)


class _JoinedFirst(_Joined):
    def forward(self, input: Tensor) -> Tensor:
        chain = self._chains[0] if self._chains else None
        if chain is not None and (chain.first is not self or "_conv_forward" in vars(self)):
            # a copy of the layer by itself has the chain of the layer
            chain = None
        deferral = None if torch.compiler.is_compiling() else _thread.deferral
        if deferral is not None and chain is not None and type(input) is Tensor:
            # the ops' own calls are no business of the deferral
            with torch._C.DisableTorchFunction():
                if chain.takes(input):
                    return _result(chain, input, deferral.given(input, isinstance(chain, ConvChain)), deferral)
        if chain is None or not chain.takes(input):
            return self._base.forward(self, input)  # type: ignore[arg-type]
        return chain.alone(input) if torch.compiler.is_compiling() else _result(chain, input, input, None)

    def extra_repr(self) -> str:
        others = [base_class(layer).__name__ for chain in self._chains for layer in chain.layers[1:]]
        return ", ".join([super().extra_repr(), f"imgops with {', '.join(others)}" if others else "imgops"])  # type: ignore[misc]


def _result(chain: Chain, input: Tensor, x: Tensor | Assembled, deferral: Deferral | None) -> Tensor:
    """What the first layer of a chain gives; x: the input, or what it is assembled of."""
    progress = _thread.chains.get(chain)
    as_one = (progress is not None or len(chain.layers) == 1) and chain.runs_as_one(input)
    if as_one and deferral is not None and deferral.waits(chain.first):
        assert isinstance(chain, ConvChain)
        y = deferral.wait(chain.conv, x, chain.epilogue(x.shape[0]))
    else:
        y = chain.as_one(x) if as_one else chain.alone(x)
    if as_one and progress is not None:
        progress.start(y)
    return y


class _JoinedFollower(_Joined):
    def forward(self, input: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            for chain in self._chains:
                progress = _thread.chains.get(chain)
                if progress is not None and input is progress.result and progress.is_as_given():
                    if self is chain.layers[-1]:
                        progress.result = None
                    return input
        return self._base.forward(self, input)  # type: ignore[arg-type]


class _FusedInstanceNorm(_Joined):
    def forward(self, input: Tensor) -> Tensor:
        if not takes(input) or input.shape[2] * input.shape[3] < 2:
            return self._base.forward(self, input)  # type: ignore[arg-type]
        return fused_instance_norm(self, input)  # type: ignore[arg-type]


def fused_instance_norm(norm: nn.InstanceNorm2d, x: Tensor) -> Tensor:
    """What an instance normalization without running statistics gives, in one pass."""
    return instance_norm(x, norm.weight, norm.bias, norm.eps)


class _Caller(_Joined):
    #: convolutions whose results wait within its forward, and for how many functions; None where none wait, and no
    #: image is left unmade
    _deferred: dict[nn.Module, int] | None = None


def _call(self: Any, *args: Any, **kwargs: Any) -> Any:
    """The forward of a caller."""
    if torch.compiler.is_compiling():
        return self._base.forward(self, *args, **kwargs)
    outer = _thread.deferral
    if outer is not None:
        with torch._C.DisableTorchFunction():
            if self._deferred is None:
                outer.see([args, kwargs])
            else:
                outer.finish()
    if not self._chains and self._deferred is None:
        return self._base.forward(self, *args, **kwargs)

    def forward() -> Any:
        return call_chains(self._chains, self, lambda: self._base.forward(self, *args, **kwargs))

    if self._deferred is None or not can_defer():
        return forward()
    result, deferral = call_deferred(self._deferred, forward)
    if not deferral.misused:
        return result
    warnings.warn(
        f"{type(self).__name__} reads results that it did not read when it was traced: they do not wait for what comes "
        "after them from now on, and the forward ran twice; imgops.accelerate again after a change of what it does",
        stacklevel=2,
    )
    self._deferred = None
    return forward()


def call_deferred(convs: Mapping[nn.Module, int], call: Callable[[], _Result]) -> tuple[_Result | None, Deferral]:
    """The result of ``call``, a forward in which results of these convolutions wait for so many functions, and what has
    become of them."""
    outer = _thread.deferral
    deferral = _thread.deferral = Deferral(convs, outer)
    try:
        return deferral.run(call), deferral
    finally:
        _thread.deferral = outer


@cache
def _class(base: Any, how: Any) -> Any:
    # tracers tell by the module which layers are PyTorch's, and messages name the class
    names = {name: getattr(base, name) for name in ("__module__", "__qualname__", "__doc__")}
    if how is _Caller:
        # tracers and exporters read the names of the arguments
        names["forward"] = wraps(base.forward)(_call)
    return type(base.__name__, (how, base), {"_base": base, **names})


def chains_called_by(module: nn.Module) -> list[Chain]:
    """The chains whose layers a module calls one after another as one."""
    return list(module._chains) if isinstance(module, _Caller) else []


def join(chain: Chain, caller: nn.Module | None = None) -> None:
    """Make the layers of a chain run as one within the forward of ``caller``, which calls them one after another; None:
    the first is :meth:`Chain.alone`, and the others are as they were."""
    _become(chain.first, _JoinedFirst, chain)
    if caller is not None and len(chain.layers) > 1:
        for layer in chain.layers[1:]:
            _become(layer, _JoinedFollower, chain)
        _become(caller, _Caller, chain)


def defer(caller: nn.Module, convs: Mapping[nn.Module, int]) -> None:
    """Let results of convolutions wait within the forward of ``caller`` for so many functions, one after another, each
    of which alone takes what the one before gives; and leave unmade what it puts side by side or enlarges for
    convolutions."""
    _become(caller, _Caller)
    caller._deferred = dict(convs)  # type: ignore[assignment]
    for module in caller.modules():
        of_ours = isinstance(module, _Joined) or type(module).forward.__module__.startswith(("torch.nn.", "imgops."))
        if not of_ours:
            # it may compute by other things than functions of PyTorch, which would see no values
            _become(module, _Caller)


def join_neighbors(network: _Sequence) -> _Sequence:
    """Join what a sequence calls one after another, as a part of what it is; returns it."""
    for chain in chains_of(list(network._modules.values())):  # type: ignore[arg-type]
        chain.built_in = True
        join(chain, network)
    return network


def join_alone(conv: _Conv) -> _Conv:
    """Make a convolution :func:`imgops.conv2d`, as a part of the network that it is in; returns it."""
    join(ConvChain(conv, built_in=True))
    return conv


def fuse_norm(norm: nn.InstanceNorm2d) -> None:
    """Make an instance normalization one pass, with its scale and bias."""
    _become(norm, _FusedInstanceNorm)


def split(network: nn.Module, *, built_in: bool = False) -> None:
    """Give the layers of a network their classes back; those that it was made with only if ``built_in``."""
    for layer in network.modules():
        if not isinstance(layer, _Joined) or (not built_in and any(chain.built_in for chain in layer._chains)):
            continue
        _restore(layer)


def _restore(layer: Any) -> None:
    for name in ("_chains", "_deferred"):
        layer.__dict__.pop(name, None)
    kind = type(layer)
    if "_base" in vars(kind):
        layer.__class__ = kind._base
    else:
        # a parametrization has since made a class for this layer alone
        kind.__bases__ = (layer._base,)


def _become(layer: Any, how: Any, *chains: Chain) -> None:
    if not isinstance(layer, how):
        kind: Any = type(layer)
        layer.__class__ = _class(kind, how)
        layer._chains = []
    layer._chains += chains
