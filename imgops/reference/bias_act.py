"""Bias and activation: ``y = clamp(gain * act(x * scale + noise + b))``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .._epilogue import Epilogue

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


class Activation(NamedTuple):
    """An activation with the first two derivatives, each a function of (z, alpha).

    ``derivative2`` is None where it is zero almost everywhere. Both derivatives are themselves
    differentiable expressions, so any higher order follows from autograd.
    """

    function: Callable[[Tensor, float], Tensor]
    derivative: Callable[[Tensor, float], Tensor]
    derivative2: Callable[[Tensor, float], Tensor] | None
    default_alpha: float
    default_gain: float


def _tanh_derivative2(z: Tensor, alpha: float) -> Tensor:
    t = z.tanh()
    return -2 * t * (1 - t.square())


def _sigmoid_derivative(z: Tensor, alpha: float) -> Tensor:
    s = z.sigmoid()
    return s * (1 - s)


def _sigmoid_derivative2(z: Tensor, alpha: float) -> Tensor:
    s = z.sigmoid()
    return s * (1 - s) * (1 - 2 * s)


def _swish_derivative(z: Tensor, alpha: float) -> Tensor:
    s = z.sigmoid()
    return s * (1 + z * (1 - s))


def _swish_derivative2(z: Tensor, alpha: float) -> Tensor:
    s = z.sigmoid()
    return s * (1 - s) * (2 + z * (1 - 2 * s))


def _hardswish_derivative(z: Tensor, alpha: float) -> Tensor:
    return torch.where(z <= -3, torch.zeros_like(z), torch.where(z < 3, z / 3 + 0.5, torch.ones_like(z)))


def _hardswish_derivative2(z: Tensor, alpha: float) -> Tensor:
    return ((z > -3) & (z < 3)).to(z.dtype) / 3


def _exp_below_zero(z: Tensor) -> Tensor:
    # exp(z) where z <= 0; the clamp keeps the unused branch finite, so that its gradient is 0 and not NaN
    return z.clamp(max=0).exp()


ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(lambda z, a: z, lambda z, a: torch.ones_like(z), None, 0.0, 1.0),
    "relu": Activation(lambda z, a: z.relu(), lambda z, a: (z > 0).to(z.dtype), None, 0.0, math.sqrt(2)),
    "lrelu": Activation(
        lambda z, a: F.leaky_relu(z, a), lambda z, a: torch.where(z > 0, torch.ones_like(z), a), None, 0.2, math.sqrt(2)
    ),
    "tanh": Activation(lambda z, a: z.tanh(), lambda z, a: 1 - z.tanh().square(), _tanh_derivative2, 0.0, 1.0),
    "sigmoid": Activation(lambda z, a: z.sigmoid(), _sigmoid_derivative, _sigmoid_derivative2, 0.0, 1.0),
    "elu": Activation(
        lambda z, a: F.elu(z),
        lambda z, a: torch.where(z > 0, torch.ones_like(z), _exp_below_zero(z)),
        lambda z, a: torch.where(z > 0, torch.zeros_like(z), _exp_below_zero(z)),
        0.0,
        1.0,
    ),
    "selu": Activation(
        lambda z, a: F.selu(z),
        lambda z, a: SELU_SCALE * torch.where(z > 0, torch.ones_like(z), SELU_ALPHA * _exp_below_zero(z)),
        lambda z, a: SELU_SCALE * torch.where(z > 0, torch.zeros_like(z), SELU_ALPHA * _exp_below_zero(z)),
        0.0,
        1.0,
    ),
    "softplus": Activation(
        lambda z, a: F.softplus(z, threshold=40.0),
        lambda z, a: z.sigmoid(),
        _sigmoid_derivative,
        0.0,
        1.0,
    ),
    "swish": Activation(lambda z, a: z * z.sigmoid(), _swish_derivative, _swish_derivative2, 0.0, math.sqrt(2)),
    "hardswish": Activation(
        lambda z, a: F.hardswish(z), _hardswish_derivative, _hardswish_derivative2, 0.0, math.sqrt(2)
    ),
}


def pre_activation(x: Tensor, b: Tensor | None, scale: Tensor | None, noise: Tensor | None, dim: int = 1) -> Tensor:
    """``z = x * scale + noise + b`` with each term broadcast over x; terms that are None drop out."""
    z = x
    if scale is not None:
        z = z * scale.reshape(*scale.shape, *[1] * (x.ndim - 2))
    if noise is not None:
        z = z + noise
    if b is not None:
        z = z + b.reshape([-1 if i == dim else 1 for i in range(x.ndim)])
    return z


def bias_act(x: Tensor, epilogue: Epilogue, dim: int = 1) -> Tensor:
    """The formula of the module in the widest of x's and b's dtypes; ``clamp`` < 0 means none.

    Shapes: x [N, C, ...]; b [x.shape[dim]]; scale [N, C]; noise [N or 1, 1, ...].
    """
    b, scale, noise, act, alpha, gain, clamp = epilogue
    z = pre_activation(x, b, scale, noise, dim)
    y = ACTIVATIONS[act].function(z, alpha) * gain
    return y.clamp(-clamp, clamp) if clamp >= 0 else y
