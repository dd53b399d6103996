"""Convolution with a residual, a bias and an activation, as PyTorch has it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .._epilogue import Epilogue
from .bias_act import bias_act


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
