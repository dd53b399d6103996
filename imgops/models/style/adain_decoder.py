"""AdaIN's decoder, which turns an encoder's features back into a picture (Huang and Belongie 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...nn._checks import check_size, smaller_than
from ...nn.joined import join_neighbors
from ..encoders.vgg import blocks_of


class AdaINDecoder(nn.Sequential):
    """The mirror of a VGG from its layer relu4_1, or the first ReLU of another block, to the picture; or of another
    encoder from any layer.

    Each convolution has the name of the encoder's convolution that it mirrors, with input and output channels swapped
    and reflection padding: conv4_1, relu4_1, up3, conv3_4, relu3_4, ..., up1, conv1_2, relu1_2, conv1_1. Where the
    encoder pools, up3, up2 and up1 repeat each pixel.

    Args:
        depth: of the encoder: 16, 19, or the convolutions of each block. Default 19.
        widths: channels of the encoder's blocks up to the one that is started from: four of them for relu4_1, three
            for relu3_1. Default (64, 128, 256, 512).
        layer: of another encoder than a VGG, the layer that is started from: its channels are ``widths[-1]``, and its
            stride is 2 with two widths, 4 with three, and so on. Weight files hold its name. Default None.

    Shapes: x [N, widths[-1], H, W], at least 2 x 2, and size, (height, width) of the picture, at most (stride * H,
    stride * W), stride 8 for relu4_1, to which the output is cropped; None leaves it whole -> [N, 3, *size], RGB about
    in [0, 1].

    Raises:
        TypeError, ValueError: an unknown depth, fewer than two widths or fewer blocks before the last; in the forward,
            features of other channels, too few of them, or a size that is too large.

    >>> AdaINDecoder((1, 1, 1), widths=(4, 6, 8, 10))(torch.randn(1, 10, 3, 4), (21, 30)).shape
    torch.Size([1, 3, 21, 30])
    """

    layer_name: Tensor

    def __init__(
        self,
        depth: int | Sequence[int] = 19,
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        layer: str | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.widths = tuple(check_size(name, "widths", n) for n in widths)
        deepest = len(self.widths)
        self.blocks = blocks_of(name, depth)[: deepest - 1]
        if deepest < 2 or len(self.blocks) < deepest - 1:
            raise ValueError(
                f"{name}: two widths at least, and the convolutions of the blocks before the last, are needed; got "
                f"depth {depth} and widths {tuple(widths)}"
            )
        #: the encoder's layer whose features are decoded, and the spacing of its values in pixels of the picture
        self.layer, self.stride = layer or f"relu{deepest}_1", 2 ** (deepest - 1)
        if layer is not None:
            # a tensor, so that it is in files of every format
            self.register_buffer("layer_name", torch.tensor(list(layer.encode()), dtype=torch.uint8))
        self._add(f"{deepest}_1", self.widths[-1], self.widths[-2])
        for block in range(deepest - 1, 0, -1):
            self.add_module(f"up{block}", nn.Upsample(scale_factor=2, mode="nearest"))
            width = self.widths[block - 1]
            for i in range(self.blocks[block - 1], 0, -1):
                self._add(f"{block}_{i}", width, width if i > 1 else (3, *self.widths)[block - 1])
        # the last convolution gives the picture itself, which a ReLU would cut off at 0
        del self.relu1_1
        join_neighbors(self)

    def _add(self, name: str, inputs: int, outputs: int) -> None:
        self.add_module(f"conv{name}", nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect"))
        self.add_module(f"relu{name}", nn.ReLU())

    @property
    def halo(self) -> int:
        """How many features around a rectangle of features influence the pixels of the rectangle."""
        reach = 0
        for layer in reversed(list(self.children())):
            if isinstance(layer, nn.Conv2d):
                reach += 1
            elif isinstance(layer, nn.Upsample):
                reach = -(-reach // 2)
        return reach

    def forward(self, x: Tensor, size: Sequence[int] | None = None) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.widths[-1] or smaller_than(x, 2):
            raise ValueError(
                f"AdaINDecoder: x must be [N, {self.widths[-1]}, H, W] of at least 2 x 2; got {tuple(x.shape)}"
            )
        whole = (self.stride * x.shape[2], self.stride * x.shape[3])
        h, w = size or whole
        if h > whole[0] or w > whole[1]:
            raise ValueError(f"AdaINDecoder: size must be at most {whole}; got {(h, w)}")
        y: Tensor = super().forward(x)
        return y[..., :h, :w]
