"""The layers that encoders share: preparing the colors, pools, convolutions with batch normalization, branches, the
classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn._checks import check_choice
from ...nn.joined import join_neighbors
from ...ops._common import accumulation_dtype

POOLINGS = ("max", "average", "l2")
#: the ways to prepare RGB in [0, 1] for the first convolution
PREPROCESSINGS = ("imagenet", "caffe", "symmetric", "lite", "none")
#: torchvision's mean and standard deviation
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Colors(nn.Module):
    """The first step of an encoder: an affine map of each pixel's colors from RGB in [0, 1].

    Args:
        preprocessing: "imagenet" subtracts torchvision's mean and divides by its standard deviation; "caffe" gives
            BGR in [0, 255] less its mean; "symmetric" maps to [-1, 1]; "lite" subtracts 127/255 and divides by 128/255;
            "none" changes nothing. Or (mean, standard deviation), three numbers each. Default "imagenet".

    Shapes: x [N, 3, H, W] -> the same; weight [3, 3, 1, 1] and bias [3] are buffers.

    Raises:
        ValueError: an unknown preprocessing, or a deviation that is not above 0; in the forward, a picture that is not
            RGB.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, preprocessing: str | tuple[Sequence[float], Sequence[float]] = "imagenet") -> None:
        super().__init__()
        name = type(self).__name__
        self.preprocessing: str | tuple[Sequence[float], Sequence[float]] = (
            check_choice(name, "preprocessing", preprocessing, PREPROCESSINGS)
            if isinstance(preprocessing, str)
            else _check_statistics(name, preprocessing)
        )
        self.register_buffer("weight", torch.empty(3, 3, 1, 1))
        self.register_buffer("bias", torch.empty(3))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the map of the preprocessing, for an encoder that was made on the meta device."""
        weight, bias = torch.eye(3), torch.zeros(3)
        told = _IMAGENET if self.preprocessing == "imagenet" else self.preprocessing
        if not isinstance(told, str):
            mean, std = map(torch.tensor, told)
            weight, bias = torch.diag(1 / std), -mean / std
        elif self.preprocessing == "caffe":
            weight, bias = 255 * torch.eye(3).flip(0), -torch.tensor([103.939, 116.779, 123.68])
        elif self.preprocessing == "symmetric":
            weight, bias = 2 * weight, bias - 1
        elif self.preprocessing == "lite":
            weight, bias = weight * (255 / 128), bias - 127 / 128
        self.weight.copy_(weight[:, :, None, None])
        self.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"encoder: x must be RGB [N, 3, H, W]; got {tuple(x.shape)}")
        return F.conv2d(x, self.weight, self.bias)


def _check_statistics(owner: str, given: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return a mean and standard deviation of colors; raise ValueError unless they are three numbers each, those of the
    second above 0."""
    try:
        mean, std = (tuple(float(value) for value in values) for values in given)
    except (TypeError, ValueError):
        mean, std = (), ()
    if len(mean) != 3 or len(std) != 3 or not min(std) > 0:
        raise ValueError(
            f"{owner}: preprocessing must be one of {', '.join(PREPROCESSINGS)}, or (mean, standard deviation), three "
            f"numbers each; got {given!r}"
        )
    return mean, std


class Pool(nn.Module):
    """Pooling of square windows.

    Args:
        kind: "max", "average", or "l2", the root of the mean square, which lies between the two.
        size, stride, padding: in pixels.
        ceil_mode: whether windows that reach beyond the right or lower edge count. Default False.
        count_include_pad: whether averages count the padding, as zeros. Default False.

    Shapes: x [N, C, H, W] -> [N, C, H', W'] as ``nn.MaxPool2d``.

    Raises:
        ValueError: an unknown kind.
    """

    def __init__(
        self,
        kind: str = "max",
        size: int = 2,
        stride: int = 2,
        padding: int = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = False,
    ) -> None:
        super().__init__()
        self.kind = check_choice(type(self).__name__, "pooling", kind, POOLINGS)
        self.size, self.stride, self.padding = size, stride, padding
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "max":
            return F.max_pool2d(x, self.size, self.stride, self.padding, ceil_mode=self.ceil_mode)
        if self.kind == "average":
            return self._average(x)
        # the square of a number above 255 is infinite in float16
        x_acc = x.to(accumulation_dtype(x.dtype))
        # the slope of a root at 0 is infinite
        return (self._average(x_acc.square()) + torch.finfo(x_acc.dtype).eps ** 2).sqrt().to(x.dtype)

    def _average(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        return f"{self.kind}, {self.size}, {self.stride}, padding={self.padding}, ceil_mode={self.ceil_mode}"


def set_pooling(network: nn.Module, kind: str) -> None:
    """Change the kind of all pools of a network."""
    for layer in network.modules():
        if isinstance(layer, Pool):
            layer.kind = kind


class ConvNorm(nn.Sequential):
    """Convolution without a bias, batch normalization with eps 1e-3, and ReLU; in evaluation they are one pass.

    Shapes: x [N, in_channels, H, W] -> [N, out_channels, H', W'] as ``nn.Conv2d``.
    """

    def __init__(self, in_channels: int, out_channels: int, **convolution: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, bias=False, **convolution)
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3)
        self.relu = nn.ReLU()
        join_neighbors(self)


class Branches(nn.Module):
    """Branches that run side by side; the channels of their outputs are concatenated.

    Shapes: x, as each branch takes it -> [N, the sum of their channels, H', W'].
    """

    def __init__(self, **branches: nn.Module) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)


class Classifier(nn.Linear):
    """Logits of classes: the mean of all positions, and a linear layer.

    Shapes: x [N, in_features, H, W] -> [N, out_features].
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mean((2, 3)))


class Residual(nn.Sequential):
    """A sequence whose input is added to its output.

    Shapes: x [N, C, H, W] -> the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)
