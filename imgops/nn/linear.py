"""Fully connected layer with equalized learning rate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops._common import check_number
from ..ops.bias_act import bias_act
from ._checks import activation_gain, check_size


class EqualizedLinear(nn.Module):
    """``act(x @ weight.T * lr_multiplier / sqrt(in_features) + bias * lr_multiplier)``.

    The weight is stored with variance ``1 / lr_multiplier^2`` and scaled at run time, so that Adam's step is the
    same fraction of it in every layer ("equalized learning rate", Karras et al. 2018, section 4.1); a multiplier
    below 1 slows the layer down by that factor.

    Args:
        in_features, out_features: sizes, >= 1.
        bias: learn a bias. Default True.
        act: activation, as in :func:`imgops.bias_act`, with its default gain. Default "linear".
        lr_multiplier: default 1; 0.01 in StyleGAN's mapping network.
        bias_init: initial bias as it takes effect. Default 0; 1 where the output is a style.

    Shapes: x [N, in_features] -> [N, out_features], in the parameters' dtype; weight [out_features, in_features],
    bias [out_features], float32 when built.

    Raises:
        TypeError, ValueError: a size that is no int >= 1, an unknown act, an lr_multiplier that is not > 0.

    >>> EqualizedLinear(64, 32, act="lrelu")(torch.randn(4, 64)).shape
    torch.Size([4, 32])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        act: str = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        self.in_features = check_size(owner, "in_features", in_features)
        self.out_features = check_size(owner, "out_features", out_features)
        activation_gain(owner, act)
        self.act = act
        self.lr_multiplier = check_number(owner, "lr_multiplier", lr_multiplier)
        if self.lr_multiplier <= 0:
            raise ValueError(f"{owner}: lr_multiplier must be > 0; got {lr_multiplier}")
        self.weight_gain = self.lr_multiplier / self.in_features**0.5
        self.bias_init = check_number(owner, "bias_init", bias_init)
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the weight and bias, for a layer that was made on the meta device."""
        nn.init.normal_(self.weight, std=1 / self.lr_multiplier)
        if self.bias is not None:
            nn.init.constant_(self.bias, self.bias_init / self.lr_multiplier)

    def forward(self, x: Tensor) -> Tensor:
        # the gain goes to x: a factor on the weight or on the product costs passes over the weight or its gradient
        x = x * self.weight_gain
        if self.bias is None:
            y = x @ self.weight.t()
        else:
            y = torch.addmm(self.bias, x, self.weight.t(), beta=self.lr_multiplier)
        return y if self.act == "linear" else bias_act(y, act=self.act)

    def extra_repr(self) -> str:
        return (
            f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, act={self.act!r}, "
            f"lr_multiplier={self.lr_multiplier:g}"
        )
