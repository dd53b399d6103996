"""Pixel blitting and geometric transforms: one affine map per image, resampled at twice the resolution.

Karras et al. 2020 (limited data), appendix B. Images are up-sampled by 2 with an orthogonal wavelet, looked up
bilinearly and down-sampled with the same wavelet, so that what is not moved comes back as it was.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ...ops.grid_sample import grid_sample
from ...ops.upfirdn2d import setup_filter, upfirdn2d
from .draws import Draws

#: the low-pass filter of the symlet with 6 vanishing moments (Daubechies 1992), which sums to sqrt(2)
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
#: pixels on either side of a position that the filter reads
REACH = len(SYM6) // 4
#: the shortest side of an image that reflects to a whole period in one step
MIN_SIDE = 6


def pair(first: float, second: float, like: Tensor) -> Tensor:
    """[2], two numbers made on the device of a tensor, which would wait for a copy from the host."""
    return torch.linspace(first, second, 2, dtype=like.dtype, device=like.device)


def rotations(angles: Tensor) -> Tensor:
    """Matrices [..., 2, 2] that rotate (x, y) by angles [...]."""
    c, s = angles.cos(), angles.sin()
    return torch.stack([c, -s, s, c], -1).unflatten(-1, (2, 2))


def _product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` of small matrices, in full precision also where a GPU may multiply in TF32: places would be off."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)


def inverse_maps(draws: Draws, height: int, width: int) -> Tensor:
    """[N, 2, 3]: where each pixel of the output comes from, both in pixels (x, y) from the image's center.

    An image is flipped, turned, shifted by whole pixels, scaled, turned, stretched, turned and shifted, in this order.
    """
    size = pair(width, height, draws.scale)
    angles = torch.cat([draws.rotate90 * (math.pi / 2), draws.rotate], 1)
    turns = rotations(angles)
    shrink = torch.exp2(-torch.cat([draws.scale + draws.aniso, draws.scale - draws.aniso], 1))
    flip = torch.cat([1 - 2 * draws.xflip, torch.ones_like(draws.xflip)], 1)
    blit = flip[:, :, None] * turns[:, 0]
    matrix = _product(_product(blit, turns[:, 1]), shrink[:, :, None] * turns[:, 2])
    shift, fraction = (draws.xint * size).round(), draws.xfrac * size
    offset = _product(matrix, fraction[:, :, None]) + _product(blit, shift[:, :, None])
    return torch.cat([matrix, -offset], 2)


class Resampler(nn.Module):
    """Images [N, C, H, W] under affine maps [N, 2, 3] of :func:`inverse_maps`, reflected without end at their edges."""

    taps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("taps", setup_filter(SYM6), persistent=False)

    def forward(self, images: Tensor, maps: Tensor) -> Tensor:
        height, width = images.shape[2:]
        # a zero more in front and one less behind puts the center of even sides in the middle
        x, y = 1 - width % 2, 1 - height % 2
        # three channels side by side are slow to filter
        whole = upfirdn2d(_period(images.contiguous()), self.taps, up=2, padding=[x, -x, y, -y], gain=4.0)
        moved = grid_sample(whole, _grid(maps, height, width))
        return upfirdn2d(moved, self.taps, down=2, flip_filter=True)


def _period(x: Tensor) -> Tensor:
    """Images amid a period of their reflections, and what the filter reads beyond: [N, C, 2 H + 4, 2 W + 4]."""
    for dim in (2, 3):
        side = x.shape[dim]
        before = (side - 1) // 2 + REACH
        after = side + 4 - before
        left = x.narrow(dim, 1, before).flip(dim)
        right = x.narrow(dim, side - 1 - after, after).flip(dim)
        x = torch.cat([left, x, right], dim)
    return x


def _grid(maps: Tensor, height: int, width: int) -> Tensor:
    """The grid [N, 2 H + 10, 2 W + 10, 2] of the up-sampled period that the pixels of the output come from.

    An up-sampled image repeats itself after the period of its reflections, so places are taken modulo that period.
    """
    # places along x and y of the up-sampled output, in pixels from its center
    x, y = (
        torch.arange(1 - 2 * REACH, 2 * side + 2 * REACH - 1, dtype=maps.dtype, device=maps.device) / 2
        + (0.5 - side / 2)
        for side in (width, height)
    )
    periods = pair(4 * (width - 1), 4 * (height - 1), maps)[:, None]
    maps = 2 / periods * maps
    places = (maps[:, :, 1:2] * y + maps[:, :, 2:])[..., None] + (maps[:, :, :1] * x)[:, :, None]
    # in place, as fresh memory of this size costs more than the arithmetic
    places -= places.round()
    # the first sample of the period is there once more as the last
    return places.mul_((2 * periods / (periods + 1))[..., None]).permute(0, 2, 3, 1)
