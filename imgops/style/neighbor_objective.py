"""What a picture is to take after in neural neighbor style transfer, and the gradient for its pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.encoders.efficientnet_lite import EfficientNetLite
from ..models.encoders.tiling import Tile
from ..models.encoders.vgg import VGG
from ..nn import Features
from ..ops.nearest_neighbor import nearest_neighbor
from .hypercolumns import GRID, Hypercolumns, cut
from .nnst_settings import NNSTSettings
from .objective import default_layers

#: of a VGG, whose deeper layers see more than parts
VGG_HYPERCOLUMN = dict.fromkeys(("relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_3", "relu4_1"), 1.0)


def hypercolumn_layers(network: nn.Module, settings: NNSTSettings) -> Mapping[str, float]:
    """The layers that are compared together, those of the settings or of the kind of network.

    Raises:
        ValueError: none are named, and none can be told of this network; a weight that is not above 0; a layer that the
            network lacks.
    """
    layers = settings.hypercolumn_layers
    if layers is None and isinstance(network, EfficientNetLite):
        # a stage's second block, the first one of its resolution with a skip connection
        place = [sum(network.stages[:stage]) + 1 for stage in range(5)]
        layers = {"conv_stem": 1.0, "blocks_0": 1.0, **{f"blocks_{place[stage]}": 1.0 for stage in (1, 2, 3)}}
        layers |= {f"blocks_{place[4]}": 0.5}
    elif layers is None and isinstance(network, VGG):
        there = dict(network.named_modules())
        layers = {name: weight for name, weight in VGG_HYPERCOLUMN.items() if name in there}
    elif layers is None and (defaults := default_layers(network)) is not None:
        layers = defaults.style
    if not layers:
        raise ValueError(
            f"style: hypercolumn_layers must be named for this network; got {type(network).__name__}"
            if layers is None
            else "style: hypercolumn_layers must name one layer at least"
        )
    if not all(0 < weight < math.inf for weight in layers.values()):
        raise ValueError(f"style: hypercolumn_layers must have weights above 0; got {dict(layers)}")
    try:
        Features(network, list(layers))
    except ValueError as error:
        raise ValueError(f"style: hypercolumn_layers: {error}") from None
    return layers


class NeighborObjective:
    """How far each place of a picture is, by the cosine of hypercolumns, from the part of the styles that it is to take
    after.

    Args:
        network: an encoder.
        settings: for the layers, the patches and the tile.
        styles: pictures [3, H, W] as they are seen.
        weights: how much of each style, by which they share the patches.
        parts: for each style which of it counts, [1, H, W], or None for all.
        regions: for each style where it goes, [1, H, W] of the picture that is made; None: all of them everywhere.

    Raises:
        ValueError: a layer that the network lacks; tiles through layers whose field is not known.
    """

    def __init__(
        self,
        network: nn.Module,
        settings: NNSTSettings,
        styles: Sequence[Tensor],
        weights: Sequence[float],
        parts: Sequence[Tensor | None],
        regions: Sequence[Tensor] | None,
    ) -> None:
        self.columns = Hypercolumns(network, hypercolumn_layers(network, settings), settings.tile)
        found = self.columns.fit(styles)
        turned = [
            [self.columns(style.rot90(turns, (1, 2)).contiguous()) for turns in range(1, settings.rotations)]
            for style in styles
        ]
        keys = [
            torch.cat([_counted(y, None if part is None else part.rot90(turns, (1, 2)))
                       for turns, y in enumerate((first, *more))], 1)
            for first, more, part in zip(found, turned, parts, strict=True)
        ]  # fmt: skip
        #: the parts of each style, or of the mixture of all, [C, K]
        self.keys = _shared_out(keys, weights, settings.patches, regions is None)
        #: the number of the style that each position takes after
        self.regions = None if regions is None else _regions(regions, weights)
        #: what each position takes after, [C, h, w]
        self.targets = torch.zeros(())

    def match(self, content: Tensor, picture: Tensor, share: float) -> None:
        """Let each place take after what is nearest to the content, as to ``share``, and to the picture as it is."""
        with torch.no_grad():
            queries = torch.lerp(self.columns(picture), self.columns(content), share)
            # their own mean is left out, so that they lie among the keys, whose mean is 0
            queries = queries - queries.mean((1, 2), keepdim=True)
            flat = queries.flatten(1)[None]
            every = [keys[:, nearest_neighbor(flat, keys[None])[1][0]] for keys in self.keys]
            self.targets = _chosen(every, self.regions).reshape(queries.shape)

    def gradient(self, picture: Tensor, anew: bool) -> tuple[dict[str, float], Tensor]:
        """The loss of a picture [3, H, W] and its gradient for the pixels; ``anew``: to the part that is nearest to
        each place now, layer by layer, in the place of the one that was matched."""
        gradient = torch.zeros_like(picture)
        positions = math.prod(math.ceil(side / GRID) for side in picture.shape[1:])
        total = 0.0
        for tile in self.columns.tiles(picture):
            part = tile.cut(picture).detach().requires_grad_()
            seen = self.columns.of_tile(tile, part)
            if anew:
                distance = self._distance_anew(seen, tile)
            else:
                distance = 1 - F.cosine_similarity(seen, cut(self.targets, tile), 0)
            loss = distance.sum() / positions
            tile.cut(gradient).add_(torch.autograd.grad(loss, part)[0])
            total += loss.item()
        return {"distance": total}, gradient

    def _distance_anew(self, seen: Tensor, tile: Tile) -> Tensor:
        """1 less the cosine with the nearest part of each layer by itself, on average over the layers, [h, w]."""
        sizes, flat = self.columns.sizes, seen.flatten(1)
        every = []
        for keys in self.keys:
            pairs = zip(flat.split(sizes), keys.split(sizes), strict=True)
            every.append(torch.stack([nearest_neighbor(y[None], near[None])[0] for y, near in pairs]).mean(0))
        regions = None if self.regions is None else cut(self.regions, tile)
        return (1 - _chosen(every, regions)).reshape(seen.shape[1:])


def _chosen(every: Sequence[Tensor], regions: Tensor | None) -> Tensor:
    """Of values [C, P] for each style those of the style whose region a place is in, by its number in ``regions``."""
    if regions is None:
        return every[0]
    return torch.stack(list(every)).gather(0, regions.flatten().expand(1, every[0].shape[0], -1))[0]


def _regions(regions: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The number of the style that each position of the grid takes after, [h, w], from masks [1, H, W]."""
    size = [math.ceil(side / GRID) for side in regions[0].shape[1:]]
    shares = [
        weight * F.interpolate(region[None], size, mode="area")[0, 0]
        for region, weight in zip(regions, weights, strict=True)
    ]
    return torch.stack(shares).argmax(0)


