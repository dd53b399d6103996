"""Views of a picture: as a network sees it at a step, moved, turned and scaled at random."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..ops.grid_sample import grid_sample
from .looks import Resolved

#: what is seen around a picture: the gray in the middle of [0, 1]
_AROUND = 0.5


def view_size(height: int, width: int, settings: Resolved) -> tuple[int, int]:
    """(height, width) of the view of a picture of this size."""
    return height + 2 * settings.padding, width + 2 * settings.padding


def random_view(x: Tensor, settings: Resolved, generator: torch.Generator) -> Tensor:
    """A picture as the network sees it at a step (Olah, Mordvintsev and Schubert 2017), differentiable for the picture.

    Without padding it is rolled by the jitter, so that what leaves it at one edge comes in at the other. With padding
    it is moved by the jitter within gray. Then it is scaled and turned about its middle, with bilinear samples.

    Args:
        x: [N, 3, H, W].
        settings: its jitter, padding, random_scale and random_rotation count.
        generator: of the random numbers; two are drawn for the jitter, and two more for scale and rotation.

    Returns:
        [N, 3, H + 2 padding, W + 2 padding].
    """
    jitter, padding = settings.jitter, settings.padding
    down, right = torch.randint(-jitter, jitter + 1, (2,), generator=generator).tolist()
    if padding == 0:
        x, down, right = x.roll((down, right), (2, 3)), 0, 0
    if padding == settings.random_scale == settings.random_rotation == 0:
        return x
    larger, turned = (2 * torch.rand(2, dtype=torch.float64, generator=generator) - 1).tolist()
    # by a factor and by its inverse equally often
    near, angle = (1 + settings.random_scale) ** -larger, math.radians(settings.random_rotation * turned)
    height, width = x.shape[2:]
    rows, columns = view_size(height, width, settings)
    y = torch.arange(rows, dtype=torch.float64, device=x.device)[:, None] - (rows - 1) / 2
    z = torch.arange(columns, dtype=torch.float64, device=x.device) - (columns - 1) / 2
    from_x = near * (math.cos(angle) * z + math.sin(angle) * y) - right
    from_y = near * (math.cos(angle) * y - math.sin(angle) * z) - down
    grid = torch.stack([2 * from_x / width, 2 * from_y / height], 2).to(x.dtype)
    # beyond the picture the samples are zeros
    return grid_sample(x - _AROUND, grid.expand(x.shape[0], -1, -1, -1)) + _AROUND
