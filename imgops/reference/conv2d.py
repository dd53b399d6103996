"""Convolution with a bias and an activation, as PyTorch has it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .._epilogue import Epilogue
from .bias_act import bias_act


def conv2d(
    x: Tensor,
    weight: Tensor,
    epilogue: Epilogue,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """x [N, I, H, W], weight [O, I / groups, kh, kw]; pairs are (height, width)."""
    return bias_act(F.conv2d(x, weight, None, stride, padding, dilation, groups), epilogue)
