"""Bilinear sampling of images at given positions: ``y[n, c, i, j] = x[n, c](position[n, i, j])``."""

from __future__ import annotations

import torch
from torch import Tensor

#: what lies outside the image: nothing, the border's nearest pixel, or the image reflected about its edges
PADDING_MODES = ("zeros", "border", "reflection")


def grid_positions(grid: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """(x, y) in pixels, [N, H', W'] each, of a grid [N, H', W', 2] in which the image's edges are at -1 and 1."""
    return ((grid[..., 0] + 1) * width - 1) / 2, ((grid[..., 1] + 1) * height - 1) / 2


def displaced_positions(displacement: Tensor) -> tuple[Tensor, Tensor]:
    """(x, y) in pixels, [N, H, W] each, of every pixel moved by a displacement [N, 2, H, W]."""
    height, width = (
        torch.arange(n, dtype=displacement.dtype, device=displacement.device) for n in displacement.shape[2:]
    )
    return displacement[:, 0] + width, displacement[:, 1] + height[:, None]


def _mapped(u: Tensor, size: int, padding_mode: str) -> tuple[Tensor, Tensor]:
    """Positions along one axis, moved into the image, and whether each has a pixel to read."""
    if padding_mode == "zeros":
        inside = (u >= -1) & (u < size)
        return torch.where(inside, u, 0), inside
    if padding_mode == "reflection":
        distance = (u + 0.5).abs()
        flips = (distance / size).floor()
        rest = distance - flips * size
        u = torch.where(flips % 2 == 0, rest, size - rest) - 0.5
    # NaN fails the first comparison; a position on the border has no gradient
    u = torch.where(u > 0, torch.where(u < size - 1, u, size - 1), 0)
    return u, torch.ones_like(u, dtype=torch.bool)


def sample(x: Tensor, position_x: Tensor, position_y: Tensor, padding_mode: str) -> Tensor:
    """x [N, C, H, W] at positions in pixels, [N, H', W'] each -> [N, C, H', W']."""
    n, c, h, w = x.shape
    pixels = x.flatten(2)
    (u, inside_x), (v, inside_y) = _mapped(position_x, w, padding_mode), _mapped(position_y, h, padding_mode)
    left, top = u.detach().floor(), v.detach().floor()
    y = x.new_zeros([n, c, *u.shape[1:]])
    for column, weight_x in ((left, 1 - (u - left)), (left + 1, u - left)):
        for row, weight_y in ((top, 1 - (v - top)), (top + 1, v - top)):
            inside = inside_x & inside_y & (column >= 0) & (column < w) & (row >= 0) & (row < h)
            index = torch.where(inside, row.long() * w + column.long(), 0).flatten(1)
            tap = pixels.gather(2, index[:, None].expand(-1, c, -1)).reshape(y.shape)
            y = y + torch.where(inside[:, None], tap, 0) * (weight_x * weight_y)[:, None]
    return y


def grid_sample(x: Tensor, grid: Tensor, padding_mode: str) -> Tensor:
    """x [N, C, H, W] at a grid [N, H', W', 2] -> [N, C, H', W']."""
    return sample(x, *grid_positions(grid, *x.shape[2:]), padding_mode)


def displace(x: Tensor, displacement: Tensor, padding_mode: str) -> Tensor:
    """x [N, C, H, W] at every pixel moved by a displacement [N, 2, H, W] in pixels -> [N, C, H, W]."""
    return sample(x, *displaced_positions(displacement), padding_mode)
