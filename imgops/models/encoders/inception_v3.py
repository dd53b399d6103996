"""Inception v3 (Szegedy et al. 2016), without its auxiliary classifier."""

from __future__ import annotations

from torch import nn

from ...nn._checks import check_choice, check_size
from ...ops.conv2d import PADDING_MODES, PaddingMode
from ._layers import Branches, Classifier, Colors, ConvNorm, Pool


class InceptionV3(nn.Sequential):
    """The network behind the Fréchet inception distance (FID); DeepDream can use it too.

    Its layers are ``input``, Conv2d_1a_3x3, Conv2d_2a_3x3, Conv2d_2b_3x3, pool1, Conv2d_3b_1x1, Conv2d_4a_3x3, pool2,
    Mixed_5b to Mixed_5d, Mixed_6a to Mixed_6e, Mixed_7a to Mixed_7c; those within a block are named like
    Mixed_5b.branch1x1. Called itself it returns the output of the last.

    Args:
        pooling: of pool1 and pool2: "max", "average" or "l2" (the root of the mean square). Default "max".
        padding_mode: "zeros", "reflect", "replicate" or "circular", at the edges of the convolutions; averages within
            the blocks count what is beyond the edge with "zeros" alone. Default "zeros".
        preprocessing: what the weights expect of RGB in [0, 1]: "imagenet", "caffe", "symmetric", "lite" or "none".
            Default "symmetric", which both torchvision's weights and those of the FID have learned.
        fid: pool within the blocks as the network of the FID does: averages leave out what is beyond the edge, and
            Mixed_7c takes the maximum. Default False.
        classes: of a classifier, which is then the last layer, ``classifier``, and gives logits [N, classes]; 0: none.
            Default 0.

    Shapes: x [N, 3, H, W], RGB in [0, 1], at least 75 pixels per side -> [N, 2048, about H / 32, W / 32].

    Raises:
        ValueError: an unknown pooling, padding mode or preprocessing.

    >>> Features(InceptionV3().eval(), ["Mixed_5d"])(torch.rand(1, 3, 96, 96))["Mixed_5d"].shape
    torch.Size([1, 288, 9, 9])
    """

    def __init__(
        self,
        *,
        pooling: str = "max",
        padding_mode: PaddingMode = "zeros",
        preprocessing: str = "symmetric",
        fid: bool = False,
        classes: int = 0,
    ) -> None:
        super().__init__()
        mode = check_choice(type(self).__name__, "padding_mode", padding_mode, PADDING_MODES)
        self.input = Colors(preprocessing)
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, kernel_size=3, stride=2)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, kernel_size=3, padding=1, padding_mode=mode)
        self.pool1 = Pool(pooling, 3, 2)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, kernel_size=3)
        self.pool2 = Pool(pooling, 3, 2)
        # an average that counts zeros beyond the edge would draw a frame into dreams
        inside = fid or mode != "zeros"
        self.Mixed_5b = _A(192, 32, mode, inside)
        self.Mixed_5c = _A(256, 64, mode, inside)
        self.Mixed_5d = _A(288, 64, mode, inside)
        self.Mixed_6a = _B(mode)
        self.Mixed_6b = _C(128, mode, inside)
        self.Mixed_6c = _C(160, mode, inside)
        self.Mixed_6d = _C(160, mode, inside)
        self.Mixed_6e = _C(192, mode, inside)
        self.Mixed_7a = _D(mode)
        self.Mixed_7b = _E(1280, mode, inside)
        self.Mixed_7c = _E(2048, mode, inside, "max" if fid else "average")
        if check_size(type(self).__name__, "classes", classes, 0):
            self.classifier = Classifier(2048, classes)


def _branch(channels: int, mode: str, *steps: tuple[int, tuple[int, int], int]) -> nn.Sequential:
    """Convolutions (width, kernel, stride); one of stride 1 keeps the size, one of stride 2 is not padded."""
    layers = []
    for width, (kh, kw), stride in steps:
        padding = (kh // 2, kw // 2) if stride == 1 else (0, 0)
        convolution = {"kernel_size": (kh, kw), "stride": stride, "padding": padding, "padding_mode": mode}
        layers.append(ConvNorm(channels, width, **convolution))
        channels = width
    return nn.Sequential(*layers)


def _pooled(channels: int, width: int, inside: bool, kind: str = "average") -> nn.Sequential:
    pool = Pool(kind, 3, 1, 1, count_include_pad=not inside)
    return nn.Sequential(pool, ConvNorm(channels, width, kernel_size=1))


_ONE, _THREE, _FIVE, _ROW, _COLUMN = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)


def _A(channels: int, pooled: int, mode: str, inside: bool) -> nn.Module:
    return Branches(
        branch1x1=_branch(channels, mode, (64, _ONE, 1)),
        branch5x5=_branch(channels, mode, (48, _ONE, 1), (64, _FIVE, 1)),
        branch3x3dbl=_branch(channels, mode, (64, _ONE, 1), (96, _THREE, 1), (96, _THREE, 1)),
        branch_pool=_pooled(channels, pooled, inside),
    )


def _B(mode: str) -> nn.Module:
    return Branches(
        branch3x3=_branch(288, mode, (384, _THREE, 2)),
        branch3x3dbl=_branch(288, mode, (64, _ONE, 1), (96, _THREE, 1), (96, _THREE, 2)),
        branch_pool=Pool("max", 3, 2),
    )


def _C(width: int, mode: str, inside: bool) -> nn.Module:
    return Branches(
        branch1x1=_branch(768, mode, (192, _ONE, 1)),
        branch7x7=_branch(768, mode, (width, _ONE, 1), (width, _ROW, 1), (192, _COLUMN, 1)),
        branch7x7dbl=_branch(
            768, mode, (width, _ONE, 1), (width, _COLUMN, 1), (width, _ROW, 1), (width, _COLUMN, 1), (192, _ROW, 1)
        ),
        branch_pool=_pooled(768, 192, inside),
    )


def _D(mode: str) -> nn.Module:
    return Branches(
        branch3x3=_branch(768, mode, (192, _ONE, 1), (320, _THREE, 2)),
        branch7x7x3=_branch(768, mode, (192, _ONE, 1), (192, _ROW, 1), (192, _COLUMN, 1), (192, _THREE, 2)),
        branch_pool=Pool("max", 3, 2),
    )


def _E(channels: int, mode: str, inside: bool, pooling: str = "average") -> nn.Module:
    def split() -> nn.Module:
        return Branches(a=_branch(384, mode, (384, (1, 3), 1))[0], b=_branch(384, mode, (384, (3, 1), 1))[0])

    return Branches(
        branch1x1=_branch(channels, mode, (320, _ONE, 1)),
        branch3x3=nn.Sequential(*_branch(channels, mode, (384, _ONE, 1)), split()),
        branch3x3dbl=nn.Sequential(*_branch(channels, mode, (448, _ONE, 1), (384, _THREE, 1)), split()),
        branch_pool=_pooled(channels, 192, inside, pooling),
    )
