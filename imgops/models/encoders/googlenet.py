"""GoogLeNet with batch normalization (Szegedy et al. 2015), without its auxiliary classifiers."""

from __future__ import annotations

from torch import nn

from ...nn._checks import check_choice, check_size
from ...ops.conv2d import PADDING_MODES, PaddingMode
from ._layers import Branches, Classifier, Colors, ConvNorm, Pool

#: channels of each block: its input; 1x1; the reduction before 3x3, 3x3; the reduction before 5x5, 5x5; after the pool
_BLOCKS = {
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}


class GoogLeNet(nn.Sequential):
    """The network of DeepDream. Its blocks of parallel convolutions are inception_3a to inception_5b.

    Its layers are ``input``, conv1, pool1, conv2, conv3, pool2, inception_3a, inception_3b, pool3, inception_4a to 4e,
    pool4, inception_5a, inception_5b; those within a block are named like inception_4c.branch2. Called itself it
    returns the output of the last.

    Args:
        pooling: of the pools between blocks: "max", "average" or "l2" (the root of the mean square). Default "max".
        padding_mode: "zeros", "reflect", "replicate" or "circular", at the edges of the convolutions. Default "zeros".
        preprocessing: what the weights expect of RGB in [0, 1]: "imagenet", "caffe", "symmetric", "lite" or "none".
            Default "symmetric", which torchvision's weights have learned.
        classes: of a classifier, which is then the last layer, ``classifier``, and gives logits [N, classes]; 0: none.
            Default 0.

    Shapes: x [N, 3, H, W], RGB in [0, 1], at least 16 pixels per side -> [N, 1024, about H / 32, W / 32].

    Raises:
        ValueError: an unknown pooling, padding mode or preprocessing.

    >>> Features(GoogLeNet().eval(), ["inception_4c"])(torch.rand(1, 3, 64, 64))["inception_4c"].shape
    torch.Size([1, 512, 4, 4])
    """

    def __init__(
        self,
        *,
        pooling: str = "max",
        padding_mode: PaddingMode = "zeros",
        preprocessing: str = "symmetric",
        classes: int = 0,
    ) -> None:
        super().__init__()
        mode = check_choice(type(self).__name__, "padding_mode", padding_mode, PADDING_MODES)
        self.input = Colors(preprocessing)
        self.conv1 = ConvNorm(3, 64, kernel_size=7, stride=2, padding=3, padding_mode=mode)
        self.pool1 = Pool(pooling, 3, 2, ceil_mode=True)
        self.conv2 = ConvNorm(64, 64, kernel_size=1)
        self.conv3 = ConvNorm(64, 192, kernel_size=3, padding=1, padding_mode=mode)
        self.pool2 = Pool(pooling, 3, 2, ceil_mode=True)
        for name, sizes in _BLOCKS.items():
            self.add_module(f"inception_{name}", Inception(*sizes, padding_mode=mode))
            if name == "3b":
                self.pool3 = Pool(pooling, 3, 2, ceil_mode=True)
            elif name == "4e":
                self.pool4 = Pool(pooling, 2, 2, ceil_mode=True)
        if check_size(type(self).__name__, "classes", classes, 0):
            self.classifier = Classifier(1024, classes)


class Inception(Branches):
    """Four branches side by side: 1x1; 3x3; another 3x3 (5x5 in the paper, 3x3 in the weights there are); a pool."""

    def __init__(
        self,
        channels: int,
        one: int,
        three_reduced: int,
        three: int,
        five_reduced: int,
        five: int,
        pooled: int,
        padding_mode: str,
    ) -> None:
        size3 = {"kernel_size": 3, "padding": 1, "padding_mode": padding_mode}
        super().__init__(
            branch1=ConvNorm(channels, one, kernel_size=1),
            branch2=nn.Sequential(
                ConvNorm(channels, three_reduced, kernel_size=1), ConvNorm(three_reduced, three, **size3)
            ),
            branch3=nn.Sequential(
                ConvNorm(channels, five_reduced, kernel_size=1), ConvNorm(five_reduced, five, **size3)
            ),
            branch4=nn.Sequential(Pool("max", 3, 1, 1, ceil_mode=True), ConvNorm(channels, pooled, kernel_size=1)),
        )
