"""Normalizations: adaptive ones, one of a vector to unit length, and the minibatch statistics of a discriminator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..ops._common import accumulation_dtype, check_tensor, untraced
from ..ops.adain import adain, adaptive_instance_norm, instance_norm
from ..ops.efdm import efdm
from ._checks import check_size
from .linear import EqualizedLinear

EPS = 1e-8


def pixel_norm(x: Tensor, dim: int = 1) -> Tensor:
    """``x * rsqrt(mean(x^2 over dim) + 1e-8)``: unit mean square along ``dim`` (Karras et al. 2018, section 4.2).

    Any shape and floating-point dtype; the output has both.
    """
    # in half precision the square overflows, and 1e-8 is rounded to 0
    x_acc = x.to(accumulation_dtype(x.dtype))
    return (x_acc * torch.rsqrt(x_acc.square().mean(dim, keepdim=True) + EPS)).to(x.dtype)


class AdaIN(nn.Module):
    """Give the content's channels the mean and standard deviation of the style's; see :func:`imgops.adain`.

    Args:
        eps: added to each variance, >= 0. Default 1e-5.
        unbiased: divide by one less than the pixels. Default True.

    Shapes: content [N, C, H, W], style [N or 1, C, H', W'] -> [N, C, H, W] in the content's dtype.

    Raises:
        in the forward, what adain raises.

    >>> content, style = torch.randn(2, 8, 16, 16), torch.randn(1, 8, 24, 20)
    >>> AdaIN()(content, style).shape
    torch.Size([2, 8, 16, 16])
    """

    def __init__(self, eps: float = 1e-5, unbiased: bool = True) -> None:
        super().__init__()
        self.eps, self.unbiased = eps, unbiased

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        return adain(content, style, eps=self.eps, unbiased=self.unbiased)

    def extra_repr(self) -> str:
        return f"eps={self.eps}, unbiased={self.unbiased}"


class EFDM(nn.Module):
    """Give the content's channels the values of the style's, by rank; see :func:`imgops.efdm`.

    Args:
        alpha: how much of the style's values, from 0, the content itself, to 1. Default 1.

    Shapes: content [N, C, H, W], style [N or 1, C, H', W'] -> [N, C, H, W] in the content's dtype. The gradient for the
    content is that of the result.

    Raises:
        in the forward, what efdm raises.

    >>> content, style = torch.randn(2, 8, 16, 16), torch.randn(1, 8, 24, 20)
    >>> EFDM()(content, style).shape
    torch.Size([2, 8, 16, 16])
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        return efdm(content, style, alpha=self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class AdaptiveInstanceNorm2d(nn.Module):
    """Instance normalization whose scale and bias a style vector gives (Karras et al. 2019, section 2).

    ``(1 + scale) * (x - mean) / sqrt(variance + eps) + bias``, scale and bias an affine map of w with equalized
    learning rate; see :func:`imgops.adaptive_instance_norm`.

    Args:
        num_features: channels of x, >= 1.
        w_dim: size of the style vector, >= 1.
        eps: added to the variance, >= 0. Default 1e-8.

    Shapes: x [N, num_features, H, W], w [N or 1, w_dim] -> [N, num_features, H, W] in x's dtype, channels-last where x
    is; affine.weight [2 * num_features, w_dim], the scales' rows first, affine.bias [2 * num_features].

    Raises:
        TypeError, ValueError: a size that is no int >= 1; in the forward, what adaptive_instance_norm raises.

    >>> AdaptiveInstanceNorm2d(8, w_dim=64)(torch.randn(2, 8, 16, 16), torch.randn(2, 64)).shape
    torch.Size([2, 8, 16, 16])
    """

    def __init__(self, num_features: int, w_dim: int, eps: float = 1e-8) -> None:
        super().__init__()
        self.num_features, self.eps = check_size(type(self).__name__, "num_features", num_features), eps
        self.affine = EqualizedLinear(w_dim, 2 * self.num_features)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        scale, bias = self.affine(w).chunk(2, dim=1)
        return adaptive_instance_norm(x, scale, bias, eps=self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}"


class InstanceNorm2d(nn.Module):
    """Instance normalization with a scale and a bias for each channel (Ulyanov et al. 2016), fused.

    ``weight * (x - mean) / sqrt(variance + eps) + bias`` with the (biased) statistics of each sample; its state dict is
    that of ``torch.nn.InstanceNorm2d(num_features, affine=True)``.

    Args:
        num_features: channels of x, >= 1.
        eps: added to the variance, >= 0. Default 1e-5.

    Shapes: x [N, num_features, H, W] -> the same in x's dtype, channels-last where x is; weight [num_features], 1 at
    first, and bias [num_features], 0 at first.

    Raises:
        TypeError, ValueError: a size that is no int >= 1; in the forward, what adaptive_instance_norm raises.

    >>> InstanceNorm2d(8)(torch.randn(2, 8, 16, 16)).shape
    torch.Size([2, 8, 16, 16])
    """

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features, self.eps = check_size(type(self).__name__, "num_features", num_features), eps
        self.weight = nn.Parameter(torch.empty(num_features))
        self.bias = nn.Parameter(torch.empty(num_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the weight to 1 and the bias to 0, for a layer that was made on the meta device."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return instance_norm(x, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}"


def minibatch_stddev(x: Tensor, group_size: int | None = 4, num_channels: int = 1) -> Tensor:
    """Append feature maps that hold the standard deviation over a group of samples; see :class:`MinibatchStdDev`.

    x [N, C, H, W] -> [N, C + num_channels, H, W] in x's dtype. Raises TypeError or ValueError where x is no such
    tensor, a size no int >= 1, or where the group size does not divide the batch, or num_channels the channels.
    """
    if group_size is not None:
        group_size = check_size("minibatch_stddev", "group_size", group_size)
    num_channels = check_size("minibatch_stddev", "num_channels", num_channels)
    check_tensor("nn.minibatch_stddev", "x", x, 4)
    _check_shares(x, group_size, num_channels)
    n, c, h, w = x.shape
    group = _group(n, group_size)
    # [group, groups, num_channels, share of channels, H, W]
    y = x.to(accumulation_dtype(x.dtype)).reshape(group, n // group, num_channels, c // num_channels, h, w)
    # centered first: the second-order gradient of torch.var loses most of its digits to cancellation in float32
    y = y - y.mean(dim=0)
    y = (y.square().mean(dim=0) + EPS).sqrt().mean(dim=(2, 3, 4))
    y = y.repeat(group, 1)[:, :, None, None].expand(n, num_channels, h, w).to(x.dtype)
    return torch.cat([x, y], dim=1)


def _group(batch: int | Tensor, group_size: int | None) -> Any:
    """The number of samples in a group; while tracing, the batch is a tensor, and so is the number."""
    if group_size is None:
        return batch
    return batch.clamp(max=group_size) if isinstance(batch, Tensor) else min(group_size, batch)


@untraced
def _check_shares(x: Tensor, group_size: int | None, num_channels: int) -> None:
    n, c = x.shape[:2]
    if n == 0 or n % _group(n, group_size) != 0:
        raise ValueError(f"MinibatchStdDev: the batch must be a multiple of group_size {group_size}; got {n}")
    if c % num_channels != 0:
        raise ValueError(f"MinibatchStdDev: num_channels {num_channels} must divide x's channels; got {c}")


class MinibatchStdDev(nn.Module):
    """Append feature maps that hold the standard deviation over a group of samples (Karras et al. 2018, section 3).

    The biased standard deviation of each feature over a group, ``sqrt(variance + 1e-8)``, is averaged over
    positions and (each of ``num_channels`` shares of) channels; the group's samples all get that number, in every
    pixel, as extra channels. It lets a discriminator see whether a batch varies as real images do.

    Args:
        group_size: samples in a group, which divides the batch; the batch where that is smaller; None is the batch.
            Sample i of a batch of N belongs to group ``i % (N / group_size)``. Default 4.
        num_channels: channels appended, each over its share of the input's channels. Default 1.

    Shapes: x [N, C, H, W] -> [N, C + num_channels, H, W] in x's dtype.

    Raises:
        TypeError, ValueError: a size that is no int >= 1; in the forward, a batch that the group size, or channels
            that num_channels, does not divide.

    >>> MinibatchStdDev(group_size=4)(torch.randn(8, 16, 4, 4)).shape
    torch.Size([8, 17, 4, 4])
    """

    def __init__(self, group_size: int | None = 4, num_channels: int = 1) -> None:
        super().__init__()
        owner = type(self).__name__
        self.group_size = None if group_size is None else check_size(owner, "group_size", group_size)
        self.num_channels = check_size(owner, "num_channels", num_channels)

    def forward(self, x: Tensor) -> Tensor:
        return minibatch_stddev(x, self.group_size, self.num_channels)

    def extra_repr(self) -> str:
        return f"group_size={self.group_size}, num_channels={self.num_channels}"
