"""Layers of PyTorch's convolution by our op: their arguments, padding, and the layout that suits them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import _backend
from .._epilogue import Epilogue
from ..ops._algorithms import PLANAR_SHARE
from ..ops._common import STATUSES
from ..ops.concat_conv2d import concat_conv2d
from ..ops.conv2d import padded_conv2d
from ..reference.conv2d import concatenated


class Activation(NamedTuple):
    """Of :func:`imgops.bias_act`, with a gain of 1."""

    act: str
    alpha: float = 0.0
    clamp: float = -1.0


class Assembled(NamedTuple):
    """An image that is not made: the channels of several images one after another, each pixel repeated ``nearest``
    times along both axes."""

    parts: tuple[Tensor, ...]
    nearest: int
    shape: tuple[int, int, int, int]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, parts: Sequence[Tensor], nearest: int) -> Assembled:
        """Of parts that are alike but for their channels."""
        n, _, h, w = parts[0].shape
        size = n, sum([x.shape[1] for x in parts]), h * nearest, w * nearest
        return cls(tuple(parts), nearest, size, parts[0].dtype, parts[0].device)

    def values(self) -> Tensor:
        """The image."""
        return concatenated(self.parts, self.nearest)


def convolve(
    conv: nn.Conv2d,
    x: Tensor | Assembled,
    epilogue: Epilogue,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """A convolution's layer, by :func:`imgops.conv2d` with an epilogue in the place of its bias; ``weight``, if any, in
    the place of its weight."""
    weight = conv.weight if weight is None else weight
    stride, padding, dilation = _pair(conv.stride), pads_of(conv), _pair(conv.dilation)
    if isinstance(x, Assembled):
        if (stride, dilation, conv.groups, conv.padding_mode) == ((1, 1), (1, 1), 1, "zeros"):
            backend = _backend.choose("conv2d", x.device.type, None, STATUSES)
            return concat_conv2d(backend, x.parts, weight, epilogue, x.nearest, padding, residual, residual_scale)
        x = x.values()
    mode: Any = conv.padding_mode
    more: Any = {"residual": residual, "residual_scale": residual_scale}
    return padded_conv2d(x, weight, epilogue, stride, padding, mode, dilation, conv.groups, **more)


def output_size(conv: nn.Conv2d, x: Tensor | Assembled) -> tuple[int, int, int, int]:
    """The size of what a convolution's layer gives; it has sides below 1 where there is no such thing."""
    (x0, x1, y0, y1), (kh, kw) = pads_of(conv), conv.weight.shape[2:]
    (sy, sx), (dy, dx) = _pair(conv.stride), _pair(conv.dilation)
    n, _, h, w = x.shape
    return (
        n,
        conv.weight.shape[0],
        (h + y0 + y1 - dy * (kh - 1) - 1) // sy + 1,
        (w + x0 + x1 - dx * (kw - 1) - 1) // sx + 1,
    )


def _pair(size: Any) -> tuple[int, int]:
    """(height, width), also where someone has set an int in the place of two."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def pads_of(conv: nn.Conv2d) -> tuple[int, int, int, int]:
    """The padding of a convolution: left, right, top and bottom."""
    if isinstance(conv, PaddedConv2d):
        return conv.pads * 2
    if conv.padding_mode == "zeros" and not isinstance(conv.padding, str):
        y, x = _pair(conv.padding)
        return x, x, y, y
    # what PyTorch pads by itself
    x0, x1, y0, y1 = conv._reversed_padding_repeated_twice
    return x0, x1, y0, y1


class PaddedConv2d(nn.Conv2d):
    """Convolution with other padding before than behind: along each axis ``pads`` = (before, behind), in pixels.

    Shapes: x [N, in_channels, H, W] -> [N, out_channels, (H + sum(pads) - kernel_size) // stride + 1, ...].
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, pads: tuple[int, int], **more: Any
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, **more)
        self.pads = pads

    def forward(self, input: Tensor) -> Tensor:
        return convolve(self, input, Epilogue(self.bias))

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
