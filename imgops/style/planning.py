"""Estimates before an optimization begins: its memory, its time, and tiles that fit in the memory allowed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import nn

from .._memory import program_memory, room_on
from ..models.encoders.tiling import TILES, Field, bytes_per_pixel, receptive_fields, tile_areas
from ..nn import Features
from .objective import layers_of
from .optimization import margins
from .settings import OptimizeSettings

#: float32 pictures in memory at once: the content, the picture, its gradient and average, and those that the optimizer
#: keeps and works on
_PICTURES = {"adam": 9, "lbfgs": 33}
#: gradients per step, about
_EVALUATIONS = {"adam": 1.0, "lbfgs": 1.5}
#: what the loss that sorts takes at most, in sizes of the features that it compares (measured: 7 to 10)
_SORTED = 10
#: bytes that the program takes after its first estimate; the factors by which a whole picture, and one of several
#: tiles, takes more than is counted (all measured)
_LATER, _WORKSPACE, _WORKSPACE_OF_TILES = 90e6, 1.5, 2.2


def memory_of(network: nn.Module, settings: OptimizeSettings, height: int, width: int, kept: float = 0) -> float:
    """Bytes that the program takes at most, estimated: the picture's, the tile's and its own; ``kept``: the bytes per
    pixel that a method keeps beside these."""
    content_layers, style_layers = layers_of(network, settings)
    names = list(dict.fromkeys([*content_layers, *style_layers]))
    pixels, tile, _ = _areas(network, settings, height, width)
    content = _content_bytes(network, list(content_layers)) * pixels
    pictures = (12 * _PICTURES[settings.optimizer] + kept) * pixels
    if settings.style_loss == "sliced":
        content += _SORTED * _content_bytes(network, list(style_layers)) * pixels
    workspace = _WORKSPACE if tile == pixels else _WORKSPACE_OF_TILES
    program = program_memory(next(network.parameters()).device)
    return program + _LATER + pictures + content + workspace * bytes_per_pixel(network, names) * tile


def work_of(network: nn.Module, settings: OptimizeSettings, height: int, width: int, size: int) -> float:
    """The pixels that a step computes on at a size, for a result of this height and width. Tiles count more than the
    picture: they overlap, and each goes forward twice, which adds a third of the work."""
    scale = size / max(height, width)
    sides = (max(1, round(side * scale)) for side in (height, width))
    pixels, tile, total = _areas(network, settings, *sides)
    return total * (1 if tile == pixels else 4 / 3) * _EVALUATIONS[settings.optimizer]


def _areas(network: nn.Module, settings: OptimizeSettings, height: int, width: int) -> tuple[int, int, int]:
    """Pixels of a result with its margins, of the largest of its tiles, and of all tiles together."""
    height, width = (side + 2 * margin for side, margin in zip((height, width), margins(height, width), strict=True))
    fields: list[Field] = []
    if settings.tile is not None:
        content_layers, style_layers = layers_of(network, settings)
        fields = list(receptive_fields(network, [*content_layers, *style_layers]).values())
    return (height * width, *tile_areas(height, width, settings.tile, fields))


def _content_bytes(network: nn.Module, names: Sequence[str]) -> float:
    """Bytes of the content's features per pixel."""
    parameter = next(network.parameters())
    with torch.no_grad():
        found = Features(network, names)(torch.zeros(1, 3, 128, 128, dtype=parameter.dtype, device=parameter.device))
    return sum(y.nbytes for y in found.values()) / 128**2


def choose_tile(
    network: nn.Module, settings: OptimizeSettings, height: int, width: int, memory: float, kept: float = 0
) -> int | None:
    """The side of the largest tiles with which the program stays within ``memory`` bytes; None if it needs none.
    ``kept``: see :func:`memory_of`.

    Raises:
        ValueError: the picture does not fit with the smallest tiles either.
    """
    if memory_of(network, dataclasses.replace(settings, tile=None), height, width, kept) <= memory:
        return None
    if settings.style_loss == "sliced":
        least = memory_of(network, settings, height, width, kept)
        raise ValueError(
            f"style: memory must be at least {_gigabytes(least)} GB for {width} x {height} pixels with the style_loss "
            f"'sliced', which has no tiles; got {memory / 1e9:.3g} GB; a smaller --size needs less"
        )
    for tile in TILES:
        if memory_of(network, dataclasses.replace(settings, tile=tile), height, width, kept) <= memory:
            return tile
    least = memory_of(network, dataclasses.replace(settings, tile=TILES[-1]), height, width, kept)
    raise ValueError(
        f"style: memory must be at least {_gigabytes(least)} GB for {width} x {height} pixels, in smallest tiles; got "
        f"{memory / 1e9:.3g} GB; a smaller --size needs less"
    )


def _gigabytes(least: float) -> str:
    """Rounded up, so that the amount that is named will do."""
    return f"{math.ceil(least / 1e7) / 100:.2f}"


def check_room(network: nn.Module, settings: OptimizeSettings, height: int, width: int, kept: float = 0) -> None:
    """Raise ValueError, with a remedy, if an optimization needs more memory than there is; ``kept``: see
    :func:`memory_of`."""
    device, needed = next(network.parameters()).device, memory_of(network, settings, height, width, kept)
    room = room_on(device)
    if needed <= room:
        return
    remedy = "give a smaller --size"
    tiles = settings.style_loss != "sliced"
    if tiles and memory_of(network, dataclasses.replace(settings, tile=TILES[-1]), height, width, kept) <= room:
        remedy = f"give --memory {max(0.1, 0.9 * room / 1e9):.1f}GB, which makes tiles, or a smaller --size"
    raise ValueError(_too_much(height, width, needed, room, remedy))


def check_room_in_one_pass(height: int, width: int, channels: int, tile: int | None, device: torch.device) -> None:
    """The same of a method of one pass, by what it takes at least: pictures, and the input and output of a convolution
    with these channels at the full size, or in tiles."""
    pixels = height * width
    area = pixels if tile is None else min(pixels, tile**2)
    needed, room = 12 * 3 * pixels + 4 * 2 * channels * area, room_on(device)
    if needed > room:
        raise ValueError(_too_much(height, width, needed, room, "give a smaller --size"))


def _too_much(height: int, width: int, needed: float, room: float, remedy: str) -> str:
    return (
        f"style: {width} x {height} pixels take about {needed / 1e9:.1f} GB of memory, of which there are "
        f"{room / 1e9:.1f} GB; {remedy}"
    )
