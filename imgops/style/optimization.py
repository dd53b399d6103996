"""Style transfer by optimization of the picture (Gatys et al. 2016), from small to large, in tiles where it must be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._memory import OutOfMemory, naming_remedy
from ..data.pictures import resize_picture
from .nnst_settings import NNSTSettings
from .objective import Objective, resize_to, resized
from .settings import SHORTEST, OptimizeSettings

#: pairs of steps and gradients that L-BFGS keeps, and the gradients that its line search may take
_HISTORY, _LINE_SEARCH = 10, 25
#: the fewest pixels of the shorter side of a result
_LEAST = 16
#: pixels around the result that are optimized with it and cut off, for the network sees its borders in them
MARGIN = 16
#: half a step of 8 bits
_GRAIN = 0.5 / 255

#: what is told of each step: its number, the losses and the picture; a true answer stops
Report = Callable[[int, dict[str, float], Tensor], bool]


class Progress(NamedTuple):
    """Where an optimization stands: the share of the whole work that is done, the longer side and step of this round,
    the losses, and the picture as it is, [3, H, W] in [0, 1]."""

    share: float
    size: int
    step: int
    losses: dict[str, float]
    picture: Tensor


class Mix(NamedTuple):
    """How styles are mixed: how much there is of each, where each goes, and which part of each counts; see
    :func:`optimize`."""

    weights: Sequence[float]
    masks: Sequence[Tensor] | None
    style_masks: Sequence[Tensor | None] | None


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
        network: an encoder; see :func:`~imgops.models.encoders.load_encoder`.
        settings: default :class:`OptimizeSettings`.
        weights: how much of each style; default, the same of each. Without masks their statistics are mixed.
        masks: for each style where it goes, [1, H', W'] in [0, 1], resized to the content. What they leave stays as the
            content is.
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
    settings = settings or OptimizeSettings()
    check_pictures(content, styles, weights, masks, style_masks)
    check_size_of(content, settings.size)
    mix = Mix(list(weights or [1.0] * len(styles)), masks, style_masks)
    return optimized(content, styles, network, settings, mix, init, on_step)


def optimized(
    content: Tensor,
    styles: Sequence[Tensor],
    network: nn.Module,
    settings: OptimizeSettings,
    mix: Mix,
    init: Tensor | None,
    on_step: Callable[[Progress], object] | None,
) -> Tensor:
    """What :func:`optimize` makes of pictures, weights, masks and a size that were checked."""
    content, *styles = as_network(network, [content, *styles])
    init = None if init is None else as_network(network, [init])[0]
    generator = torch.Generator().manual_seed(settings.seed)
    scales = settings.scales(ratio_of(content)) if init is None else [(settings.size, settings.frame_steps)]

    def one_round(size: int, steps: int, before: Tensor | None, report: Report) -> tuple[Tensor, bool]:
        def start(small: Tensor) -> Tensor:
            return _start(settings.init, small, styles, generator) if before is None else resize_to(before, small)

        return _round(network, settings, content, styles, size, steps, start, report, mix)

    return in_rounds(scales, content, init, mix.masks, one_round, on_step)


def as_network(network: nn.Module, pictures: Sequence[Tensor]) -> list[Tensor]:
    """Pictures on a network's device, in float64 where it computes in that, else in float32."""
    parameter = next(network.parameters())
    like = parameter.new_empty((), dtype=torch.float64 if parameter.dtype == torch.float64 else torch.float32)
    return [picture.to(like) for picture in pictures]


