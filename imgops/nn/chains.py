"""Layers that a module calls one after another and that can run as one, with what they then compute."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import _backend
from .._epilogue import Epilogue
from ..ops._common import DTYPES, STATUSES, accumulation_dtype, autocast_dtype, gradient_wanted
from ..ops.adain import mean_std
from ..ops.bias_act import fused_bias_act
from .convolving import Activation, Assembled, PaddedConv2d, convolve


class Joined:
    """A layer whose class was changed, by :mod:`imgops.nn.joined`, to a subclass of what it was."""

    #: the class that the layer had, and has again
    _base: type[nn.Module]


def base_class(layer: nn.Module) -> type[nn.Module]:
    """The class of a layer as it was before it was joined."""
    return layer._base if isinstance(layer, Joined) else type(layer)


def activation_of(layer: nn.Module) -> Activation | None:
    """The activation that a layer of PyTorch is; None for one that ops do not have."""
    kind = base_class(layer)
    if kind is nn.LeakyReLU:
        return Activation("lrelu", layer.negative_slope)  # type: ignore[arg-type]
    if (kind is nn.ELU and layer.alpha != 1) or (kind is nn.Softplus and (layer.beta, layer.threshold) != (1, 20)):
        return None
    return _ACTIVATIONS.get(kind)


_ACTIVATIONS = {
    nn.ReLU: Activation("relu"),
    nn.ReLU6: Activation("relu", clamp=6.0),
    nn.SiLU: Activation("swish"),
    nn.Hardswish: Activation("hardswish"),
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
        #: identities that are called between the layers
        self.identities: list[nn.Module] = []
        self.built_in = built_in

    @property
    def first(self) -> nn.Module:
        """The layer that computes the result of all."""
        return self.layers[0]

    def takes(self, x: Tensor) -> bool:
        """Whether the first layer's input is one that ops take."""
        return takes(x)

    def runs_as_one(self, x: Tensor) -> bool:
        """Whether the chain suits an input that it takes, and no hook would see another tensor than without it."""
        if nn.modules.module._has_any_global_hook():  # type: ignore[no-untyped-call]
            return False
        # a loop, as this runs at every call
        for layer in (*self.layers, *self.identities):
            if layer._forward_hooks or layer._backward_hooks or layer._backward_pre_hooks:
                return False
            # the first gets its input from the caller as ever
            if layer._forward_pre_hooks and layer is not self.first:
                return False
        return True

    @abstractmethod
    def as_one(self, x: Any) -> Tensor:
        """What the last layer gives of the first layer's input; of a convolution also of what that is assembled of."""

    @abstractmethod
    def alone(self, x: Any) -> Tensor:
        """What the first layer gives."""

    @abstractmethod
    def without_others(self) -> Chain | None:
        """The first layer by itself, if it then is computed in another way than PyTorch's."""

    def apart(self, x: Tensor) -> Tensor:
        """What :meth:`as_one` gives, by the layers as PyTorch has them."""
        for layer in self.layers:
            x = base_class(layer).forward(layer, x)
        return x


def takes(x: Tensor) -> bool:
    """Whether ops take a layer's input: a batch of images in a dtype of theirs."""
    return x.ndim == 4 and x.dtype in DTYPES


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

    def takes(self, x: Tensor) -> bool:
        # a parametrized weight is no parameter, and to ask for it would compute it
        weight = None if self.built_in else self.conv._parameters.get("weight")
        if weight is None or weight.dtype == x.dtype:
            return takes(x)
        # our op would cast the weight; PyTorch refuses one of another dtype, but for autocast, which casts no float64
        return takes(x) and autocast_dtype(x) is not None and torch.float64 not in (x.dtype, weight.dtype)

    def runs_as_one(self, x: Tensor) -> bool:
        norm, act = self.norm, self.act
        by_batch = norm is not None and (norm.training or norm.running_mean is None)
        return not by_batch and (act is None or activation_of(act) is not None) and super().runs_as_one(x)

    def epilogue(self, samples: int) -> Epilogue:
        """What comes after the convolution."""
        b, scale = self.conv.bias, None
        if self.norm is not None:
            b, factor = _as_epilogue(self.norm, b)
            scale = factor.expand(samples, -1)
        return Epilogue(b, scale, None, *_of_layer(self.act))

    def as_one(self, x: Tensor | Assembled) -> Tensor:
        return convolve(self.conv, x, self.epilogue(x.shape[0]))

    def alone(self, x: Tensor | Assembled) -> Tensor:
        return convolve(self.conv, x, Epilogue(self.conv.bias))

    def without_others(self) -> Chain:
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
        return super().runs_as_one(x) and x.is_contiguous() and x.numel() > 0 and not wanted

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

    def without_others(self) -> None:
        return None


def _as_epilogue(norm: nn.BatchNorm2d, b: Tensor | None) -> tuple[Tensor, Tensor]:
    """(bias, factor) of each channel, which a normalization by running statistics is, after a convolution's bias b.

    It is worked out at every call, in as few steps as there are: on small pictures they take as long as a convolution.
    """
    mean, variance, weight, bias = norm.running_mean, norm.running_var, norm.weight, norm.bias
    assert mean is not None
    assert variance is not None
    factor = torch.rsqrt(_wide(variance) + norm.eps)
    factor = factor if weight is None else factor * _wide(weight)
    mean = _wide(mean) if b is None else _wide(mean) - _wide(b)
    return -mean * factor if bias is None else torch.addcmul(_wide(bias), mean, factor, value=-1), factor


def _wide(t: Tensor) -> Tensor:
    """In float32 at least, as PyTorch has it: the factor can exceed what half precision holds."""
    # most are in it already
    return t if t.dtype == torch.float32 else t.to(accumulation_dtype(t.dtype))


def _of_layer(act: nn.Module | None) -> tuple[str, float, float, float]:
    """(act, alpha, gain, clamp) of an activation's layer."""
    found = Activation("linear") if act is None else activation_of(act)
    assert found is not None
    return found.act, found.alpha, 1.0, found.clamp


def chains_of(layers: Sequence[nn.Module]) -> list[Chain]:
    """The chains among layers that are called one after another."""
    found: list[Chain] = []
    for i, first in enumerate(layers):
        run: list[Any] = [*(layer for layer in layers[i:] if type(layer) is not nn.Identity), None, None, None]
        norm, act = run[1:3]
        if type(first) is nn.GroupNorm and norm is not None and activation_of(norm):
            found.append(GroupNormChain(first, norm))
        elif is_convolution(first):
            if type(norm) is not nn.BatchNorm2d or norm.running_mean is None:
                norm, act = None, norm
            found.append(ConvChain(first, norm, act if act is not None and activation_of(act) else None))  # type: ignore[arg-type]
        else:
            continue
        last = max(k for k, layer in enumerate(layers) if layer is found[-1].layers[-1] and k >= i)
        found[-1].identities = [layer for layer in layers[i:last] if type(layer) is nn.Identity]
    return found


def is_convolution(layer: nn.Module) -> bool:
    """Whether a layer is a convolution whose forward :func:`imgops.conv2d` computes."""
    own_forward = {"forward", "_conv_forward"} & vars(layer).keys()
    return type(layer) in (nn.Conv2d, PaddedConv2d) and not own_forward
