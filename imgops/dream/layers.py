"""The layers of a network that can be dreamt with, and the default ones."""

from __future__ import annotations

from torch import nn

from ..models.encoders.efficientnet_lite import EfficientNetLite
from ..models.encoders.googlenet import GoogLeNet
from ..models.encoders.inception_v3 import InceptionV3
from ..models.encoders.probing import Layer, describe_layers
from ..models.encoders.vgg import VGG
from .objectives import Objective

__all__ = ["Layer", "default_objectives", "describe_layers"]


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
