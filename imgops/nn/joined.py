"""Layers that stay where they are in a network and run as one: a convolution, batch normalization and an activation, or
group normalization and an activation.

:func:`join` changes the classes of layers to subclasses of what they were, and nothing else: parameters, names, hooks
and references to them stay. Within a forward of the module that calls them one after another, the first computes the
result of all, and the others hand it on. Called from elsewhere, in training (of a batch normalization), under a
compiler, or where a hook looks between them, each does what it always does; the convolution is :func:`imgops.conv2d`
even then.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from .. import _backend
from .._epilogue import Epilogue
from ..ops._algorithms import PLANAR_SHARE
from ..ops._common import DTYPES, STATUSES, gradient_wanted
from ..ops.adain import adaptive_instance_norm, mean_std
from ..ops.bias_act import fused_bias_act
from ..ops.conv2d import padded_conv2d

_Conv = TypeVar("_Conv", bound=nn.Conv2d)
_Sequence = TypeVar("_Sequence", bound=nn.Sequential)


class Activation(NamedTuple):
    """Of :func:`imgops.bias_act`, with a gain of 1."""

    act: str
    alpha: float = 0.0
    clamp: float = -1.0


def activation_of(layer: nn.Module) -> Activation | None:
    """The activation that a layer of PyTorch is; None for one that ops do not have."""
    kind = base_class(layer)
    if kind is nn.LeakyReLU:
        return Activation("lrelu", layer.negative_slope)  # type: ignore[arg-type]
    if (kind is nn.ELU and layer.alpha != 1) or (kind is nn.Softplus and layer.beta != 1):
        return None
    return _ACTIVATIONS.get(kind)


_ACTIVATIONS = {
    nn.ReLU: Activation("relu"),
    nn.ReLU6: Activation("relu", clamp=6.0),
    nn.SiLU: Activation("swish"),
    nn.Sigmoid: Activation("sigmoid"),
    nn.Tanh: Activation("tanh"),
    nn.ELU: Activation("elu"),
    nn.SELU: Activation("selu"),
    nn.Softplus: Activation("softplus"),
}


class Chain(ABC):
    """Layers that a caller calls one after another, as one.

    Args:
        layers: in the order in which they are called, None among them left out.
        built_in: whether the network was made so.
    """

    def __init__(self, *layers: nn.Module | None, built_in: bool = False) -> None:
        self.layers = [layer for layer in layers if layer is not None]
        self.built_in = built_in

    @property
    def first(self) -> nn.Module:
        """The layer that computes the result of all."""
        return self.layers[0]

    def runs_as_one(self, x: Tensor) -> bool:
        """Whether the chain suits its input, and nobody looks between the layers."""
        *inner, last = self.layers
        return (
            not any(_hooked(layer._forward_hooks, *_gradient_hooks(layer)) for layer in inner)
            and not any(_hooked(layer._forward_pre_hooks) for layer in self.layers[1:])
            and not _hooked(*_gradient_hooks(last))
            and not nn.modules.module._has_any_global_hook()  # type: ignore[no-untyped-call]
        )

    @abstractmethod
    def as_one(self, x: Tensor) -> Tensor:
        """What the last layer gives of the first layer's input."""

    @abstractmethod
    def alone(self, x: Tensor) -> Tensor:
        """What the first layer gives."""

    @abstractmethod
    def shorter(self) -> Chain | None:
        """What runs in another way even where the chain is not one; None: nothing does."""

    def apart(self, x: Tensor) -> Tensor:
        """What :meth:`as_one` gives, by the layers as PyTorch has them."""
        for layer in self.layers:
            x = base_class(layer).forward(layer, x)
        return x


