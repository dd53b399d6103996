"""The gradient of objectives for a picture, whole or tile by tile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from ..models.encoders.tiling import Field, Tile, bytes_per_pixel, plan_tiles, receptive_fields, tile_areas
from ..nn import Features
from ._state import evaluating, like_network
from .objectives import AnyObjective, ClassObjective, GuidedObjective, Objective

#: pixels around a tile of a network whose layers' fields are not known
HALO = 128
#: largest side in pixels of the pictures that a network is tried with
_TRIAL = 512


class Gradient:
    """The sum of weighted objectives of a picture, and its gradient for the picture alone.

    The network is evaluated no further than the deepest of the layers, and gradients of its parameters are not
    computed; it should be in evaluation mode.

    With tiles, too, the objectives are means over the whole picture. Where :func:`receptive_fields` knows the layers,
    the gradient is that of the whole picture, to rounding. For other networks it is approximate: each tile is read with
    128 pixels around it.

    Args:
        network: any module that takes pictures [1, 3, H, W].
        objectives: what to make larger; one at least.
        tile: None, or the side of tiles in pixels. Default None.

    Raises:
        TypeError: objectives is no list of objectives.
        ValueError: none; a layer that the network lacks, with the nearest names; tiles below the deepest layer's
            stride, or of layers whose output is no [N, C, H, W].
    """

    def __init__(self, network: nn.Module, objectives: Sequence[AnyObjective], tile: int | None = None) -> None:
        if isinstance(objectives, AnyObjective) or not all(isinstance(one, AnyObjective) for one in objectives):
            raise TypeError("dream: objectives must be a list of Objective, GuidedObjective or ClassObjective")
        if not objectives:
            raise ValueError("dream: objectives must have one at least; default_objectives has one for each encoder")
        self.network, self.objectives, self.tile = network, list(objectives), tile
        self.layers = [objective.layer for objective in self.objectives]
        self.names = ", ".join(dict.fromkeys(self.layers))
        #: {whether it is that of classes: the sum of the weights' magnitudes} of each kind of objective
        self.kinds: dict[bool, float] = {}
        for one in self.objectives:
            kind = isinstance(one, ClassObjective)
            self.kinds[kind] = self.kinds.get(kind, 0.0) + abs(one.weight)
        self.features = Features(network, self.layers)
        for objective in self.objectives:
            if isinstance(objective, GuidedObjective):
                self.first_fitting([(objective.guide.shape[1], objective.guide.shape[2])], "guide")
        self.densities = [objective.bound(self._features) for objective in self.objectives]
        if tile is not None:
            self.tiles(2 * tile, 2 * tile, tile)
        self.counts: dict[torch.Size, list[int]] = {}
        #: whether any gradient so far was other than zero
        self.alive = False

    def __call__(self, x: Tensor) -> tuple[float, Tensor]:
        """The objective of a picture [1, 3, H, W], and its gradient. Raises as :meth:`apart`."""
        value, gradients = self.apart(x)
        return value, gradients.sum(0)

    def apart(self, x: Tensor) -> tuple[float, Tensor]:
        """The objective of a picture [1, 3, H, W], and the gradients [K, 1, 3, H, W] of its kinds: of the classes, of
        the layers, of either where there is one alone.

        Raises:
            ValueError: activations or a gradient that are not finite; layers that pass no gradient, or one that is zero
                from the beginning, as that of a channel that a ReLU has cut off everywhere.
        """
        tiles = self.tiles(x.shape[2], x.shape[3], self.tile)
        counts = self._count(x, tiles) if len(tiles) > 1 else None
        gradients, value = x.new_zeros(len(self.kinds), *x.shape), 0.0
        for tile in tiles:
            with torch.enable_grad():
                part = tile.cut(x).detach().requires_grad_()
                totals = {kind: part.new_zeros(()) for kind in self.kinds}
                for i, (objective, density) in enumerate(zip(self.objectives, self._parts(part, tile), strict=True)):
                    term = objective.weight / (counts[i] if counts else density.numel()) * density.sum().to(x.dtype)
                    if not torch.isfinite(term):
                        raise ValueError(f"dream: the activations of layer {objective.layer} are not finite")
                    kind = isinstance(objective, ClassObjective)
                    totals[kind] = totals[kind] + term
            for gradient, total in zip(gradients, totals.values(), strict=True):
                if not total.requires_grad:
                    raise ValueError(f"dream: layer {self.names} passes no gradient to the picture")
                tile.cut(gradient).add_(torch.autograd.grad(total, part, retain_graph=len(totals) > 1)[0])
                value += float(total.detach())
        # the sum shows both NaN and infinity, for a tenth of the time
        if not torch.isfinite(gradients.sum()):
            raise ValueError(f"dream: the gradient of layer {self.names} is not finite")
        if not self.alive:
            self.alive = bool(gradients.any())
        if not self.alive:
            raise ValueError(
                f"dream: nothing in the picture excites {', '.join(map(_text, self.objectives))}, so there is no way "
                "to more of it; ask for the layer before the ReLU, another channel, or begin with another picture"
            )
        return value, gradients

    def tiles(self, height: int, width: int, side: int | None) -> list[Tile]:
        """The tiles of a picture, with cores of that side; None makes one.

        Raises:
            ValueError: a side below the deepest layer's stride; layers whose output is no [N, C, H, W].
        """
        return plan_tiles(height, width, side, [] if side is None else list(self.fields.values()))

    def tile_areas(self, height: int, width: int, side: int | None) -> tuple[int, int]:
        """Pixels of the largest of these tiles, and of all of them together.

        Raises:
            ValueError: as of :meth:`tiles`.
        """
        return tile_areas(height, width, side, [] if side is None else list(self.fields.values()))

    @cached_property
    def bytes_per_pixel(self) -> float:
        """Bytes of memory per pixel that the gradient is computed for at once; 0 where they cannot be counted."""
        try:
            return bytes_per_pixel(self.network, self.layers)
        except (RuntimeError, ValueError):
            # the network does not take pictures of the size that is used to count
            return 0.0

    def first_fitting(self, sizes: Sequence[tuple[int, int]], what: str = "picture") -> int:
        """The index of the first of some sizes (height, width), in growing order, that the network takes.

        Raises:
            ValueError: none of them, with the smallest that it takes; a channel or a class of an objective that its
                layer lacks.
        """
        error = None
        for i, size in enumerate(sizes):
            error = self._error(*size)
            if error is None:
                return i
        height, width = sizes[-1]
        side = self.smallest_side()
        if side is None:
            raise error or ValueError(f"dream: layer {self.names} takes no {what}")
        raise ValueError(
            f"dream: layer {self.names} needs a {what} of {side} x {side} pixels at least; got {height} x {width}, "
            f"which is large enough with a size of {_longer(side, height, width)}"
        )

    def _features(self, x: Tensor) -> dict[str, Tensor]:
        return self.features(like_network(x, self.network))

    def _parts(self, part: Tensor, tile: Tile) -> list[Tensor]:
        """The densities of the objectives over the core of a tile."""
        found = self._features(part)
        if tile.core != (0, 0, *tile.size):
            found = {name: tile.core_of(y, self.fields[name].stride) for name, y in found.items()}
        return [density(found[name]) for name, density in zip(self.layers, self.densities, strict=True)]

    @torch.no_grad()
    def _count(self, x: Tensor, tiles: list[Tile]) -> list[int]:
        """The values of each density over a picture of x's size, which the tiles' parts must be divided by."""
        if x.shape not in self.counts:
            sizes = [[density.numel() for density in self._parts(tile.cut(x), tile)] for tile in tiles]
            self.counts[x.shape] = [sum(of_one) for of_one in zip(*sizes, strict=True)]
        return self.counts[x.shape]

    @torch.no_grad()
    def _error(self, height: int, width: int) -> RuntimeError | ValueError | None:
        """The error of the network for a picture of this size, or None; the picture that it is tried with is at most
        :data:`_TRIAL` pixels long on each side."""
        try:
            found = self._features(torch.full((1, 3, min(height, _TRIAL), min(width, _TRIAL)), 0.5))
        except (RuntimeError, ValueError) as error:
            return error
        for objective in self.objectives:
            if not isinstance(objective, GuidedObjective):
                objective.density(found[objective.layer])
        return None

    def smallest_side(self) -> int | None:
        """The side of the smallest square that the network takes; None if it takes none up to :data:`_TRIAL`."""
        low, high = 0, _TRIAL
        if self._error(high, high) is not None:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._error(middle, middle) is None else (middle, high)
        return high

    @cached_property
    @torch.no_grad()
    def fields(self) -> dict[str, Field]:
        """The receptive fields of the layers; for networks of unknown layers an approximation."""
        try:
            return receptive_fields(self.network, self.layers)
        except ValueError:
            fields = {}
            for name, y in self._features(torch.full((1, 3, _TRIAL, _TRIAL), 0.5)).items():
                if y.ndim != 4 or y.numel() == 0:
                    raise ValueError(
                        f"dream: tiles need layers of [N, C, H, W]; {name} gives {tuple(y.shape)}, of the picture as a "
                        "whole; leave out tile"
                    ) from None
                fields[name] = Field(max(1, round(_TRIAL / y.shape[2])), HALO)
            return fields


def least_size(network: nn.Module, objectives: Sequence[AnyObjective], height: int, width: int) -> int:
    """The longer side, in pixels, of the smallest picture in the shape of this one that a network takes for these
    objectives; 1 if it takes none that is tried.

    Raises:
        TypeError, ValueError: as of :class:`Gradient`.
    """
    with evaluating(network):
        return _longer(Gradient(network, objectives).smallest_side() or 1, height, width)


def _longer(shorter: int, height: int, width: int) -> int:
    """The longer side of a picture in the shape of this one whose shorter side is at least that."""
    return math.ceil(shorter * max(height, width) / min(height, width))


def _text(objective: AnyObjective) -> str:
    if isinstance(objective, ClassObjective):
        return f"class {objective.number}"
    channel = objective.channel if isinstance(objective, Objective) else None
    return objective.layer if channel is None else f"channel {channel} of {objective.layer}"
