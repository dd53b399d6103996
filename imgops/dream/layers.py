"""The layers of a network that can be dreamt with, and the default ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..models.encoders.efficientnet_lite import EfficientNetLite
from ..models.encoders.googlenet import GoogLeNet
from ..models.encoders.inception_v3 import InceptionV3
from ..models.encoders.vgg import VGG
from ._state import evaluating, like_network
from .objectives import Objective


class Layer(NamedTuple):
    """A layer: its name, the channels of its output, and the pixels of the picture from one position to the next."""

    name: str
    channels: int
    stride: int


def describe_layers(network: nn.Module, size: int = 224) -> list[Layer]:
    """The layers of a network that can be dreamt with: those whose output is [N, C, H, W], as they are first called.

    Args:
        network: any module that takes pictures [1, 3, H, W].
        size: side in pixels of the square picture that it is tried with. Default 224.

    Raises:
        ValueError: it cannot take such a picture.

    >>> describe_layers(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2)), 32)
    [Layer(name='0', channels=8, stride=1), Layer(name='1', channels=8, stride=2)]
    """
    found: dict[str, Layer] = {}

    def note(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.numel() > 0:
            found.setdefault(name, Layer(name, output.shape[1], max(1, round(size / output.shape[2]))))

    hooks = [
        module.register_forward_hook(lambda module, inputs, output, name=name: note(name, output))  # type: ignore[misc]
        for name, module in network.named_modules()
        if name
    ]
    try:
        with evaluating(network), torch.no_grad():
            network(like_network(torch.zeros(1, 3, size, size), network))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{type(network).__name__} cannot take a picture of {size} x {size} pixels: {error}") from None
    finally:
        for hook in hooks:
            hook.remove()
    return list(found.values())


def default_objectives(network: nn.Module) -> list[Objective]:
    """The default objectives of an encoder of this package: a layer at about two thirds of its depth.

    Returns:
        inception_4c of GoogLeNet, Mixed_6a of Inception v3, relu4_2 of a VGG (with less than 4 blocks, of its last),
        the last block but one of the fifth stage of an EfficientNet-Lite.

    Raises:
        ValueError: a network of another kind.

    >>> default_objectives(VGG(16))
    [Objective(layer='relu4_2', channel=None, weight=1.0)]
    """
    if isinstance(network, GoogLeNet):
        return [Objective("inception_4c")]
    if isinstance(network, InceptionV3):
        return [Objective("Mixed_6a")]
    if isinstance(network, EfficientNetLite):
        return [Objective(f"blocks_{sum(network.stages[:-2]) - 2}")]
    if isinstance(network, VGG):
        block = min(4, len(network.blocks))
        return [Objective(f"relu{block}_{min(2, network.blocks[block - 1])}")]
    raise ValueError(f"{type(network).__name__} has no layer to dream with by default; name one in an Objective")
