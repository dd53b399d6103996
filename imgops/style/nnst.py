"""Neural neighbor style transfer (Kolkin et al. 2022): each place of a picture takes after the part of the style that
is nearest to it in the features of a network, from small to large."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.pictures import resize_picture
from ..data.pictures.colors import match_covariance
from .neighbor_objective import NeighborObjective
from .nnst_settings import NNSTSettings
from .objective import resize_to, resized
from .optimization import (
    Mix,
    Progress,
    Report,
    as_network,
    check_pictures,
    check_size_of,
    cropped,
    extend,
    in_rounds,
    ratio_of,
    style_size,
)

#: levels of the pyramid whose pixels are optimized; of those that keep a part of the content's colors, and that part
_LEVELS, _COLOR_LEVELS, _COLOR_SHARE = 5, 3, 0.5
#: of Adam; larger steps let colors run away that no cosine holds
_LR, _BETAS = 0.003, (0.9, 0.99)


def stylize_nnst(
    content: Tensor,
    styles: Sequence[Tensor],
    network: nn.Module,
    settings: NNSTSettings | None = None,
    *,
    weights: Sequence[float] | None = None,
    masks: Sequence[Tensor] | None = None,
    style_masks: Sequence[Tensor | None] | None = None,
    init: Tensor | None = None,
    on_step: Callable[[Progress], object] | None = None,
) -> Tensor:
    """A picture with the content of one, each place of which takes after the nearest part of others.

    At each size, from small to large, the features of several layers side by side (hypercolumns) of the content and of
    the picture so far are matched with those of the styles by cosine; the picture's are then brought near their match
    by gradient descent on a Laplacian pyramid. In the last steps each layer finds its match anew. Colors are moved to
    the mean and covariance of the styles'.

    Args:
        content: [3, H, W], RGB in [0, 1].
        styles: pictures like it, of any size.
        network: an encoder; see :func:`~imgops.models.encoders.load_encoder`.
        settings: default :class:`NNSTSettings`.
        weights: how much of each style; default, the same of each.
        masks: for each style where it goes, [1, H', W'] in [0, 1], resized to the content; where several do, the one
            of the largest weight times mask. What they leave stays as the content is.
        style_masks: for each style the part of it that counts, or None for all.
        init: begin at this picture, at the full size alone, with ``frame_steps`` steps.
        on_step: called after each step. A true answer ends it with the picture as it is, of the size that it has then.

    Returns:
        [3, H'', W''] in [0, 1], the longer side ``settings.size``, on the network's device, float32, or float64 if the
        network is.

    Raises:
        OutOfMemory: memory ran out; its ``picture`` is the result of the last round, if one was finished.
        TypeError, ValueError: a layer that the network lacks, shapes that are none of pictures, a number of weights or
            masks that is not that of the styles, tiles through layers whose field is not known.
    """
    settings = settings or NNSTSettings()
    check_pictures(content, styles, weights, masks, style_masks)
    check_size_of(content, settings.size)
    mix = Mix(list(weights or [1.0] * len(styles)), masks, style_masks)
    return neighbored(content, styles, network, settings, mix, init, on_step)


def neighbored(
    content: Tensor,
    styles: Sequence[Tensor],
    network: nn.Module,
    settings: NNSTSettings,
    mix: Mix,
    init: Tensor | None,
    on_step: Callable[[Progress], object] | None,
) -> Tensor:
    """What :func:`stylize_nnst` makes of pictures, weights, masks and a size that were checked."""
    content, *styles = as_network(network, [content, *styles])
    init = None if init is None else as_network(network, [init])[0]
    scales = settings.scales(ratio_of(content)) if init is None else [(settings.size, settings.frame_steps)]

    def one_round(size: int, steps: int, before: Tensor | None, report: Report) -> tuple[Tensor, bool]:
        small = resize_picture(content, size)
        seen = [resize_picture(style, style_size(style, size, settings)) for style in styles]
        parts = [
            None if part is None else resized(part, style).clamp(0, 1)
            for part, style in zip(mix.style_masks or [None] * len(seen), seen, strict=True)
        ]
        regions = None if mix.masks is None else [resized(mask, small).clamp(0, 1) for mask in mix.masks]
        palette = _Palette(seen, mix.weights, parts, regions)
        colored = palette(small)
        margin = None if regions is None else [extend(region) for region in regions]
        objective = NeighborObjective(network, settings, seen, mix.weights, parts, margin)
        start = _start(colored, before, detailed=init is None)
        objective.match(extend(colored), extend(start), settings.content_share)
        anew = settings.final_steps if init is None and size == settings.size else 0

        def told(step: int, losses: dict[str, float], picture: Tensor) -> bool:
            return report(step, losses, cropped(picture, small))

        picture, stopped = _descend(objective, extend(start), steps, steps - anew, told)
        return _toned(palette(cropped(picture, small)), colored), stopped

    return in_rounds(scales, content, init, mix.masks, one_round, on_step)


def _start(colored: Tensor, before: Tensor | None, detailed: bool) -> Tensor:
    """The first picture of a round: the content in the styles' colors; or the result before, to which a larger size
    adds the content's details that are new."""
    if before is None:
        return colored
    picture = resize_to(before, colored)
    if not detailed:
        return picture
    details, *_ = _pyramid(colored, 1)
    return (picture + details).clamp(0, 1)


