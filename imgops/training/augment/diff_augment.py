"""Differentiable augmentation of constant strength: color, translation and cutout."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...ops._common import accumulation_dtype, without_autocast
from ...ops.displace import displace
from ._checks import check_images
from .color import ColorMap
from .corruption import cut_out
from .draws import uniform_draws
from .geometry import pair

_OWNER = "training.DiffAugment"
POLICIES = ("color", "translation", "cutout")
#: numbers drawn per image by a policy, uniform in [0, 1)
_NUMBERS = {"color": 3, "translation": 2, "cutout": 2}


class DiffAugment(nn.Module):
    """Color, translation and cutout of every image, real or generated, on its way to the discriminator.

    Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training". Color: brightness of +-0.5,
    saturation of 0 to 2 around each pixel's mean, contrast of 0.5 to 1.5 around the image's mean. Translation: by up to
    1/8 of the sides, zeros move in. Cutout: a rectangle of half of the sides, its center anywhere, becomes 0.

    Args:
        policy: names of "color", "translation" and "cutout", separated by commas, in the order in which they are
            applied. Default all three.

    ``forward(images, debug_percentile=None, uniforms=None)``: images [N, C, H, W] about in [-1, 1] in any floating
    dtype, C of 1, 3 or 4, any sides -> the same shape and dtype, computed in float32 at least. Of RGBA color leaves
    alpha as it is. ``uniforms`` [N, ``draws``] in [0, 1) are what is drawn, all of them ``debug_percentile`` where that
    is given; by default they are from torch's generator on the images' device. Nothing waits for that device.
    Differentiable to any order with respect to the images.

    Raises:
        TypeError: a policy that is no text, images or uniforms that are no tensor of floating dtype.
        ValueError: an unknown name, one named twice or none; images or uniforms of other shapes, a percentile beyond
            [0, 1], a percentile and uniforms.

    >>> import torch
    >>> DiffAugment(policy="color,cutout")(torch.zeros(4, 3, 64, 64)).shape
    torch.Size([4, 3, 64, 64])
    """

    def __init__(self, policy: str = "color,translation,cutout") -> None:
        super().__init__()
        if not isinstance(policy, str):
            raise TypeError(f"imgops.{_OWNER}: policy must be a text; got {type(policy).__name__}")
        names = [name.strip() for name in policy.split(",")]
        if len(set(names)) < len(names) or not set(names) <= set(POLICIES):
            raise ValueError(
                f"imgops.{_OWNER}: policy names some of {', '.join(POLICIES)}, each once, separated by commas; "
                f"got {policy!r}"
            )
        self.policy = tuple(names)
        self.colors = ColorMap()

    @property
    def draws(self) -> int:
        """Uniform numbers that are drawn per image."""
        return sum(_NUMBERS[name] for name in self.policy)

    def forward(self, images: Tensor, debug_percentile: float | None = None, uniforms: Tensor | None = None) -> Tensor:
        check_images(_OWNER, images)
        x = images.to(accumulation_dtype(images.dtype))
        drawn = uniform_draws(_OWNER, x, self.draws, debug_percentile, uniforms)
        numbers = [_NUMBERS[name] for name in self.policy]
        with without_autocast(images):
            for name, own in zip(self.policy, drawn.split(numbers, 1), strict=True):
                x = getattr(self, f"_{name}")(x, own)
        return x.to(images.dtype)

    def _color(self, x: Tensor, drawn: Tensor) -> Tensor:
        brightness, saturation, contrast = drawn.split(1, 1)
        brightness, saturation, contrast = brightness - 0.5, 2 * saturation, contrast + 0.5
        # contrast keeps the mean, which brightness shifts and saturation keeps
        mean = x[:, :3].mean((1, 2, 3))[:, None]
        none = torch.zeros_like(brightness)
        return self.colors(x, contrast, saturation * contrast, none, (1 - contrast) * mean + brightness)

    def _translation(self, x: Tensor, drawn: Tensor) -> Tensor:
        height, width = x.shape[2:]
        most = pair(int(width / 8 + 0.5), int(height / 8 + 0.5), drawn)
        pixels = (drawn * (2 * most + 1)).floor() - most
        return displace(x, pixels[:, :, None, None].expand(-1, -1, height, width), padding_mode="zeros")

    def _cutout(self, x: Tensor, drawn: Tensor) -> Tensor:
        sides = pair(x.shape[3], x.shape[2], drawn)
        size = (sides / 2 + 0.5).floor()
        first = (drawn * (sides + 1 - size % 2)).floor() - (size / 2).floor()
        return cut_out(x, (first + size / 2) / sides, (size / sides).expand_as(drawn))

    def extra_repr(self) -> str:
        return f"policy={','.join(self.policy)!r}"
