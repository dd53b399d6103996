"""The discriminator of DCGAN."""

from __future__ import annotations

from torch import Tensor, nn

from ..network import DiscriminatorNetwork
from ._layers import BatchNorm2d, Conv2d, Embedding, check_kernel, sizes_of


class Discriminator(DiscriminatorNetwork):
    """DCGAN's discriminator (Radford et al. 2015): strided convolutions with batch norm and leaky ReLU.

    Of 64 px its keys are those of PyTorch's example (``main.0.weight``, ...). With labels the logit is moved by the dot
    product of an embedded label and the last layer's mean (projection, Miyato & Koyama 2018).

    Args:
        c_dim, img_resolution, img_channels, channels, channel_max, kernel_size: as of
            :class:`imgops.models.dcgan.Generator`.
        batch_norm: normalize all layers but the first. Default True.

    ``forward(img, c=None)``: img [N, img_channels, height, width], c [N, c_dim] -> logits [N, 1].

    Raises:
        TypeError, ValueError: as of the generator.
    """

    def __init__(
        self,
        c_dim: int = 0,
        img_resolution: int | tuple[int, int] = 64,
        img_channels: int = 3,
        *,
        channels: int = 64,
        channel_max: int = 512,
        kernel_size: int = 4,
        batch_norm: bool = True,
    ) -> None:
        super().__init__(c_dim, img_resolution, img_channels)
        owner = type(self).__name__
        start, widths = sizes_of(owner, img_resolution, channels, channel_max)
        pad = 1 if check_kernel(owner, kernel_size) == 4 else 2
        layers: list[nn.Module] = []
        for inputs, outputs in zip([self.img_channels, *widths[:0:-1]], widths[::-1], strict=True):
            layers.append(Conv2d(inputs, outputs, kernel_size, 2, pad, bias=not batch_norm))
            if batch_norm and len(layers) > 1:
                layers.append(BatchNorm2d(outputs))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
        self.main = nn.Sequential(*layers, Conv2d(widths[0], 1, start, bias=False))
        self.embed = Embedding(self.c_dim, widths[0], bias=False) if self.c_dim else None

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        self._check_images(img, c)
        x = img.to(next(self.main.parameters()).dtype)
        *layers, last = self.main
        for layer in layers:
            x = layer(x)
        logits = last(x).flatten(1)
        if self.embed is None or c is None:
            return logits  # type: ignore[no-any-return]
        return logits + (self.embed(c.to(x.dtype)) * x.mean([2, 3])).sum(1, keepdim=True) * x.shape[1] ** -0.5  # type: ignore[no-any-return]
