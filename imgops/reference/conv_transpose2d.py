"""Transposed convolution with a bias and an activation, as PyTorch has it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .._epilogue import Epilogue
from .bias_act import bias_act


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    epilogue: Epilogue,
    stride: tuple[int, int],
    padding: tuple[int, int],
    output_padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """x [N, I, H, W], weight [I, O / groups, kh, kw]; pairs are (height, width)."""
    y = F.conv_transpose2d(x, weight, None, stride, 0, 0, groups, dilation)
    # padding crops; by its own argument PyTorch has no third order where there is output padding
    (p_h, p_w), (more_h, more_w) = padding, output_padding
    return bias_act(F.pad(y, (-p_w, more_w - p_w, -p_h, more_h - p_h)), epilogue)
