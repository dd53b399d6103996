"""Convolution with a residual, a bias and an activation, as PyTorch has it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .._epilogue import Epilogue
from .bias_act import bias_act


def concatenated(parts: Sequence[Tensor], nearest: int) -> Tensor:
    """The channels of parts [N, C, H, W] as one image, whose pixels each become ``nearest * nearest``."""
    x = torch.cat(list(parts), 1) if len(parts) > 1 else parts[0]
    return x if nearest == 1 else F.interpolate(x, scale_factor=float(nearest), mode="nearest")


def conv2d(
    x: Tensor,
    weight: Tensor,
    residual: Tensor | None,
    residual_scale: float,
    epilogue: Epilogue,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """x [N, I, H, W], weight [O, I / groups, kh, kw], residual [N, O, H', W']; pairs are (height, width)."""
    u = F.conv2d(x, weight, None, stride, padding, dilation, groups)
    return bias_act(u if residual is None else u + residual_scale * residual, epilogue)
