"""What can be told of any network by a small picture: its layers, their channels and strides."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ...nn.convolving import picture_format
from ._layers import Colors
from .efficientnet_lite import EfficientNetLite
from .googlenet import GoogLeNet
from .inception_v3 import InceptionV3
from .vgg import VGG

#: what :func:`layers_by_stride` found
_LAYERS: WeakKeyDictionary[nn.Module, dict[int, str]] = WeakKeyDictionary()


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


def layers_by_stride(network: nn.Module) -> dict[int, str]:
    """{stride: the last layer with it}, from small to large, of the layers that :func:`describe_layers` finds: those
    that lie least deep within others, such as the stages of a network rather than what is in their blocks. Strides are
    rounded to powers of two, as convolutions without padding leave a few pixels out.

    >>> layers_by_stride(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)))
    {1: '1', 2: '2'}
    """
    if network not in _LAYERS:
        prepared = {name for name, module in network.named_modules() if isinstance(module, Colors)}
        layers = [layer for layer in describe_layers(network) if layer.name not in prepared]
        # of equal ones the last counts
        layers.sort(key=lambda layer: layer.name.count("."), reverse=True)
        found = {2 ** round(math.log2(layer.stride)): layer.name for layer in layers}
        _LAYERS[network] = dict(sorted(found.items()))
    return _LAYERS[network]


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
        x = x.contiguous(memory_format=picture_format(network, x.device))
    return x