def _counted(y: Tensor, part: Tensor | None) -> Tensor:
    """The hypercolumns [C, K] at the positions of y [C, h, w] that count at least half as much as any."""
    if part is None:
        return y.flatten(1)
    counts = F.interpolate(part[None].to(y), y.shape[1:], mode="area").flatten()
    return y.flatten(1)[:, counts >= 0.5 * counts.max()]


def _shared_out(keys: Sequence[Tensor], weights: Sequence[float], patches: int, mixed: bool) -> list[Tensor]:
    """Of hypercolumns [C, K] of each style as many as are allowed, at random but the same each time; ``mixed``: in one
    set, in which there are as many of each style as its weight says."""
    generator = torch.Generator().manual_seed(0)

    def some(columns: Tensor, count: int) -> Tensor:
        if count >= columns.shape[1]:
            return columns.contiguous()
        order = torch.randperm(columns.shape[1], generator=generator)[:count].sort().values
        return columns[:, order.to(columns.device)]

    if not mixed:
        return [some(columns, patches) for columns in keys]
    shares = [weight / sum(weights) for weight in weights]
    most = min([patches, *(columns.shape[1] / share for columns, share in zip(keys, shares, strict=True) if share > 0)])
    counts = [math.ceil(most * share) for share in shares]
    return [torch.cat([some(columns, count) for columns, count in zip(keys, counts, strict=True)], 1)]
