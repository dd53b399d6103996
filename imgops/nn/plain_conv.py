"""Convolutions with PyTorch's parameters, whose bias and activation run in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..ops.conv2d import PaddingMode, conv2d
from ..ops.conv_transpose2d import conv_transpose2d
from ._checks import activation_gain, check_size


class _Activated(nn.Module):
    """A convolution with the arguments of an activation."""

    def _set_activation(self, act: str, alpha: float | None, gain: float | None, clamp: float | None) -> None:
        default = activation_gain(type(self).__name__, act)
        self.act, self.alpha, self.clamp = act, alpha, clamp
        self.gain = default if gain is None else gain

    def _activation(self) -> dict[str, Any]:
        return {"act": self.act, "alpha": self.alpha, "gain": self.gain, "clamp": self.clamp}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, act={self.act!r}, gain={self.gain:.4g}"


class FusedConv2d(_Activated, nn.Conv2d):
    """``torch.nn.Conv2d`` and an activation in one pass, as :func:`imgops.conv2d` has it, with the former's state dict.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype: as
            of ``torch.nn.Conv2d``, with numbers for padding.
        act, alpha, clamp: the activation, as in :func:`imgops.bias_act`. Default "linear".
        gain: factor after the activation; None: the activation's default. Default 1, as PyTorch's activations have.
        residual_scale: factor of what the forward adds to the convolution, before the activation. Default 1.

    Shapes: x [N, in_channels, H, W], residual [N, out_channels, H', W'] or None -> [N, out_channels, H', W'] in x's
    dtype (under autocast in autocast's), to which the weight and the residual are cast; channels-last where x is.

    Raises:
        TypeError, ValueError: a size that is no int in range, an unknown act; in the forward, what
            :func:`imgops.conv2d` raises.

    >>> FusedConv2d(16, 32, 3, padding=1, groups=4, act="lrelu")(torch.randn(2, 16, 8, 8)).shape
    torch.Size([2, 32, 8, 8])
    >>> x = torch.randn(2, 16, 8, 8)
    >>> FusedConv2d(16, 16, 3, padding=1, act="relu")(x, residual=x).shape
    torch.Size([2, 16, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        act: str = "linear",
        alpha: float | None = None,
        gain: float | None = 1.0,
        clamp: float | None = None,
        residual_scale: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        owner = type(self).__name__
        super().__init__(
            check_size(owner, "in_channels", in_channels),
            check_size(owner, "out_channels", out_channels),
            _sides(owner, "kernel_size", kernel_size, 1),
            _sides(owner, "stride", stride, 1),
            _sides(owner, "padding", padding, 0),
            _sides(owner, "dilation", dilation, 1),
            check_size(owner, "groups", groups),
            bias,
            padding_mode,
            device=device,
            dtype=dtype,
        )
        self._set_activation(act, alpha, gain, clamp)
        self.residual_scale = residual_scale

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        return conv2d(
            input,
            self.weight,
            self.bias,
            residual=residual,
            residual_scale=self.residual_scale,
            **self._activation(),
            stride=self.stride,
            padding=self.padding,  # type: ignore[arg-type]
            padding_mode=self.padding_mode,
            dilation=self.dilation,
            groups=self.groups,
        )


class FusedConvTranspose2d(_Activated, nn.ConvTranspose2d):
    """``torch.nn.ConvTranspose2d`` and an activation in one pass, as :func:`imgops.conv_transpose2d` has it, with the
    former's state dict.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation, padding_mode,
            device, dtype: as of ``torch.nn.ConvTranspose2d``.
        act, alpha, clamp: the activation, as in :func:`imgops.bias_act`. Default "linear".
        gain: factor after the activation; None: the activation's default. Default 1, as PyTorch's activations have.

    ``forward(input, output_size=None)``: input [N, in_channels, H, W] -> [N, out_channels, H', W'] in input's dtype
    (under autocast in autocast's), to which the weight is cast; channels-last where input is. ``output_size`` is
    (H', W'), where several output paddings are possible.

    Raises:
        TypeError, ValueError: a size that is no int in range, an unknown act; in the forward, an output size that the
            stride cannot reach, and what :func:`imgops.conv_transpose2d` raises.

    >>> FusedConvTranspose2d(16, 8, 4, stride=2, padding=1, act="relu")(torch.randn(2, 16, 8, 8)).shape
    torch.Size([2, 8, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        output_padding: int | tuple[int, int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int, int] = 1,
        padding_mode: Literal["zeros"] = "zeros",
        *,
        act: str = "linear",
        alpha: float | None = None,
        gain: float | None = 1.0,
        clamp: float | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        owner = type(self).__name__
        super().__init__(
            check_size(owner, "in_channels", in_channels),
            check_size(owner, "out_channels", out_channels),
            _sides(owner, "kernel_size", kernel_size, 1),
            _sides(owner, "stride", stride, 1),
            _sides(owner, "padding", padding, 0),
            _sides(owner, "output_padding", output_padding, 0),
            check_size(owner, "groups", groups),
            bias,
            _sides(owner, "dilation", dilation, 1),  # type: ignore[arg-type]
            padding_mode,
            device=device,
            dtype=dtype,
        )
        self._set_activation(act, alpha, gain, clamp)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        pads: Any = self.padding
        sizes = list(self.stride), list(pads), list(self.kernel_size)
        more = self._output_padding(input, output_size, *sizes, 2, list(self.dilation))
        return conv_transpose2d(
            input,
            self.weight,
            self.bias,
            **self._activation(),
            stride=self.stride,
            padding=pads,
            output_padding=more,
            dilation=self.dilation,
            groups=self.groups,
        )


def _sides(owner: str, name: str, value: int | Sequence[int], minimum: int) -> int | tuple[int, int]:
    if not isinstance(value, (tuple, list)):
        return check_size(owner, name, value, minimum)
    if len(value) != 2:
        raise ValueError(f"{owner}: {name} takes an int or two; got {value!r}")
    return check_size(owner, name, value[0], minimum), check_size(owner, name, value[1], minimum)
