"""The layers of a network that can be dreamt with, and the default ones."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..models.encoders.efficientnet_lite import EfficientNetLite
from ..models.encoders.googlenet import GoogLeNet
from ..models.encoders.inception_v3 import InceptionV3
from ..models.encoders.probing import Layer, describe_layers
from ..models.encoders.vgg import VGG
from .objectives import AnyObjective, ClassObjective, Objective

__all__ = ["Layer", "default_objectives", "describe_layers"]

#: the weight of the default layer beside a class
_BESIDE_CLASS = 0.5


def default_objectives(network: nn.Module, classes: Sequence[ClassObjective] = ()) -> list[AnyObjective]:
    """The default objectives of an encoder of this package: a layer at about two thirds of its depth.

    Args:
        classes: what is to be seen. Default none.

    Returns:
        inception_4c of GoogLeNet, Mixed_6a of Inception v3, relu4_2 of a VGG (with less than 4 blocks, of its last),
        the last block but one of the fifth stage of an EfficientNet-Lite. With classes these alone; of an
        EfficientNet-Lite the layer too, with a weight of 0.5: the logit of a class alone gives grain, the layer gives
        shapes.

    Raises:
        ValueError: a network of another kind.

    >>> default_objectives(VGG(16))
    [Objective(layer='relu4_2', channel=None, weight=1.0)]
    """
    if classes and not isinstance(network, EfficientNetLite):
        return list(classes)
    layer = _default_layer(network)
    return [*classes, Objective(layer, weight=_BESIDE_CLASS)] if classes else [Objective(layer)]


def _default_layer(network: nn.Module) -> str:
    if isinstance(network, GoogLeNet):
        return "inception_4c"
    if isinstance(network, InceptionV3):
        return "Mixed_6a"
    if isinstance(network, EfficientNetLite):
        return f"blocks_{sum(network.stages[:-2]) - 2}"
    if isinstance(network, VGG):
        block = min(4, len(network.blocks))
        return f"relu{block}_{min(2, network.blocks[block - 1])}"
    raise ValueError(f"{type(network).__name__} has no layer to dream with by default; name one in an Objective")
