"""Hypercolumns: the features of several layers of a network at each position of a grid, of a picture or its tiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.encoders.tiling import Field, Tile, plan_tiles, receptive_fields
from ..nn import Features
from ..nn.convolving import picture_format

#: pixels from one position of the grid to the next
GRID = 4
#: sets of hypercolumns that are in memory at once while they are matched, of the picture or of a style
_SETS = 8


class Hypercolumns:
    """What a network sees around each position, layers side by side: each less its mean and divided by its length, as
    they are on average in the styles that :meth:`fit` was given.

    Args:
        network: an encoder.
        layers: {layer: weight}.
        tile: side of tiles in pixels; None sees a picture as one.

    Raises:
        ValueError: a layer that the network lacks; tiles through layers whose field is not known.
    """

    def __init__(self, network: nn.Module, layers: Mapping[str, float], tile: int | None) -> None:
        self.layers, self.tile = layers, tile
        self.features = Features(network, list(layers))
        self.dtype = next((p.dtype for p in network.parameters()), torch.float32)
        try:
            fields = receptive_fields(network, list(layers))
        except ValueError:
            if tile is not None:
                raise
            # a single tile needs no receptive fields
            fields = {}
        # interpolation between positions of a deep layer reads one more of them
        self.fields = {name: Field(max(f.stride, GRID), f.reach + f.stride) for name, f in fields.items()}
        self.center = self.scale = torch.zeros(())
        #: channels of each layer
        self.sizes: list[int] = []

    def tiles(self, picture: Tensor) -> list[Tile]:
        """The tiles of a picture [3, H, W]."""
        return plan_tiles(picture.shape[1], picture.shape[2], self.tile, list(self.fields.values()))

    def fit(self, styles: Sequence[Tensor]) -> list[Tensor]:
        """The hypercolumns [C, h, w] of pictures [3, H, W], by which those of all pictures are measured from now on."""
        with torch.no_grad():
            self.center = self.scale = torch.zeros(())
            raw = [self._whole(style) for style in styles]
            every = torch.cat([y.flatten(1) for y in raw], 1)
            self.center = every.mean(1)[:, None, None]
            lengths = (every - self.center[:, 0]).square().mean(1).split(self.sizes)
            scales = [
                torch.full_like(squares, math.sqrt(weight)) / squares.sum().sqrt().clamp(min=1e-12)
                for squares, weight in zip(lengths, self.layers.values(), strict=True)
            ]
            self.scale = torch.cat(scales)[:, None, None]
            return [(y - self.center) * self.scale for y in raw]

    def __call__(self, picture: Tensor) -> Tensor:
        """Those of a picture [3, H, W], without gradient, [C, h, w]."""
        with torch.no_grad():
            return (self._whole(picture) - self.center) * self.scale

    def of_tile(self, tile: Tile, part: Tensor) -> Tensor:
        """Those of a tile's core [C, h, w], from the pixels that the tile cuts out."""
        return (self._see(tile, part) - self.center) * self.scale

    def _whole(self, picture: Tensor) -> Tensor:
        tiles = self.tiles(picture)
        if len(tiles) == 1:
            return self._see(tiles[0], picture)
        height, width = (math.ceil(side / GRID) for side in picture.shape[1:])
        whole: Tensor | None = None
        for tile in tiles:
            seen = self._see(tile, tile.cut(picture))
            if whole is None:
                whole = seen.new_empty(seen.shape[0], height, width)
            cut(whole, tile).copy_(seen)
        return whole  # type: ignore[return-value]

    def _see(self, tile: Tile, part: Tensor) -> Tensor:
        x = part[None].contiguous(memory_format=picture_format(self.features.network, part.device))
        # a network in half precision computes on a picture that keeps more digits
        found = {name: y.to(part.dtype) for name, y in self.features(x.to(self.dtype)).items()}
        self.sizes = [y.shape[1] for y in found.values()]
        size = [math.ceil((tile.core[side + 2] - tile.core[side]) / GRID) for side in (0, 1)]
        return torch.cat([_fitted(tile.core_of(_on_grid(y, part), GRID)[0], size) for y in found.values()])


def _on_grid(y: Tensor, part: Tensor) -> Tensor:
    """Features [1, C, H', W'] of a picture [3, H, W], one for each position of the grid, interpolated or averaged."""
    stride = 2 ** round(math.log2(max(part.shape[1] / y.shape[2], part.shape[2] / y.shape[3])))
    if stride > GRID:
        return F.interpolate(y, scale_factor=stride // GRID, mode="bilinear", align_corners=False)
    return y if stride == GRID else F.avg_pool2d(y, GRID // stride, ceil_mode=True)


def _fitted(y: Tensor, size: Sequence[int]) -> Tensor:
    """Features [C, h, w], cut to a size, or with their last row or column once more: strides round."""
    y = y[:, : size[0], : size[1]]
    missing = size[0] - y.shape[1], size[1] - y.shape[2]
    return y if missing == (0, 0) else F.pad(y, (0, missing[1], 0, missing[0]), mode="replicate")


def bytes_to_match(network: nn.Module, layers: Mapping[str, float]) -> float:
    """Bytes per pixel of a picture that its hypercolumns take while they are matched, about."""
    parameter = next(network.parameters())
    with torch.no_grad():
        found = Features(network, list(layers))(torch.zeros(1, 3, 64, 64).to(parameter))
    return _SETS * 4 * sum(y.shape[1] for y in found.values()) / GRID**2


def cut(whole: Tensor, tile: Tile) -> Tensor:
    """The tile's part of what is given on the grid [..., h, w] of a picture, a view."""
    return tile.core_in_picture(whole, GRID)
