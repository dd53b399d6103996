"""VGG-16 and VGG-19 (Simonyan and Zisserman 2015), and smaller networks of their shape."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from ...nn._checks import check_choice, check_size
from ...nn.joined import join_neighbors
from ...ops.conv2d import PADDING_MODES, PaddingMode
from ._layers import Colors, Pool

#: convolutions in each block, by the number in the network's name
DEPTHS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
#: channels within the classifier, and positions along each axis that it is given
_HIDDEN, _POSITIONS = 4096, 7


class VGG(nn.Sequential):
    """Blocks of 3 x 3 convolutions with ReLU, and a pool by 2 after each block.

    Its layers are ``input``, which prepares the colors, and conv1_1, relu1_1, conv1_2, ..., pool1, conv2_1, ...,
    pool5; ask for some with :class:`~imgops.nn.Features`. Called itself it returns the output of the last.

    Args:
        depth: 16, 19, or the number of convolutions in each block. Default 19.
        widths: channels of each block. Default (64, 128, 256, 512, 512).
        pooling: "max", "average" or "l2" (the root of the mean square). Default "max".
        padding_mode: "zeros", "reflect", "replicate" or "circular", at the edges of the convolutions. Default "zeros".
        preprocessing: what the weights expect of RGB in [0, 1]: "imagenet", "caffe", "symmetric", "lite" or "none".
            Default "imagenet".
        ceil_mode: whether pools keep the last row and column of an odd size. Default False.
        classes: of a classifier, which is then the last layer, ``classifier``, and gives logits [N, classes]; 0: none.
            Default 0.

    Shapes: x [N, 3, H, W], RGB in [0, 1], at least 2 pixels per side for each pool -> [N, widths[-1], H / 32, W / 32].

    Raises:
        TypeError, ValueError: an unknown depth, pooling, padding mode or preprocessing, or not as many
            widths as blocks.

    >>> vgg = VGG(16)
    >>> Features(vgg, ["relu2_2"])(torch.rand(1, 3, 32, 32))["relu2_2"].shape
    torch.Size([1, 128, 16, 16])
    """

    def __init__(
        self,
        depth: int | Sequence[int] = 19,
        *,
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        pooling: str = "max",
        padding_mode: PaddingMode = "zeros",
        preprocessing: str = "imagenet",
        ceil_mode: bool = False,
        classes: int = 0,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.blocks = blocks_of(name, depth)
        self.widths = tuple(check_size(name, "widths", n) for n in widths)
        if not self.blocks or len(self.blocks) != len(self.widths):
            raise ValueError(f"{name}: widths must have one value for each of {len(self.blocks)} blocks; got {widths}")
        check_choice(name, "padding_mode", padding_mode, PADDING_MODES)
        self.input = Colors(preprocessing)
        channels = 3
        for block, (convolutions, width) in enumerate(zip(self.blocks, self.widths, strict=True), 1):
            for i in range(1, convolutions + 1):
                conv = nn.Conv2d(channels, width, 3, padding=1, padding_mode=padding_mode)
                self.add_module(f"conv{block}_{i}", conv)
                self.add_module(f"relu{block}_{i}", nn.ReLU())
                channels = width
            self.add_module(f"pool{block}", Pool(pooling, ceil_mode=ceil_mode))
        if check_size(name, "classes", classes, 0):
            self.classifier = _classifier(channels, classes)
        join_neighbors(self)


def _classifier(channels: int, classes: int) -> nn.Sequential:
    """Three linear layers over means of 7 x 7 parts of the picture; without dropout, which is for training alone."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(pool=nn.AdaptiveAvgPool2d(_POSITIONS), flat=nn.Flatten())
    layers |= {"fc6": nn.Linear(channels * _POSITIONS**2, _HIDDEN), "relu6": nn.ReLU()}
    layers |= {"fc7": nn.Linear(_HIDDEN, _HIDDEN), "relu7": nn.ReLU(), "fc8": nn.Linear(_HIDDEN, classes)}
    return nn.Sequential(layers)


def blocks_of(owner: str, depth: int | Sequence[int]) -> tuple[int, ...]:
    """Convolutions in each block of a VGG of this depth; raise TypeError or ValueError for another depth."""
    if isinstance(depth, Sequence):
        return tuple(check_size(owner, "depth", n) for n in depth)
    depth = check_size(owner, "depth", depth)
    if depth not in DEPTHS:
        raise ValueError(f"{owner}: depth must be 16, 19 or the convolutions of each block; got {depth}")
    return DEPTHS[depth]