def in_rounds(
    scales: Sequence[tuple[int, int]],
    content: Tensor,
    init: Tensor | None,
    masks: Sequence[Tensor] | None,
    one_round: Callable[[int, int, Tensor | None, Report], tuple[Tensor, bool]],
    on_step: Callable[[Progress], object] | None,
) -> Tensor:
    """The result of the last of several rounds, or of the one that was stopped, where the masks are.

    Args:
        scales: longer side and steps of each round.
        content, init, masks, on_step: as :func:`optimize` takes them.
        one_round: called with the longer side, the steps, the picture of the round before, or None, and what is to be
            told of each step; returns a picture and whether it was stopped.

    Raises:
        OutOfMemory: memory ran out; its ``picture`` is the result of the last round, if one was finished.
    """
    # the work of a step goes with the pixels
    total = sum(size**2 * steps for size, steps in scales)
    done, result = 0.0, init
    for size, steps in scales:

        def report(step: int, losses: dict[str, float], picture: Tensor, done: float = done, size: int = size) -> bool:
            return bool(on_step and on_step(Progress((done + size**2 * step) / total, size, step, losses, picture)))

        try:
            with naming_remedy("give --memory or --tile, which make tiles, or a smaller --size"):
                result, stopped = one_round(size, steps, result, report)
        except OutOfMemory as error:
            if error.picture is None and result is not init and result is not None:
                error.picture = _within(masks, result, content)
            raise
        if stopped:
            break
        done += size**2 * steps
    if result is None:
        raise ValueError("style: there is no step to take")
    return _within(masks, result, content)


def _round(
    network: nn.Module,
    settings: OptimizeSettings,
    content: Tensor,
    styles: Sequence[Tensor],
    size: int,
    steps: int,
    start: Callable[[Tensor], Tensor],
    report: Report,
    mix: Mix,
) -> tuple[Tensor, bool]:
    """The picture after the steps at one size, and whether it was stopped."""
    small = resize_picture(content, size)
    objective = Objective(network, settings, extend(small))
    objective.set_styles(
        [resize_picture(style, style_size(style, size, settings)) for style in styles],
        mix.weights,
        None if mix.masks is None else [extend(resized(mask, small)) for mask in mix.masks],
        mix.style_masks,
    )

    def report_result(step: int, losses: dict[str, float], picture: Tensor) -> bool:
        return report(step, losses, cropped(picture, small))

    result, stopped = _descend(objective, extend(start(small)), settings, steps, report_result)
    return cropped(result, small).contiguous(), stopped


def margins(height: int, width: int) -> tuple[int, int]:
    """The pixels that are optimized above and below a result, and beside it: as many as can be mirrored."""
    return min(MARGIN, height - 1), min(MARGIN, width - 1)


def extend(picture: Tensor) -> Tensor:
    """A picture [C, H, W] with its margins, in which it is mirrored."""
    rows, columns = margins(*picture.shape[1:])
    return F.pad(picture[None], (columns, columns, rows, rows), mode="reflect")[0]


def cropped(picture: Tensor, like: Tensor) -> Tensor:
    """What :func:`extend` made of a picture of a size, without the margins, a view."""
    height, width = like.shape[1:]
    rows, columns = margins(height, width)
    return picture[:, rows : rows + height, columns : columns + width]


def _within(masks: Sequence[Tensor] | None, result: Tensor, content: Tensor) -> Tensor:
    """The result where the masks are, and what they leave of the content."""
    if masks is None:
        return result
    region = sum((resized(mask, result) for mask in masks), torch.zeros(())).clamp(0, 1)
    return region * result + (1 - region) * resize_to(content, result)


def ratio_of(picture: Tensor) -> float:
    """The longer side of a picture over its shorter one."""
    return float(max(picture.shape[1:])) / float(min(picture.shape[1:]))


def check_size_of(content: Tensor, size: int) -> int:
    """The longer side of a result, which no side of less than 16 pixels may come of.

    Raises:
        ValueError: it is too small for the shape of the content [3, H, W].
    """
    height, width = content.shape[1:]
    if size < (least := least_size(content)):
        raise ValueError(f"style: size must be at least {least} for a picture of {width} x {height}; got {size}")
    return size


def least_size(content: Tensor) -> int:
    """The longer side, in pixels, of the smallest result in the shape of a content [3, H, W]."""
    return math.ceil(_LEAST * ratio_of(content))


def style_size(style: Tensor, size: int, settings: OptimizeSettings | NNSTSettings) -> int:
    """The longer side that a style is looked at in, for a result of a size."""
    return max(round(size * settings.style_scale), math.ceil(SHORTEST * ratio_of(style)))


