"""EfficientNet-Lite 0 to 4: EfficientNet (Tan and Le 2019) with ReLU6 and no squeeze and excitation."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

from torch import nn

from ...nn._checks import check_choice, check_size
from ...nn.convolving import PaddedConv2d
from ...nn.joined import join_neighbors
from ...ops.conv2d import PADDING_MODES, PaddingMode
from ._layers import Classifier, Colors, Residual


class _Scale(NamedTuple):
    """How a variant differs from the first: factors of its channels and blocks, and the side of its training pictures
    in pixels, which decides the padding."""

    width: float
    depth: float
    side: int


class _Stage(NamedTuple):
    """Blocks of one kernel size and width; the first has the stride, and ``expansion`` times the channels within."""

    blocks: int
    kernel_size: int
    stride: int
    expansion: int
    channels: int


SCALES = (
    _Scale(1.0, 1.0, 224),
    _Scale(1.0, 1.1, 240),
    _Scale(1.1, 1.2, 260),
    _Scale(1.2, 1.4, 280),
    _Scale(1.4, 1.8, 300),
)
_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)
#: channels of the first convolution and of the last, in every variant
_STEM, _HEAD = 32, 1280
#: channels are multiples of this
_DIVISOR = 8


class EfficientNetLite(nn.Sequential):
    """Inverted residual blocks of depthwise convolutions.

    Its layers are ``input``, which prepares the colors, ``conv_stem``, ``blocks_0``, ``blocks_1``, ... and
    ``conv_head``; those within a block are named like blocks_3.depthwise. Called itself it returns the output of the
    last.

    Args:
        variant: 0 to 4, from the smallest to the largest. Default 0.
        padding_mode: "zeros", "reflect", "replicate" or "circular", at the edges of the convolutions. As much is padded
            as in the training, where a side of even size got more behind than before. Default "zeros".
        preprocessing: what the weights expect of RGB in [0, 1]: "lite" (from 127/255, in units of 128/255), "imagenet",
            "caffe", "symmetric" or "none". Default "lite".
        classes: of a classifier, which is then the last layer, ``classifier``, and gives logits [N, classes]; 0: none.
            Default 0.

    Shapes: x [N, 3, H, W], RGB in [0, 1], at least 32 pixels per side -> [N, 1280, about H / 32, W / 32].

    Raises:
        TypeError, ValueError: an unknown variant, padding mode or preprocessing.

    >>> Features(EfficientNetLite().eval(), ["blocks_4"])(torch.rand(1, 3, 64, 64))["blocks_4"].shape
    torch.Size([1, 40, 8, 8])
    """

    def __init__(
        self,
        variant: int = 0,
        *,
        padding_mode: PaddingMode = "zeros",
        preprocessing: str = "lite",
        classes: int = 0,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.variant = check_size(name, "variant", variant, 0, len(SCALES) - 1)
        check_choice(name, "padding_mode", padding_mode, PADDING_MODES)
        scale = SCALES[self.variant]
        self.input = Colors(preprocessing)
        self.conv_stem = _conv_norm(3, _STEM, 3, 2, padding_mode, scale.side)
        channels, side, number = _STEM, -(-scale.side // 2), 0
        #: the number of blocks of each stage
        self.stages = tuple(blocks_of(self.variant))
        for stage, blocks in zip(_STAGES, self.stages, strict=True):
            width = channels_of(stage.channels, scale.width)
            for i in range(blocks):
                stride = stage.stride if i == 0 else 1
                block = _block(channels, width, stage.kernel_size, stride, stage.expansion, padding_mode, side)
                self.add_module(f"blocks_{number}", block)
                channels, side, number = width, -(-side // stride), number + 1
        self.conv_head = _conv_norm(channels, _HEAD, 1, 1, padding_mode, side)
        if check_size(name, "classes", classes, 0):
            self.classifier = Classifier(_HEAD, classes)


def blocks_of(variant: int) -> list[int]:
    """Blocks in each stage of a variant; the first stage and the last are as deep in all of them."""
    first, *stages, last = (stage.blocks for stage in _STAGES)
    return [first, *(math.ceil(SCALES[variant].depth * blocks) for blocks in stages), last]


def channels_of(channels: int, width: float) -> int:
    """Channels times a factor, rounded to a multiple of 8, but by a tenth at most downwards."""
    scaled = channels * width
    rounded = max(_DIVISOR, int(scaled + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return rounded + _DIVISOR if rounded < 0.9 * scaled else rounded


def _block(
    channels: int, width: int, kernel_size: int, stride: int, expansion: int, mode: PaddingMode, side: int
) -> nn.Sequential:
    inner = channels * expansion
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if expansion != 1:
        layers["expand"] = _conv_norm(channels, inner, 1, 1, mode, side)
    layers["depthwise"] = _conv_norm(inner, inner, kernel_size, stride, mode, side, groups=inner)
    layers["project"] = _conv_norm(inner, width, 1, 1, mode, side, act=False)
    return Residual(layers) if stride == 1 and channels == width else nn.Sequential(layers)


def _conv_norm(
    channels: int,
    width: int,
    kernel_size: int,
    stride: int,
    mode: PaddingMode,
    side: int,
    groups: int = 1,
    act: bool = True,
) -> nn.Sequential:
    """Convolution, batch normalization and ReLU6, in evaluation one pass; its padding is TensorFlow's "same" for
    pictures of a side."""
    total = max((-(-side // stride) - 1) * stride + kernel_size - side, 0)
    pads = total // 2, total - total // 2
    conv = PaddedConv2d(channels, width, kernel_size, stride, pads, padding_mode=mode, groups=groups, bias=False)
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv, bn=nn.BatchNorm2d(width, eps=1e-3))
    if act:
        layers["act"] = nn.ReLU6()
    return join_neighbors(nn.Sequential(layers))