class ConvChain(Chain):
    """A convolution, and the batch normalization and the activation after it, if any.

    Args:
        conv: an ``nn.Conv2d``.
        norm: an ``nn.BatchNorm2d`` that keeps running statistics, or None.
        act: a layer that :func:`activation_of` knows, or None.
        built_in: whether the network was made so.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        norm: nn.BatchNorm2d | None = None,
        act: nn.Module | None = None,
        built_in: bool = False,
    ) -> None:
        super().__init__(conv, norm, act, built_in=built_in)
        self.conv, self.norm, self.act = conv, norm, act

    def runs_as_one(self, x: Tensor) -> bool:
        return not (self.norm is not None and self.norm.training) and super().runs_as_one(x)

    def as_one(self, x: Tensor) -> Tensor:
        norm, b, scale = self.norm, self.conv.bias, None
        if norm is not None:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            factor = torch.rsqrt(norm.running_var + norm.eps)
            factor = factor if norm.weight is None else factor * norm.weight
            mean = norm.running_mean if b is None else norm.running_mean - b
            b = -mean * factor if norm.bias is None else norm.bias - mean * factor
            scale = factor.expand(x.shape[0], -1)
        return _convolve(self.conv, x, Epilogue(b, scale, None, *_of_layer(self.act)))

    def alone(self, x: Tensor) -> Tensor:
        return _convolve(self.conv, x, Epilogue(self.conv.bias))

    def shorter(self) -> Chain:
        return ConvChain(self.conv)


class GroupNormChain(Chain):
    """A group normalization and the activation after it, as one where no gradient is recorded.

    Args:
        norm: an ``nn.GroupNorm``.
        act: a layer that :func:`activation_of` knows.
    """

    def __init__(self, norm: nn.GroupNorm, act: nn.Module) -> None:
        super().__init__(norm, act)
        self.norm, self.act = norm, act

    def runs_as_one(self, x: Tensor) -> bool:
        # two passes beat PyTorch's four; the gradient has more
        wanted = gradient_wanted(x, self.norm.weight, self.norm.bias)
        return x.is_contiguous() and x.numel() > 0 and not wanted and super().runs_as_one(x)

    def as_one(self, x: Tensor) -> Tensor:
        norm, (n, c, h, w) = self.norm, x.shape
        backend = _backend.choose("bias_act", x.device.type, None, STATUSES)
        # the pixels of a group are one plane
        mean, std = (t.view(n, -1, 1) for t in mean_std(backend, x.view(n, norm.num_groups, -1, w), norm.eps, False))
        weight, bias = (None if t is None else t.view(norm.num_groups, -1) for t in (norm.weight, norm.bias))
        scale = (1 / std).expand(-1, -1, c // norm.num_groups) if weight is None else weight / std
        shift = -mean * scale if bias is None else bias - mean * scale
        epilogue = Epilogue(shift.reshape(-1), scale.reshape(1, -1), None, *_of_layer(self.act))
        return fused_bias_act(backend, x.view(1, n * c, h, w), epilogue).view(n, c, h, w)

    def alone(self, x: Tensor) -> Tensor:
        return base_class(self.norm).forward(self.norm, x)

    def shorter(self) -> None:
        return None


def _of_layer(act: nn.Module | None) -> tuple[str, float, float, float]:
    """(act, alpha, gain, clamp) of an activation's layer."""
    found = Activation("linear") if act is None else activation_of(act)
    assert found is not None
    return found.act, found.alpha, 1.0, found.clamp


def _hooked(*hooks: dict[int, Any]) -> bool:
    return any(map(len, hooks))


def _gradient_hooks(layer: nn.Module) -> tuple[dict[int, Any], dict[int, Any]]:
    return layer._backward_hooks, layer._backward_pre_hooks


def _convolve(conv: nn.Conv2d, x: Tensor, epilogue: Epilogue) -> Tensor:
    return padded_conv2d(
        x,
        conv.weight,
        epilogue,
        conv.stride,  # type: ignore[arg-type]
        pads_of(conv),
        conv.padding_mode,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
    )


