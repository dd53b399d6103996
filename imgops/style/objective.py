"""The losses of style transfer of one picture, and their gradient, whole or in tiles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.pictures import resample_picture
from ..models.encoders.efficientnet_lite import EfficientNetLite
from ..models.encoders.probing import layers_by_stride
from ..models.encoders.tiling import Tile, plan_tiles, receptive_fields
from ..models.encoders.vgg import VGG
from ..nn import Features
from ..nn.convolving import picture_format
from .settings import OptimizeSettings
from .statistics import Directions, Style, StyleSums, mix_styles, pixels_of, smoothed

#: the layers of a VGG that content and style are compared at, and their weights
VGG_CONTENT = {"relu4_2": 1.0}
#: the layer for a picture that does not begin with the content: at a deep layer pictures that look nothing like the
#: content have the same features
VGG_CONTENT_TO_FIND = {"relu2_2": 1.0}
VGG_STYLE = {"relu1_1": 256.0, "relu2_1": 64.0, "relu3_1": 16.0, "relu4_1": 4.0, "relu5_1": 1.0}
#: of another network, the largest strides that are compared at: for style and content, and for a content to be found
DEEPEST = 16, 4


class DefaultLayers(NamedTuple):
    """The layers of a kind of network for the content, for a content that is to be found, and for the style."""

    content: Mapping[str, float]
    content_to_find: Mapping[str, float]
    style: Mapping[str, float]


def default_layers(network: nn.Module) -> DefaultLayers | None:
    """The layers of a VGG or an EfficientNet-Lite; of another network those that its attributes ``content_layers`` and
    ``style_layers`` name, or the last of each stride up to 16. None where none can be told."""
    if isinstance(network, VGG):
        find = VGG_CONTENT_TO_FIND if _has(network, VGG_CONTENT_TO_FIND) else VGG_CONTENT
        return DefaultLayers(VGG_CONTENT, find, VGG_STYLE)
    if isinstance(network, EfficientNetLite):
        # a stage's second block, the first one of its resolution with a skip connection
        place = [sum(network.stages[:stage]) + 1 for stage in range(6)]
        style = {"conv_stem": 1.0, "blocks_0": 1.0, f"blocks_{place[1]}": 1.0, f"blocks_{place[2]}": 1.0}
        style |= {f"blocks_{place[3]}": 0.5, f"blocks_{place[4]}": 0.5}
        return DefaultLayers({f"blocks_{place[3]}": 1.0}, {f"blocks_{place[1]}": 1.0}, style)
    return _by_stride(network)


def _by_stride(network: nn.Module) -> DefaultLayers | None:
    """What another network names in its attributes, or else the last layer of each stride."""
    content, style = (getattr(network, name, None) for name in ("content_layers", "style_layers"))
    if content is not None and style is not None:
        return DefaultLayers(content, content, style)
    try:
        layers = layers_by_stride(network)
    except ValueError:
        return None
    if not layers:
        return None
    deepest, middle = (max((s for s in layers if s <= most), default=min(layers)) for most in DEEPEST)
    found = {name: 1.0 for stride, name in layers.items() if stride <= deepest}
    alone = [{layers[stride]: 1.0} if content is None else content for stride in (deepest, middle)]
    return DefaultLayers(alone[0], alone[1], found if style is None else style)


class Objective:
    """The losses of a picture at one size, and their gradient, tile by tile where the settings say so.

    The losses of a style are of statistics that add up over the tiles. They are summed without gradients first; then
    each tile's pixels get the gradient of the loss for its part of the sums, which is the gradient of the whole.

    Args:
        network: an encoder.
        settings: for the layers, losses, weights and the tile.
        content: [3, H, W] at the size that is optimized.

    Raises:
        ValueError: a layer that the network lacks; tiles through layers whose field is not known.
    """

    def __init__(self, network: nn.Module, settings: OptimizeSettings, content: Tensor) -> None:
        self.settings = settings
        self.content_layers, self.style_layers = layers_of(network, settings)
        self.names = list(dict.fromkeys([*self.content_layers, *self.style_layers]))
        self.features = Features(network, self.names)
        self.dtype = next((p.dtype for p in network.parameters()), content.dtype)
        try:
            self.fields = receptive_fields(network, self.names)
        except ValueError:
            if settings.tile is not None:
                raise
            # a single tile needs no receptive fields
            self.fields = {}
        self.tiles = self._plan(content)
        self.styles: list[tuple[dict[str, Style], Tensor | None, float]] = []
        with torch.no_grad():
            # a core is a view, which would keep all of the tile's features in memory
            self.contents = [
                {name: y.clone() for name, y in self._see(tile, tile.cut(content), self.content_layers).items()}
                for tile in self.tiles
            ]
        # L-BFGS compares the losses of steps, which must then be the same function
        self.directions = Directions(settings.seed, fixed=settings.optimizer == "lbfgs")
        #: the divisor of the squared differences of each content layer
        self.content_sizes = {name: self._content_size(name) for name in self.content_layers}

    def _content_size(self, name: str) -> float:
        targets = [found[name] for found in self.contents]
        if self.settings.normalization == "relative":
            return max(sum(float(y.square().sum(dtype=torch.float64)) for y in targets), 1e-30)
        return sum(y.numel() for y in targets)

    def _plan(self, picture: Tensor) -> list[Tile]:
        height, width = picture.shape[1:]
        return plan_tiles(height, width, self.settings.tile, list(self.fields.values()))

    def _see(self, tile: Tile, part: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """Features of the tile's core in the dtype of ``pixels``, those that the tile cuts out."""
        x = part[None].contiguous(memory_format=picture_format(self.features.network, part.device))
        # a network in half precision computes on a picture that keeps more digits
        found = {name: y.to(part.dtype) for name, y in self.features(x.to(self.dtype)).items()}
        if self.settings.smoothing:
            found = {name: smoothed(y) for name, y in found.items()}
        if not self.fields:
            return {name: found[name] for name in names}
        return {name: tile.core_of(found[name], self.fields[name].stride) for name in names}

    def set_styles(
        self,
        styles: Sequence[Tensor],
        weights: Sequence[float],
        masks: Sequence[Tensor] | None = None,
        style_masks: Sequence[Tensor | None] | None = None,
    ) -> None:
        """Take these pictures as the styles: with masks each where its mask says, else a mixture of all."""
        parts = style_masks or [None] * len(styles)
        with torch.no_grad():
            described = [self._describe(style, part) for style, part in zip(styles, parts, strict=True)]
        if masks is None:
            mixed = {name: mix_styles([one[name] for one in described], weights) for name in self.style_layers}
            self.styles = [(mixed, None, 1.0)]
            return
        like = styles[0].new_empty(1, *self.tiles[0].size)
        regions = [resized(mask, like).clamp(0, 1) for mask in masks]
        areas = [float(region.mean()) * weight for region, weight in zip(regions, weights, strict=True)]
        self.styles = [(*one, area / sum(areas)) for *one, area in zip(described, regions, areas, strict=True)]  # type: ignore[misc]

    def _describe(self, style: Tensor, part: Tensor | None) -> dict[str, Style]:
        mask = None if part is None else resized(part, style).clamp(0, 1)
        settings = self.settings
        kind, normalization = settings.style_loss, settings.normalization
        sums = {name: StyleSums(kind, normalization, self.directions) for name in self.style_layers}
        for tile in self._plan(style):
            for name, y in self._see(tile, tile.cut(style), self.style_layers).items():
                sums[name].add(y, self._mask_at(tile, mask, name, y))
        return {name: found.style() for name, found in sums.items()}

    def _mask_at(self, tile: Tile, mask: Tensor | None, name: str, y: Tensor) -> Tensor | None:
        """The mask [1, 1, H', W'] for features y of the tile's core."""
        if mask is None:
            return None
        if not self.fields:
            return F.interpolate(mask[None], y.shape[2:], mode="area")
        # windows of the stride's size, so that they are the same for a tile as for the whole
        top, left, bottom, right = tile.core
        means = F.avg_pool2d(mask[None, :, top:bottom, left:right], self.fields[name].stride, ceil_mode=True)
        return means[..., : y.shape[2], : y.shape[3]]

    def _measure(self, tile: Tile, found: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """(sums, pixels) of each layer for each style in turn."""
        measured = []
        for style, region, _ in self.styles:
            for name in self.style_layers:
                y = found[name]
                mask = self._mask_at(tile, region, name, y)
                measured.append((style[name].measure(y, mask), pixels_of(y, mask)))
        return measured

    def _style_loss(self, measured: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        losses, at = [], iter(measured)
        whole = sum(self.style_layers.values())
        for style, _, share in self.styles:
            for name, weight in self.style_layers.items():
                sums, pixels = next(at)
                # a region may be smaller than one position of a deep layer
                losses.append(share * weight / whole * style[name].loss(sums, pixels.clamp(min=1e-6)))
        return torch.stack(losses).sum()

    def _content_loss(self, found: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """One tile's part of the content loss."""
        whole = sum(self.content_layers.values())
        losses = [
            weight / whole / self.content_sizes[name] * F.mse_loss(found[name], targets[name], reduction="sum")
            for name, weight in self.content_layers.items()
        ]
        return self.settings.content_weight * torch.stack(losses).sum()

    def gradient(self, picture: Tensor) -> tuple[dict[str, float], Tensor]:
        """The losses of a picture [3, H, W], weighted, and their gradient for its pixels."""
        picture = picture.detach()
        if len(self.tiles) == 1:
            x = picture.requires_grad_()
            found = self._see(self.tiles[0], x, self.names)
            style = self._style_loss(self._measure(self.tiles[0], found))
            content = self._content_loss(found, self.contents[0])
            smooth = self._smoothness(self.tiles[0], x)
            (gradient,) = torch.autograd.grad(style + content + smooth, x)
            return {"style": style.item(), "content": content.item(), "tv": smooth.item()}, gradient
        losses = {"style": 0.0, "content": 0.0, "tv": 0.0}
        losses["style"], slopes = self._slopes(picture)
        gradient = torch.zeros_like(picture, memory_format=torch.contiguous_format)
        for tile, targets in zip(self.tiles, self.contents, strict=True):
            part = tile.cut(picture).requires_grad_()
            found = self._see(tile, part, self.names)
            content, smooth = self._content_loss(found, targets), self._smoothness(tile, part)
            pairs = zip(self._measure(tile, found), slopes, strict=True)
            own = torch.stack([(slope * sums).sum() for (sums, _), slope in pairs]).sum()
            tile.cut(gradient).add_(torch.autograd.grad(own + content + smooth, part)[0])
            losses["content"] += content.item()
            losses["tv"] += smooth.item()
        return losses, gradient

    def _smoothness(self, tile: Tile, part: Tensor) -> Tensor:
        """The part of the total variation that is of the pairs of neighbors whose first is in the tile's core, of the
        pixels that the tile cuts out."""
        (height, width), (top, left, bottom, right) = tile.size, tile.core
        top, bottom = top - tile.outer[0], bottom - tile.outer[0]
        left, right = left - tile.outer[1], right - tile.outer[1]
        # one more pixel to the right and below, where there is one
        x = part[:, top : bottom + 1, left : right + 1]
        core = x[:, : bottom - top, : right - left]
        across = (x[:, : bottom - top, 1:] - core[:, :, : x.shape[2] - 1]).square().sum() / (3 * height * (width - 1))
        down = (x[:, 1:, : right - left] - core[:, : x.shape[1] - 1]).square().sum() / (3 * (height - 1) * width)
        return self.settings.tv_weight * (across + down)

    @torch.no_grad()
    def _slopes(self, picture: Tensor) -> tuple[float, list[Tensor]]:
        """The style loss, and its gradients for the sums over all tiles."""
        totals: list[list[Tensor]] = []
        for tile in self.tiles:
            measured = self._measure(tile, self._see(tile, tile.cut(picture), self.style_layers))
            totals.append([value for pair in measured for value in pair])
            if len(totals) == 2:
                totals = [[a + b for a, b in zip(*totals, strict=True)]]
        sums = [value.requires_grad_() for value in totals[0][::2]]
        with torch.enable_grad():
            loss = self._style_loss(list(zip(sums, totals[0][1::2], strict=True)))
        return loss.item(), list(torch.autograd.grad(loss, sums))


def layers_of(network: nn.Module, settings: OptimizeSettings) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """The content and the style layers with their weights, those of the settings or of the network: by its kind, by its
    attributes ``content_layers`` and ``style_layers``, or the last layer of each stride up to 16.

    Raises:
        ValueError: none are named, and none can be told of the network; a weight below 0, or all 0; a layer that the
            network lacks.
    """
    chosen = []
    defaults = default_layers(network) or DefaultLayers({}, {}, {})
    content = defaults.content if settings.init == "content" else defaults.content_to_find
    for kind, given, default in (
        ("content_layers", settings.content_layers, content),
        ("style_layers", settings.style_layers, defaults.style),
    ):
        if given is None and not default:
            raise ValueError(f"style: {kind} must be named for this network; got {type(network).__name__}")
        layers = default if given is None else given
        if not layers or min(layers.values()) < 0 or not 0 < sum(layers.values()) < math.inf:
            raise ValueError(f"style: {kind} must have weights >= 0 that are not all 0; got {dict(layers)}")
        try:
            Features(network, list(layers))
        except ValueError as error:
            raise ValueError(f"style: {kind}: {error}") from None
        chosen.append(layers)
    return chosen[0], chosen[1]


def _has(network: nn.Module, layers: Mapping[str, float]) -> bool:
    return layers.keys() <= dict(network.named_modules()).keys()


def resize_to(picture: Tensor, like: Tensor) -> Tensor:
    """The picture [C, H, W] at the height and width of another, bicubic."""
    return resample_picture(picture, like.shape[1], like.shape[2])


def resized(mask: Tensor, like: Tensor) -> Tensor:
    """A mask [1, H, W] at the height and width of a picture, with its dtype and device."""
    return resize_to(mask.to(like), like)
