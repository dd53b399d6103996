"""From an encoder's features back to a picture (Huang and Belongie 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..nn._checks import check_size
from .vgg import DEPTHS

#: pixels in each direction that a feature at relu4_1 stands for
STRIDE = 8


class AdaINDecoder(nn.Sequential):
    """The mirror of a VGG from its layer relu4_1 to the picture.

    Each convolution has the name of the encoder's that it answers, with the channels the other way round and
    reflection padding: conv4_1, relu4_1, up3, conv3_4, relu3_4, ..., up1, conv1_2, relu1_2, conv1_1. Where the encoder
    pools, up3, up2 and up1 repeat each pixel.

    Args:
        depth: of the encoder: 16, 19, or the convolutions of each block, of which the first three count. Default 19.
        widths: channels of the encoder's blocks, of which the first four count. Default (64, 128, 256, 512).

    Shapes: x [N, widths[3], H, W], at least 2 x 2, and size, (height, width) of the picture, at most (8 H, 8 W), to
    which the output is cropped; None leaves it whole -> [N, 3, *size], RGB about in [0, 1].

    Raises:
        TypeError, ValueError: an unknown depth, or fewer than three blocks or four widths of at least 1; in the
            forward, features of other channels, too few of them, or a size that is too large.

    >>> AdaINDecoder((1, 1, 1), widths=(4, 6, 8, 10))(torch.randn(1, 10, 3, 4), (21, 30)).shape
    torch.Size([1, 3, 21, 30])
    """

    def __init__(self, depth: int | Sequence[int] = 19, *, widths: Sequence[int] = (64, 128, 256, 512)) -> None:
        super().__init__()
        name = type(self).__name__
        if isinstance(depth, int):
            if depth not in DEPTHS:
                raise ValueError(f"{name}: depth must be 16, 19 or the convolutions of each block; got {depth}")
            depth = DEPTHS[depth]
        self.blocks = tuple(check_size(name, "depth", n) for n in depth[:3])
        self.widths = tuple(check_size(name, "widths", n) for n in widths[:4])
        if len(self.blocks) < 3 or len(self.widths) < 4:
            raise ValueError(
                f"{name}: three blocks and four widths at least are needed; got depth {depth} and widths {widths}"
            )
        self._add("4_1", self.widths[3], self.widths[2])
        for block in (3, 2, 1):
            self.add_module(f"up{block}", nn.Upsample(scale_factor=2, mode="nearest"))
            width = self.widths[block - 1]
            for i in range(self.blocks[block - 1], 0, -1):
                self._add(f"{block}_{i}", width, width if i > 1 else (3, *self.widths)[block - 1])
        # the picture itself is not cut off at 0
        del self.relu1_1

    def _add(self, name: str, inputs: int, outputs: int) -> None:
        self.add_module(f"conv{name}", nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect"))
        self.add_module(f"relu{name}", nn.ReLU())

    @property
    def halo(self) -> int:
        """Features around a rectangle of them that the pixels of the rectangle depend on."""
        reach = 0
        for layer in reversed(list(self.children())):
            if isinstance(layer, nn.Conv2d):
                reach += 1
            elif isinstance(layer, nn.Upsample):
                reach = -(-reach // 2)
        return reach

    def forward(self, x: Tensor, size: Sequence[int] | None = None) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.widths[3] or min(x.shape[2:]) < 2:
            raise ValueError(
                f"AdaINDecoder: x must be [N, {self.widths[3]}, H, W] of at least 2 x 2; got {tuple(x.shape)}"
            )
        h, w = size or (STRIDE * x.shape[2], STRIDE * x.shape[3])
        if h > STRIDE * x.shape[2] or w > STRIDE * x.shape[3]:
            raise ValueError(f"AdaINDecoder: size must be at most 8 x {tuple(x.shape[2:])}; got {(h, w)}")
        y: Tensor = super().forward(x)
        return y[..., :h, :w]
