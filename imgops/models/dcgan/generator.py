"""The generator of DCGAN."""

from __future__ import annotations

from torch import Tensor, nn

from ...nn._checks import check_size
from ..network import GeneratorNetwork
from ._layers import BatchNorm2d, ConvTranspose2d, Embedding, check_kernel, sizes_of, widened


class Generator(GeneratorNetwork):
    """DCGAN's generator (Radford et al. 2015): transposed convolutions with batch norm and ReLU, at the end tanh.

    Of 64 px its keys are those of PyTorch's example (``main.0.weight``, ...).

    Args:
        z_dim: size of the latent. Default 100.
        c_dim: size of a label, which is embedded and stands beside z; 0 takes none. Default 0.
        img_resolution: the side of the images, or (height, width), which halve together until the shorter is 4 to 7:
            28, 32, 64, 128, ... Default 64.
        img_channels: 3 for RGB; 1 and 4 work as well. Default 3.
        channels: of the last layer but the image; each one before has twice as many. Default 64.
        channel_max: but no more than this. Default 512.
        kernel_size: 4 (default) or 5.
        embed_dim: size of the embedded label. Default 50.

    ``forward(z, c=None)``: z [N, z_dim], c [N, c_dim] -> images [N, img_channels, height, width] in [-1, 1].

    Raises:
        TypeError, ValueError: a size that is no int in range, a resolution that does not halve so, another kernel; in
            the forward, inputs of the wrong shape.
    """

    def __init__(
        self,
        z_dim: int = 100,
        c_dim: int = 0,
        img_resolution: int | tuple[int, int] = 64,
        img_channels: int = 3,
        *,
        channels: int = 64,
        channel_max: int = 512,
        kernel_size: int = 4,
        embed_dim: int = 50,
    ) -> None:
        super().__init__(z_dim, c_dim, img_resolution, img_channels)
        owner = type(self).__name__
        start, widths = sizes_of(owner, img_resolution, channels, channel_max)
        check_kernel(owner, kernel_size)
        embed_dim = check_size(owner, "embed_dim", embed_dim) if self.c_dim else 0
        self.embed = Embedding(self.c_dim, embed_dim, bias=False) if self.c_dim else None
        layers: list[nn.Module] = [ConvTranspose2d(self.z_dim + embed_dim, widths[0], start, bias=False)]
        for inputs, outputs in zip(widths, [*widths[1:], self.img_channels], strict=True):
            # a kernel of 5 doubles the sides with one more pixel at the end
            pad, more = (1, 0) if kernel_size == 4 else (2, 1)
            up = ConvTranspose2d(inputs, outputs, kernel_size, 2, pad, more, bias=False)
            layers += [BatchNorm2d(inputs), nn.ReLU(True), up]
        self.main = nn.Sequential(*layers, nn.Tanh())

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        self._check_latents(z, c)
        z = widened(z.to(next(self.main.parameters()).dtype), c, self.embed)
        return self.main(z[:, :, None, None])  # type: ignore[no-any-return]