def _descend(
    objective: NeighborObjective, start: Tensor, steps: int, matched: int, report: Report
) -> tuple[Tensor, bool]:
    """The picture after the steps, of which those after the first ``matched`` match anew, and whether what is reported
    to stopped it before."""
    levels = [level.clone().requires_grad_() for level in _pyramid(start.detach(), _LEVELS)]
    optimizer = torch.optim.Adam(levels, _LR, betas=_BETAS)
    picture = start
    for step in range(1, steps + 1):
        built = _built(levels)
        losses, gradient = objective.gradient(built.detach(), anew=step > matched)
        for level, slope in zip(levels, torch.autograd.grad(built, levels, gradient), strict=True):
            level.grad = slope
        optimizer.step()
        with torch.no_grad():
            picture = _built(levels).clamp(0, 1)
        if report(step, losses, picture):
            return picture, True
    return picture, False


def _pyramid(picture: Tensor, levels: int) -> list[Tensor]:
    """The Laplacian pyramid of a picture [3, H, W]: details from fine to coarse, and what is left."""
    pyramid: list[Tensor] = []
    while len(pyramid) < levels and min(picture.shape[1:]) >= 4:
        small = F.avg_pool2d(picture[None], 2, ceil_mode=True)[0]
        pyramid.append(picture - _enlarged(small, picture))
        picture = small
    return [*pyramid, picture]


def _built(pyramid: Sequence[Tensor]) -> Tensor:
    """The picture of a pyramid."""
    *details, picture = pyramid
    for detail in reversed(details):
        picture = detail + _enlarged(picture, detail)
    return picture


def _enlarged(picture: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(picture[None], like.shape[1:], mode="bilinear", align_corners=False)[0]


def _toned(picture: Tensor, colored: Tensor) -> Tensor:
    """The picture, with a share of the light and dark of the content in the styles' colors, which keeps shapes."""
    ours, theirs = _pyramid(picture, _COLOR_LEVELS), _pyramid(colored, _COLOR_LEVELS)
    return _built([*ours[:-1], torch.lerp(ours[-1], theirs[-1], _COLOR_SHARE)]).clamp(0, 1)


class _Palette:
    """The colors of the styles: called with a picture [3, H, W] it moves its mean and covariance to theirs, those of
    each style in its region."""

    def __init__(
        self,
        styles: Sequence[Tensor],
        weights: Sequence[float],
        parts: Sequence[Tensor | None],
        regions: Sequence[Tensor] | None,
    ) -> None:
        pixels = [style.flatten(1)[:, None] for style in styles]
        # the pixels of each style together count as much as its weight
        counts = [torch.ones_like(s[:1]) if part is None else part for s, part in zip(styles, parts, strict=True)]
        counts = [count.flatten(1)[:, None] / count.sum() for count in counts]
        self.regions = regions
        if regions is None:
            mixed = torch.cat([weight * count for weight, count in zip(weights, counts, strict=True)], 2)
            self.colors = [(torch.cat(pixels, 2), mixed)]
        else:
            self.colors = list(zip(pixels, counts, strict=True))

    def __call__(self, picture: Tensor) -> Tensor:
        if self.regions is None:
            return match_covariance(picture, self.colors[0][0], None, self.colors[0][1])
        moved = [
            region * (match_covariance(picture, pixels, region, counts) if region.any() else picture)
            for region, (pixels, counts) in zip(self.regions, self.colors, strict=True)
        ]
        total = torch.stack(list(self.regions)).sum(0)
        return torch.where(total > 0, torch.stack(moved).sum(0) / total.clamp(min=1e-6), picture)
