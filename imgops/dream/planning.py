"""The memory that a dream takes, compared with what is free before it begins."""

from __future__ import annotations

import torch

from .._memory import program_memory, room_on
from ..models.encoders.tiling import TILES
from .gradient import Gradient
from .looks import Resolved
from .views import view_size

#: float32 pictures in memory at once: those of a step, and those that the parametrization keeps (measured)
_PICTURES = {"pixels": 20, "fourier": 28}
#: the share of a gradient's counted bytes that comes on top of the pictures; for the others memory of pictures is
#: reused (measured)
_WORKSPACE = 0.75
#: bytes that the program takes beyond what it has before its first estimate (measured)
_LATER = {"pixels": 25e6, "fourier": 75e6}
#: bytes that the allocator keeps between tiles of unlike sizes (measured)
_BETWEEN_TILES = 40e6


def memory_of(gradient: Gradient, settings: Resolved, height: int, width: int, tile: int | None) -> float:
    """Bytes that the program takes at most for a dream of this size, estimated: the pictures', the tile's, its own.

    Raises:
        ValueError: tiles that the layers do not allow.
    """
    area, _ = gradient.tile_areas(*view_size(height, width, settings), tile)
    pictures = 12 * _PICTURES[settings.parametrization] * height * width
    device = next(gradient.network.parameters(), torch.empty(0)).device
    own = program_memory(device) + _LATER[settings.parametrization] + (0.0 if tile is None else _BETWEEN_TILES)
    return own + pictures + _WORKSPACE * gradient.bytes_per_pixel * area


def check_room(gradient: Gradient, settings: Resolved, height: int, width: int) -> None:
    """Raise ValueError, with a remedy, if a dream of this size needs more memory than there is."""
    parameter = next(gradient.network.parameters(), torch.empty(0))
    room = room_on(parameter.device)
    needed = memory_of(gradient, settings, height, width, settings.tile)
    if needed <= room:
        return
    remedy = "a smaller --size"
    for tile in TILES:
        try:
            if memory_of(gradient, settings, height, width, tile) <= room:
                remedy = f"--tile {tile}, which makes tiles, or {remedy}"
                break
        except ValueError:
            # the layers of this network cannot be computed in tiles
            break
    raise ValueError(
        f"dream: {width} x {height} pixels take about {needed / 1e9:.1f} GB of memory, of which there are "
        f"{room / 1e9:.1f} GB; give {remedy}"
    )
