"""Style transfer by a network that was trained on one style (Johnson et al. 2016)."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from .._backend import use_impl
from ..models.style.transform_net import TransformNet


@torch.no_grad()
def stylize_fast(content: Tensor, network: TransformNet) -> Tensor:
    """Paint a picture in the style of a network, in one pass.

    Args:
        content: [3, H, W], RGB in [0, 1], at least 5 pixels per side.
        network: as :func:`imgops.models.style.load_transform_net` gives it.

    Returns:
        [3, H, W], RGB in [0, 1], with the content's dtype and device.

    Raises:
        ValueError: the content is no RGB picture or is too small.

    >>> stylize_fast(torch.rand(3, 30, 41), TransformNet(widths=(4, 6, 8), blocks=1)).shape
    torch.Size([3, 30, 41])
    """
    if content.ndim != 3:
        raise ValueError(f"stylize_fast: content must be [3, H, W]; got {tuple(content.shape)}")
    # Winograd's convolution rounds pixels differently, of which instance normalization makes a pattern where there is
    # nothing else; the library's rounds all alike
    flat = bool((content == content[:, :1, :1]).all())
    with use_impl("reference") if flat else contextlib.nullcontext():
        output: Tensor = network(content[None].to(next(network.parameters())))
    return output[0].clamp(0, 1).to(content)
