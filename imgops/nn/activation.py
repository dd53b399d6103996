"""Activations as layers, each one pass with the bias before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops.bias_act import bias_act
from ._checks import activation_gain, check_size


class BiasAct(nn.Module):
    """``clamp(gain * act(x + bias), -clamp, clamp)`` in one pass; see :func:`imgops.bias_act`.

    Args:
        num_features: channels of x, which the bias has a value for, >= 1.
        act: activation. Default "lrelu".
        alpha: negative slope of "lrelu"; default 0.2. The others ignore it.
        gain: factor after the activation; None is the activation's own. Default None.
        clamp: limit of the output's magnitude, >= 0; None clamps nothing. Default None.
        bias: learn a bias, initially 0. Default True.

    Shapes: x [N, num_features, ...] -> the same, in x's dtype; bias [num_features], float32 when built.

    Raises:
        TypeError, ValueError: a size that is no int >= 1, an unknown act; in the forward, what bias_act raises.

    >>> BiasAct(8, act="swish", clamp=256)(torch.randn(2, 8, 16, 16)).shape
    torch.Size([2, 8, 16, 16])
    """

    def __init__(
        self,
        num_features: int,
        act: str = "lrelu",
        alpha: float | None = None,
        gain: float | None = None,
        clamp: float | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        self.num_features = check_size(owner, "num_features", num_features)
        activation_gain(owner, act)
        self.act, self.alpha, self.gain, self.clamp = act, alpha, gain, clamp
        self.bias = nn.Parameter(torch.zeros(num_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return bias_act(x, self.bias, act=self.act, alpha=self.alpha, gain=self.gain, clamp=self.clamp)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, act={self.act!r}, alpha={self.alpha}, gain={self.gain}, clamp={self.clamp}, "
            f"bias={self.bias is not None}"
        )
