"""A network as it is during a dream, and pictures as it takes them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..models.encoders.probing import evaluating, like_network

__all__ = ["evaluating", "like_network", "working_picture"]


def working_picture(picture: Tensor, network: nn.Module) -> Tensor:
    """A picture to work on: on the network's device, in float64 if the network is, otherwise in float32."""
    parameter = next((p for p in network.parameters() if p.is_floating_point()), picture)
    dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    return picture.detach().to(parameter.device, dtype)