def pads_of(conv: nn.Conv2d) -> tuple[int, int, int, int]:
    """The padding of a convolution: left, right, top and bottom."""
    if isinstance(conv, PaddedConv2d):
        return conv.pads * 2
    if conv.padding_mode == "zeros" and not isinstance(conv.padding, str):
        y, x = conv.padding
        return x, x, y, y
    # what PyTorch pads by itself
    x0, x1, y0, y1 = conv._reversed_padding_repeated_twice
    return x0, x1, y0, y1


class PaddedConv2d(nn.Conv2d):
    """Convolution with as much padding before as behind, or less: along each axis ``pads``, in pixels.

    Shapes: x [N, in_channels, H, W] -> [N, out_channels, (H + sum(pads) - kernel_size) // stride + 1, ...].
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, pads: tuple[int, int], **more: Any
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, **more)
        self.pads = pads

    def forward(self, input: Tensor) -> Tensor:
        return _convolve(self, input, Epilogue(self.bias))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, pads={self.pads}"


def picture_format(network: nn.Module, device: torch.device) -> torch.memory_format:
    """How pictures are best laid out for a network of convolutions on a device.

    Channels-last; but planar on a CPU for a network of whose weights nearly all are those of 3 x 3 convolutions, which
    Winograd's algorithm makes faster there, or of whose convolutions a quarter are depthwise.
    """
    convs = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.dilation == (1, 1)]
    whole = [conv.weight.numel() for conv in convs if conv.kernel_size == (3, 3) and conv.groups == 1]
    depthwise = [conv for conv in convs if 1 < conv.groups == conv.in_channels == conv.out_channels]
    suits = sum(whole) >= PLANAR_SHARE * sum(conv.weight.numel() for conv in convs) or 4 * len(depthwise) >= len(convs)
    return torch.contiguous_format if device.type == "cpu" and suits else torch.channels_last


class _Thread(threading.local):
    """What a thread calls one after another."""

    def __init__(self) -> None:
        #: each chain with what its convolution gave, until its last layer was called
        self.chains: dict[Chain, Tensor | None] = {}


_thread = _Thread()


@contextlib.contextmanager
def calling(chains: Sequence[Chain]) -> Iterator[list[Chain]]:
    """Within it the layers of each chain are called one after another, in this thread.

    Gives a list, in which at the end are those of which that was not true.
    """
    before = _thread.chains
    _thread.chains = before | dict.fromkeys(chains)
    wrong: list[Chain] = []
    try:
        yield wrong
        wrong += [chain for chain in chains if _thread.chains[chain] is not None]
    finally:
        _thread.chains = before


class _Joined:
    """A layer of a chain, or a module that calls chains; its base class comes after this one."""

    #: the class that the layer had, and has again
    _base: type[nn.Module]
    #: those that it begins, is part of, or calls; none of a module that is made anew, as a part of a sequence is
    _chains: Sequence[Chain] = ()

    def __reduce_ex__(self, protocol: Any) -> Any:
        # the class is made at run time, so that copies and pickles name its base
        return _made, (self._base, type(self).__mro__[1]), self.__dict__


def _made(base: Any, how: Any) -> Any:
    made = _class(base, how)
    return made.__new__(made)


class _JoinedFirst(_Joined):
    def forward(self, input: Tensor) -> Tensor:
        if not self._chains or input.ndim != 4 or input.dtype not in DTYPES:
            return self._base.forward(self, input)  # type: ignore[arg-type]
        (chain,) = self._chains
        if not torch.compiler.is_compiling() and chain in _thread.chains and chain.runs_as_one(input):
            y = _thread.chains[chain] = chain.as_one(input)
            return y
        return chain.alone(input)

    def extra_repr(self) -> str:
        others = [base_class(layer).__name__ for chain in self._chains for layer in chain.layers[1:]]
        return ", ".join([super().extra_repr(), f"imgops with {', '.join(others)}" if others else "imgops"])  # type: ignore[misc]


class _JoinedFollower(_Joined):
    def forward(self, input: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            for chain in self._chains:
                if _thread.chains.get(chain) is input:
                    if self is chain.layers[-1]:
                        _thread.chains[chain] = None
                    return input
        return self._base.forward(self, input)  # type: ignore[arg-type]


class _FusedInstanceNorm(_Joined):
    def forward(self, input: Tensor) -> Tensor:
        if input.ndim != 4 or input.dtype not in DTYPES or input.shape[2] * input.shape[3] < 2:
            return self._base.forward(self, input)  # type: ignore[arg-type]
        return fused_instance_norm(self, input)  # type: ignore[arg-type]


def fused_instance_norm(norm: nn.InstanceNorm2d, x: Tensor) -> Tensor:
    """What an instance normalization without running statistics gives, in one pass."""
    zeros = x.new_zeros(1, x.shape[1])
    if norm.weight is None:
        return adaptive_instance_norm(x, zeros, zeros, eps=norm.eps)
    return adaptive_instance_norm(x, norm.weight[None] - 1, norm.bias[None], eps=norm.eps)


class _Caller(_Joined):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        base: Any = self._base
        if torch.compiler.is_compiling() or not self._chains:
            return base.forward(self, *args, **kwargs)
        with calling(self._chains) as wrong:
            result = base.forward(self, *args, **kwargs)
        if not wrong:
            return result
        names = ", ".join(repr(chain.first) for chain in wrong)
        warnings.warn(
            f"{base.__name__} does not always call the same layers after {names}, so that they no longer run as one",
            stacklevel=2,
        )
        self._chains = [chain for chain in self._chains if chain not in wrong]
        return self.forward(*args, **kwargs)


@cache
def _class(base: Any, how: Any) -> Any:
    # tracers tell by the module which layers are PyTorch's, and messages name the class
    names = {name: getattr(base, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(base.__name__, (how, base), {"_base": base, **names})


def base_class(layer: nn.Module) -> type[nn.Module]:
    """The class of a layer as it was before it was joined."""
    return layer._base if isinstance(layer, _Joined) else type(layer)


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


def join_neighbors(network: _Sequence) -> _Sequence:
    """Join what a sequence calls one after another, as a part of what it is; returns it."""
    for chain in chains_of(list(network.children())):
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


def chains_of(layers: Sequence[nn.Module]) -> list[Chain]:
    """The chains among layers that are called one after another, each once."""
    found: list[Chain] = []
    for i, first in enumerate(layers):
        after: list[Any] = [*layers[i + 1 : i + 3], None, None]
        norm, act = after[:2]
        if type(first) is nn.GroupNorm and norm is not None and activation_of(norm):
            found.append(GroupNormChain(first, norm))
        if is_convolution(first):
            if norm is None or type(norm) is not nn.BatchNorm2d or norm.running_mean is None:
                norm, act = None, norm
            found.append(ConvChain(first, norm, act if act is not None and activation_of(act) else None))  # type: ignore[arg-type]
    return found


def is_convolution(layer: nn.Module) -> bool:
    """Whether a layer is a convolution whose forward :func:`imgops.conv2d` computes."""
    return type(layer) in (nn.Conv2d, PaddedConv2d)


def split(network: nn.Module, *, built_in: bool = False) -> None:
    """Give the layers of a network their classes back; those that it was made with only if ``built_in``."""
    for layer in network.modules():
        if not isinstance(layer, _Joined) or (not built_in and any(chain.built_in for chain in layer._chains)):
            continue
        layer.__dict__.pop("_chains", None)
        layer.__class__ = layer._base  # type: ignore[assignment]


def _become(layer: Any, how: Any, *chains: Chain) -> None:
    if not isinstance(layer, how):
        kind: Any = type(layer)
        layer.__class__ = _class(kind, how)
        layer._chains = []
    layer._chains += chains
