"""A network as it is during a dream, and pictures as it takes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..models.encoders.efficientnet_lite import EfficientNetLite
from ..models.encoders.googlenet import GoogLeNet
from ..models.encoders.inception_v3 import InceptionV3
from ..models.encoders.vgg import VGG


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Within it the network is in evaluation mode, afterwards each of its modules in the mode that it was in."""
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def like_network(x: Tensor, network: nn.Module) -> Tensor:
    """Pictures [N, 3, H, W] on the device, in the dtype and in the layout that the network computes fastest in."""
    parameter = next((p for p in network.parameters() if p.is_floating_point()), None)
    if parameter is not None:
        x = x.to(parameter)
    # other networks may take a view of what they compute, which this layout does not allow
    if isinstance(network, (VGG, EfficientNetLite, GoogLeNet, InceptionV3)):
        x = x.contiguous(memory_format=torch.channels_last)
    return x


def working_picture(picture: Tensor, network: nn.Module) -> Tensor:
    """A picture to work on: on the network's device, in float64 if the network is, otherwise in float32."""
    parameter = next((p for p in network.parameters() if p.is_floating_point()), picture)
    dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    return picture.detach().to(parameter.device, dtype)