def check_pictures(
    content: Tensor,
    styles: Sequence[Tensor],
    weights: Sequence[float] | None = None,
    masks: Sequence[Tensor] | None = None,
    style_masks: Sequence[Tensor | None] | None = None,
    *,
    named: str = "weights",
) -> None:
    """Raise unless content and styles are pictures, and there are as many weights and masks as styles; ``named`` is
    what the caller calls the weights."""
    if not styles:
        raise ValueError("style: styles must hold one picture at least")
    for name, picture in [("content", content), *((f"styles[{i}]", style) for i, style in enumerate(styles))]:
        check_picture(name, picture)
    for name, values in {named: weights, "masks": masks, "style_masks": style_masks}.items():
        if values is not None and len(values) != len(styles):
            raise ValueError(f"style: {name} must have one for each of the {len(styles)} styles; got {len(values)}")
    if weights is not None and (min(weights) < 0 or not 0 < sum(weights) < math.inf):
        raise ValueError(f"style: {named} must be >= 0 and finite, and not all 0; got {list(weights)}")
    for name, given in {"masks": masks, "style_masks": style_masks}.items():
        for mask in given or ():
            if mask is not None and (mask.ndim != 3 or mask.shape[0] != 1 or mask.numel() == 0):
                raise ValueError(f"style: {name} must be [1, H, W] each; got {tuple(mask.shape)}")
            if mask is not None and not torch.isfinite(mask).all():
                raise ValueError(f"style: one of {name} has values that are not finite")
            if mask is not None and float(mask.max()) <= 0:
                raise ValueError(f"style: one of {name} is black all over, which leaves nothing")


def check_picture(name: str, picture: Tensor) -> None:
    """Raise TypeError, ValueError unless this is a picture: a tensor of finite floats [3, H, W] with pixels."""
    if not isinstance(picture, Tensor) or not picture.is_floating_point():
        raise TypeError(f"style: {name} must be a floating-point tensor in [0, 1]; got {type(picture).__name__}")
    if picture.ndim != 3 or picture.shape[0] != 3 or picture.numel() == 0:
        raise ValueError(f"style: {name} must be [3, H, W] with pixels; got {tuple(picture.shape)}")
    if not torch.isfinite(picture).all():
        raise ValueError(f"style: {name} has values that are not finite")


def _start(init: str, content: Tensor, styles: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    if init == "noise":
        return torch.rand(content.shape, generator=generator, dtype=content.dtype).to(content.device)
    return _grainy(content) if init == "content" else resize_to(styles[0].to(content), content)


def _grainy(picture: Tensor) -> Tensor:
    """The picture with noise, as much as rounding to 8 bits hides, where it is the same along a row or a column:
    there only its borders would tell the places apart, and patterns would grow in lines along them."""
    even = [
        F.max_pool2d(picture, size, 1, pad) + F.max_pool2d(-picture, size, 1, pad) < _GRAIN
        for size, pad in (((1, 5), (0, 2)), ((5, 1), (2, 0)))
    ]
    where = even[0].all(0) | even[1].all(0)
    noise = 2 * torch.rand(picture.shape, generator=torch.Generator().manual_seed(0), dtype=picture.dtype) - 1
    return (picture + _GRAIN * where * noise.to(picture.device)).clamp(0, 1)


def _descend(
    objective: Objective,
    start: Tensor,
    settings: OptimizeSettings,
    steps: int,
    report: Report,
) -> tuple[Tensor, bool]:
    """The (average) picture after ``steps`` steps, and whether what is reported to stopped it before."""
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
        total = sum(losses.values())
        if not math.isfinite(total):
            largest = ", ".join(f"{name} {value:g}" for name, value in losses.items())
            raise ValueError(f"style: the losses are not finite ({largest}); give smaller weights or a smaller --lr")
        # the fused step reads both in the order of memory
        x.grad = gradient.contiguous()
        return total

    for step in range(1, steps + 1):
        optimizer.step(closure)
        if settings.optimizer == "adam":
            # L-BFGS would take the clipping for curvature
            x.clamp_(0, 1)
        # the mean of the iterates, the later ones weighted more
        average.lerp_(x, (1 - settings.average) / (1 - settings.average**step))
        if report(step, losses, average.clamp(0, 1)):
            return average.clamp_(0, 1), True
    return (average.clamp_(0, 1) if steps else start), False
