"""Style transfer by optimisation of the picture (Gatys et al. 2016), from small to large, in tiles where it must be."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.pictures import resize_picture
from ..models.tiling import Tile, bytes_per_pixel, plan_tiles, receptive_fields
from ..models.vgg import VGG
from ..nn import Features
from ..nn._checks import check_choice, check_size
from .statistics import NORMALIZATIONS, STYLE_LOSSES, Style, StyleSums, mix_styles, pixels_of

OPTIMIZERS = ("adam", "lbfgs")
INITS = ("content", "noise", "style")
#: the layers of a VGG that tell content and style, and their weights
VGG_CONTENT = {"relu4_2": 1.0}
VGG_STYLE = {"relu1_1": 256.0, "relu2_1": 64.0, "relu3_1": 16.0, "relu4_1": 4.0, "relu5_1": 1.0}
#: pixels of the picture that are in memory at once, in numbers of its size: the content, the picture, its gradient and
#: average, and what the optimizer keeps and works on
_PICTURES = {"adam": 9, "lbfgs": 33}
#: gradients of a step, about
_EVALUATIONS = {"adam": 1.0, "lbfgs": 1.5}
#: pairs of steps and gradients that L-BFGS keeps, and the gradients that its line search may take
_HISTORY, _LINE_SEARCH = 10, 25
#: the fewest pixels of the shorter side that the deepest layers of an encoder make something of
_SHORTEST = 32
#: sides of tiles to choose from, in pixels
TILES = (2048, 1536, 1024, 768, 512, 384, 256, 128)
#: bytes of the program with its libraries; what a tile takes beyond what is counted, as a factor (both measured)
_PROGRAM, _WORKSPACE = 500e6, 1.5


@dataclass(frozen=True, kw_only=True)
class OptimizeSettings:
    """How a picture is optimised.

    Args:
        size: longer side of the result in pixels. Default 512.
        first_size: longer side that it begins at, growing by sqrt(2). Default 128.
        steps: at the first size. Default 150.
        later_steps: at each larger one. Default 75.
        frame_steps: from a given picture, at the full size alone: of the frames of a video after the first. Default 40.
        optimizer: "adam" or "lbfgs". Default "adam".
        lr: learning rate. Default 0.02 for Adam, 1 for L-BFGS.
        content_weight: of the content loss, the style's being 1. Default 1.
        content_layers, style_layers: {layer: weight}; None takes relu4_2, and relu1_1 to relu5_1 with weights 256, 64,
            16, 4, 1, of a VGG.
        style_loss: "gram", or "wasserstein" for the Wasserstein-2 distance of means and covariances. Default "gram".
        normalization: of the losses. "relative" divides by the target's own size, so that weights mean the same with
            every encoder; "chw", "hw", "none" and "gatys" are those of :class:`~imgops.style.statistics.GramStyle`,
            with the content's mean squared difference as it is. Default "relative".
        tv_weight: of the total variation. Default 5.
        style_scale: size of the styles in sizes of the result. Default 1.
        init: "content", "noise" or "style". Default "content".
        average: decay of the average of iterates that is the result, 0 for the last one. Default 0.98.
        tile: side of the tiles that the gradient is computed in, in pixels; None takes the picture as one. Default
            None.
        seed: of the noise. Default 0.

    Raises:
        TypeError, ValueError: a value out of range, named.
    """

    size: int = 512
    first_size: int = 128
    steps: int = 150
    later_steps: int = 75
    frame_steps: int = 40
    optimizer: str = "adam"
    lr: float | None = None
    content_weight: float = 1.0
    content_layers: Mapping[str, float] | None = None
    style_layers: Mapping[str, float] | None = None
    style_loss: str = "gram"
    normalization: str = "relative"
    tv_weight: float = 5.0
    style_scale: float = 1.0
    init: str = "content"
    average: float = 0.98
    tile: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in {"size": 16, "first_size": 16, "steps": 1, "later_steps": 0, "frame_steps": 1}.items():
            check_size("style", name, getattr(self, name), least)
        if self.tile is not None:
            check_size("style", "tile", self.tile)
        check_choice("style", "optimizer", self.optimizer, OPTIMIZERS)
        check_choice("style", "style_loss", self.style_loss, STYLE_LOSSES)
        check_choice("style", "normalization", self.normalization, NORMALIZATIONS)
        check_choice("style", "init", self.init, INITS)
        for name in ("content_weight", "tv_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"style: {name} must be >= 0; got {getattr(self, name)}")
        for name in ("lr", "style_scale"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"style: {name} must be > 0; got {value}")
        if not 0 <= self.average < 1:
            raise ValueError(f"style: average must be at least 0 and below 1; got {self.average}")

    def scales(self, ratio: float = 1.0) -> list[tuple[int, int]]:
        """(longer side, steps) of each round, from small to large, of a picture whose longer side is ``ratio`` times
        its shorter one: that of a narrow picture begins larger, for it must not be a line."""
        first = max(self.first_size, math.ceil(_SHORTEST * ratio))
        if self.size <= first:
            return [(self.size, self.steps)]
        sizes = [first]
        while sizes[-1] * math.sqrt(2) < self.size * 0.99:
            sizes.append(round(first * math.sqrt(2) ** len(sizes)))
        return [(size, self.later_steps if i else self.steps) for i, size in enumerate([*sizes, self.size])]


class Progress(NamedTuple):
    """Where an optimisation stands: the share of the whole work that is done, the longer side and step of this round,
    the losses, and the picture as it is, [3, H, W] in [0, 1]."""

    share: float
    size: int
    step: int
    losses: dict[str, float]
    picture: Tensor


def optimize(
    content: Tensor,
    styles: Sequence[Tensor],
    network: nn.Module,
    settings: OptimizeSettings | None = None,
    *,
    weights: Sequence[float] | None = None,
    masks: Sequence[Tensor] | None = None,
    style_masks: Sequence[Tensor | None] | None = None,
    init: Tensor | None = None,
    on_step: Callable[[Progress], object] | None = None,
) -> Tensor:
    """A picture with the content of one and the style of others (Gatys et al. 2016), by gradient descent on its pixels.

    Args:
        content: [3, H, W], RGB in [0, 1].
        styles: pictures like it, of any size.
        network: an encoder; see :func:`~imgops.models.weights.load_encoder`.
        settings: default :class:`OptimizeSettings`.
        weights: how much of each style; default, the same of each. Without masks their statistics are mixed.
        masks: for each style where it goes, [1, H', W'] in [0, 1], resized to the content. What they leave stays as the
            content is.
        style_masks: for each style the part of it that counts, or None for all.
        init: begin at this picture, at the full size alone, with ``frame_steps`` steps.
        on_step: called after each step.

    Returns:
        [3, H'', W''] in [0, 1], the longer side ``settings.size``, with the network's dtype and device.

    Raises:
        TypeError, ValueError: a layer that the network lacks, shapes that are none of pictures, a number of weights or
            masks that is not that of the styles, tiles through layers whose field is not known.
    """
    settings = settings or OptimizeSettings()
    check_pictures(content, styles, weights, masks, style_masks)
    shares = list(weights or [1.0] * len(styles))
    like = next(network.parameters())
    content, styles = content.to(like), [style.to(like) for style in styles]
    init = None if init is None else init.to(like)
    generator = torch.Generator().manual_seed(settings.seed)
    scales = settings.scales(ratio_of(content)) if init is None else [(settings.size, settings.frame_steps)]
    # the work of a step goes with the pixels
    total = sum(size**2 * steps for size, steps in scales)
    done, result = 0.0, init
    for size, steps in scales:
        small = resize_picture(content, size)
        objective = Objective(network, settings, small)
        objective.set_styles(
            [resize_picture(style, style_size(style, size, settings)) for style in styles],
            shares,
            masks,
            style_masks,
        )
        start = _start(settings.init, small, styles, generator) if result is None else resize_to(result, small)

        def report(step: int, losses: dict[str, float], picture: Tensor, done: float = done, size: int = size) -> None:
            if on_step is not None:
                on_step(Progress((done + size**2 * step) / total, size, step, losses, picture))

        result = _descend(objective, start, settings, steps, report)
        done += size**2 * steps
    if result is None:
        raise ValueError("style: there is no step to take")
    if masks is not None:
        region = sum((_resized(mask, result) for mask in masks), torch.zeros(())).clamp(0, 1)
        result = region * result + (1 - region) * resize_to(content, result)
    return result


def ratio_of(picture: Tensor) -> float:
    """The longer side of a picture over its shorter one."""
    return float(max(picture.shape[1:])) / float(min(picture.shape[1:]))


def style_size(style: Tensor, size: int, settings: OptimizeSettings) -> int:
    """The longer side that a style is looked at in, for a result of a size."""
    return max(round(size * settings.style_scale), math.ceil(_SHORTEST * ratio_of(style)))


def check_pictures(
    content: Tensor,
    styles: Sequence[Tensor],
    weights: Sequence[float] | None = None,
    masks: Sequence[Tensor] | None = None,
    style_masks: Sequence[Tensor | None] | None = None,
) -> None:
    """Raise unless content and styles are pictures, and there are as many weights and masks as styles."""
    if not styles:
        raise ValueError("style: styles must hold one picture at least")
    for name, picture in [("content", content), *((f"styles[{i}]", style) for i, style in enumerate(styles))]:
        if not isinstance(picture, Tensor) or not picture.is_floating_point():
            raise TypeError(f"style: {name} must be a floating-point tensor in [0, 1]; got {type(picture).__name__}")
        if picture.ndim != 3 or picture.shape[0] != 3 or min(picture.shape[1:]) < 16:
            raise ValueError(f"style: {name} must be [3, H, W] of at least 16 x 16 pixels; got {tuple(picture.shape)}")
        if not torch.isfinite(picture).all():
            raise ValueError(f"style: {name} has values that are not finite")
    for name, values in {"weights": weights, "masks": masks, "style_masks": style_masks}.items():
        if values is not None and len(values) != len(styles):
            raise ValueError(f"style: {name} must have one for each of the {len(styles)} styles; got {len(values)}")
    if weights is not None and (min(weights) < 0 or not 0 < sum(weights) < math.inf):
        raise ValueError(f"style: weights must be >= 0 and not all 0; got {list(weights)}")
    for name, given in {"masks": masks, "style_masks": style_masks}.items():
        for mask in given or ():
            if mask is not None and (mask.ndim != 3 or mask.shape[0] != 1 or mask.numel() == 0):
                raise ValueError(f"style: {name} must be [1, H, W] each; got {tuple(mask.shape)}")
            if mask is not None and float(mask.max()) <= 0:
                raise ValueError(f"style: one of {name} is black all over, which leaves nothing")


def resize_to(picture: Tensor, like: Tensor) -> Tensor:
    """The picture [C, H, W] at the height and width of another, bicubic."""
    if picture.shape[1:] == like.shape[1:]:
        return picture
    resized = F.interpolate(picture[None], like.shape[1:], mode="bicubic", antialias=True, align_corners=False)
    return resized[0].clamp(0, 1)


def _resized(mask: Tensor, like: Tensor) -> Tensor:
    return resize_to(mask.to(like), like)


def _start(init: str, content: Tensor, styles: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    if init == "noise":
        return torch.rand(content.shape, generator=generator, dtype=content.dtype).to(content.device)
    return content if init == "content" else resize_to(styles[0].to(content), content)


class Objective:
    """The losses of a picture at one size, and their gradient, tile by tile where the settings say so.

    The losses of a style are of statistics that add up over the tiles. They are summed without gradients first; then
    each tile's pixels get the gradient of the loss for its part of the sums, which is the gradient of the whole.

    Args:
        network: an encoder.
        settings: for the layers, losses, weights and the tile.
        content: [3, H, W] at the size that is optimised.

    Raises:
        ValueError: a layer that the network lacks; tiles through layers whose field is not known.
    """

    def __init__(self, network: nn.Module, settings: OptimizeSettings, content: Tensor) -> None:
        self.settings = settings
        self.content_layers, self.style_layers = layers_of(network, settings)
        self.names = list(dict.fromkeys([*self.content_layers, *self.style_layers]))
        self.features = Features(network, self.names)
        try:
            self.fields = receptive_fields(network, self.names)
        except ValueError:
            if settings.tile is not None:
                raise
            # one tile needs none
            self.fields = {}
        self.tiles = self._plan(content)
        self.styles: list[tuple[dict[str, Style], Tensor | None, float]] = []
        with torch.no_grad():
            # a core is a view of the tile's features, which need not stay
            self.contents = [
                {name: y.clone() for name, y in self._see(tile, tile.cut(content), self.content_layers).items()}
                for tile in self.tiles
            ]
        #: what the squared differences of each content layer are divided by
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
        """Features of the tile's core, of the pixels that the tile cuts out."""
        found = self.features(part[None].contiguous(memory_format=torch.channels_last))
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
        regions = [_resized(mask, like).clamp(0, 1) for mask in masks]
        areas = [float(region.mean()) * weight for region, weight in zip(regions, weights, strict=True)]
        self.styles = [(*one, area / sum(areas)) for *one, area in zip(described, regions, areas, strict=True)]  # type: ignore[misc]

    def _describe(self, style: Tensor, part: Tensor | None) -> dict[str, Style]:
        mask = None if part is None else _resized(part, style).clamp(0, 1)
        settings = self.settings
        sums = {name: StyleSums(settings.style_loss, settings.normalization) for name in self.style_layers}
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
                # a region may be smaller than a pixel of a deep layer
                losses.append(share * weight / whole * style[name].loss(sums, pixels.clamp(min=1e-6)))
        return torch.stack(losses).sum()

    def _content_loss(self, found: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """The part of the content loss that is of one tile."""
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
        """The part of the total variation that is of the pairs of neighbours whose first is in the tile's core, of the
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
    """The content and the style layers with their weights, those of the settings or of the kind of network.

    Raises:
        ValueError: none are named, and the network is no VGG; a weight below 0, or all 0.
    """
    chosen = []
    for kind, given, default in (
        ("content_layers", settings.content_layers, VGG_CONTENT),
        ("style_layers", settings.style_layers, VGG_STYLE),
    ):
        if given is None and not isinstance(network, VGG):
            raise ValueError(f"style: {kind} must be named for a network that is no VGG; got {type(network).__name__}")
        layers = default if given is None else given
        if not layers or min(layers.values()) < 0 or not 0 < sum(layers.values()) < math.inf:
            raise ValueError(f"style: {kind} must have weights >= 0 that are not all 0; got {dict(layers)}")
        chosen.append(layers)
    return chosen[0], chosen[1]


def _descend(
    objective: Objective,
    start: Tensor,
    settings: OptimizeSettings,
    steps: int,
    report: Callable[[int, dict[str, float], Tensor], None],
) -> Tensor:
    """The (average) picture after ``steps`` steps."""
    x = start.detach().clone()
    x.grad = torch.zeros_like(x)
    optimizer: torch.optim.Optimizer
    if settings.optimizer == "adam":
        # fused: one pass over the picture, without temporaries of its size
        optimizer = torch.optim.Adam([x], settings.lr or 0.02, betas=(0.9, 0.99), fused=True)
    else:
        optimizer = torch.optim.LBFGS(
            [x],
            settings.lr or 1.0,
            max_iter=1,
            max_eval=_LINE_SEARCH,
            history_size=_HISTORY,
            line_search_fn="strong_wolfe",
        )
    average = torch.zeros_like(x)
    losses: dict[str, float] = {}

    def closure() -> float:
        nonlocal losses
        # what it was is not needed while the next is made
        x.grad = None
        losses, gradient = objective.gradient(x)
        # the fused step reads both in the order of memory
        x.grad = gradient.contiguous()
        return sum(losses.values())

    for step in range(1, steps + 1):
        optimizer.step(closure)
        if settings.optimizer == "adam":
            # L-BFGS would take the clipping for curvature
            x.clamp_(0, 1)
        # the mean of the iterates, the later ones weighted more
        average.lerp_(x, (1 - settings.average) / (1 - settings.average**step))
        report(step, losses, average.clamp(0, 1))
    return average.clamp_(0, 1) if steps else start


def memory_of(network: nn.Module, settings: OptimizeSettings, height: int, width: int) -> float:
    """Bytes that the program takes at most, estimated: the picture's, the tile's and its own."""
    content_layers, style_layers = layers_of(network, settings)
    names = list(dict.fromkeys([*content_layers, *style_layers]))
    pixels = height * width
    tile = max(_area(tile) for tile in _tiles_of(network, settings, height, width))
    content = _content_bytes(network, list(content_layers)) * pixels
    pictures = 12 * _PICTURES[settings.optimizer] * pixels
    return _PROGRAM + pictures + content + _WORKSPACE * bytes_per_pixel(network, names) * tile


def work_of(network: nn.Module, settings: OptimizeSettings, height: int, width: int, size: int) -> float:
    """The pixels that a step computes on at a size, of a result of this height and width; in tiles more than there
    are, for what they share and as each goes forward twice, a third of the work."""
    scale = size / max(height, width)
    tiles = _tiles_of(network, settings, max(1, round(height * scale)), max(1, round(width * scale)))
    return sum(map(_area, tiles)) * (1 if len(tiles) == 1 else 4 / 3) * _EVALUATIONS[settings.optimizer]


def _tiles_of(network: nn.Module, settings: OptimizeSettings, height: int, width: int) -> list[Tile]:
    if settings.tile is None:
        return plan_tiles(height, width, None, [])
    content_layers, style_layers = layers_of(network, settings)
    fields = receptive_fields(network, [*content_layers, *style_layers])
    return plan_tiles(height, width, settings.tile, list(fields.values()))


def _area(tile: Tile) -> int:
    top, left, bottom, right = tile.outer
    return (bottom - top) * (right - left)


def _content_bytes(network: nn.Module, names: Sequence[str]) -> float:
    """Bytes of the content's features for each pixel."""
    parameter = next(network.parameters())
    with torch.no_grad():
        found = Features(network, names)(torch.zeros(1, 3, 128, 128, dtype=parameter.dtype, device=parameter.device))
    return sum(y.nbytes for y in found.values()) / 128**2


def choose_tile(network: nn.Module, settings: OptimizeSettings, height: int, width: int, memory: float) -> int | None:
    """The side of the largest tiles with which the program stays within ``memory`` bytes; None if it needs none.

    Raises:
        ValueError: the picture does not fit with the smallest tiles either.
    """
    if memory_of(network, dataclasses.replace(settings, tile=None), height, width) <= memory:
        return None
    for tile in TILES:
        if memory_of(network, dataclasses.replace(settings, tile=tile), height, width) <= memory:
            return tile
    least = memory_of(network, dataclasses.replace(settings, tile=TILES[-1]), height, width)
    raise ValueError(
        f"memory: {width} x {height} pixels need {least / 1e9:.1f} GB in the smallest tiles; got {memory / 1e9:.1f} GB"
    )
