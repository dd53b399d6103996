"""The dream: gradient ascent on a picture at several sizes; the detail of each size is carried to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from .._settings import SIDE
from ..data.pictures import resample, resample_picture, resized_shape
from ._state import evaluating, working_picture
from .gradient import Gradient
from .looks import Resolved, resolved_settings
from .normalize import normalized
from .objectives import AnyObjective, check_picture
from .parametrize import fourier_picture, fourier_spectrum, natural_colors, noise_picture
from .planning import check_room
from .settings import DreamSettings
from .views import random_view, view_size

#: how strongly the constraint form draws back to the input, per unit of distance; the normalized gradient is about 1
_NEARNESS = 4.0


def dream(
    picture: Tensor | None,
    network: nn.Module,
    objectives: Sequence[AnyObjective],
    settings: DreamSettings | None = None,
    *,
    size: int | tuple[int, int] | None = None,
    on_step: Callable[[float, Tensor], None] | None = None,
) -> Tensor:
    """A picture that has been changed so that a network's objectives are larger (Mordvintsev et al. 2015).

    Args:
        picture: [3, H, W], RGB in [0, 1]; None begins with faint noise.
        network: any module that takes pictures [1, 3, H, W] in [0, 1]. It runs in evaluation mode, and is left as it
            was: its modes, its parameters and whether they require gradients.
        objectives: what to make larger, their weighted sum; see :func:`default_objectives`.
        settings: default DreamSettings().
        size: of the result: its longer side in pixels, or (height, width) of one from noise. Default: the picture's.
        on_step: called after each step with the fraction that is done, up to 1, and the picture [3, H', W'] of the
            current octave.

    Returns:
        [3, H, W] in [0, 1] on the network's device, float32, or float64 if the network is. On a CPU the same for the
        same seed.

    Raises:
        TypeError: a picture, objectives, settings or a size of another type.
        ValueError: a shape, or values that are not finite; a layer or a channel that is not there; a picture too small
            for the deepest layer, with the smallest size; one that needs more memory than there is; activations or
            gradients that are not finite, with the layer.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> dream(torch.rand(3, 48, 64), network, [Objective("1")], DreamSettings(steps=2), size=32).shape
    torch.Size([3, 24, 32])
    """
    with evaluating(network):
        gradient, chosen = prepared(network, objectives, settings)
        start = starting_picture(picture, gradient, chosen, size)
        return dreamt(start, gradient, chosen, chosen.seed, on_step)


def prepared(
    network: nn.Module, objectives: Sequence[AnyObjective], settings: DreamSettings | None
) -> tuple[Gradient, Resolved]:
    """The gradient of the objectives, and the settings with what suits the network where they are None.

    Raises:
        TypeError, ValueError: as of :func:`dream`.
    """
    if settings is not None and not isinstance(settings, DreamSettings):
        raise TypeError(f"dream: settings must be DreamSettings; got {type(settings).__name__}")
    settings = settings or DreamSettings()
    gradient = Gradient(network, objectives, settings.tile)
    return gradient, resolved_settings(settings, network, gradient.objectives)


def starting_picture(
    picture: Tensor | None, gradient: Gradient, settings: Resolved, size: int | tuple[int, int] | None
) -> Tensor:
    """The picture, or noise, at the size of the result. Raises as :func:`dream`, also where memory is too small."""
    network = gradient.network
    sides = size if isinstance(size, tuple) else (size,)
    for side in sides:
        if side is not None and (isinstance(side, bool) or not isinstance(side, int)):
            raise TypeError(f"dream: size must be an int or (height, width); got {size!r}")
        if side is not None and side < 1:
            raise ValueError(f"dream: size must be >= 1; got {size!r}")
        if side is not None:
            SIDE.check("dream: size", side)
    if picture is None:
        if size is None or len(sides) > 2:
            raise ValueError(f"dream: noise needs a size, or (height, width); got {size!r}")
        height, width = int(sides[0] or 1), int(sides[-1] or 1)
        check_room(gradient, settings, height, width)
        return working_picture(noise_picture(height, width, settings.seed), network)
    check_picture("dream", "picture", picture)
    if not torch.isfinite(picture).all():
        raise ValueError("dream: picture has values that are not finite")
    if isinstance(size, tuple):
        raise ValueError(f"dream: the size of a picture is its longer side, one int; got {size!r}")
    height, width = picture.shape[1:] if size is None else resized_shape(picture, size)
    check_room(gradient, settings, height, width)
    picture = working_picture(picture, network).clamp(0, 1)
    return resample_picture(picture, height, width)


def octave_sizes(height: int, width: int, settings: Resolved) -> list[tuple[int, int]]:
    """(height, width) of each octave, the smallest first.

    >>> octave_sizes(200, 100, Resolved(octaves=3, octave_scale=2))
    [(50, 25), (100, 50), (200, 100)]
    """
    scales = [settings.octave_scale**-i for i in reversed(range(settings.octaves))]
    return [(max(1, round(height * scale)), max(1, round(width * scale))) for scale in scales]


def dreamt(
    start: Tensor,
    gradient: Gradient,
    settings: Resolved,
    seed: int,
    on_step: Callable[[float, Tensor], None] | None,
) -> Tensor:
    """The dream of a picture [3, H, W], all checked except that the network can take it."""
    sizes = octave_sizes(start.shape[1], start.shape[2], settings)
    sizes = sizes[gradient.first_fitting([view_size(*size, settings) for size in sizes]) :]
    generator = torch.Generator().manual_seed(seed)
    x, detail = start, start.new_zeros(3, 1, 1)
    for octave, size in enumerate(sizes):
        base = resample_picture(start, *size)
        # a detail has both signs
        grown = (base + resample(detail, *size)).clamp(0, 1)
        ascent = ASCENTS[settings.parametrization](grown, settings.resolved_step_size)
        wanted = None
        if settings.alpha is not None:
            before = gradient(base[None])[0]
            # with negative weights the objective may be below 0; it then rises by the same amount
            wanted = before + (settings.alpha - 1) * abs(before)
        for step in range(settings.steps):
            x = ascent.picture
            with torch.enable_grad():
                seen = x[None].detach().requires_grad_()
                view = random_view(seen, settings, generator)
            value, slopes = gradient.apart(view.detach())
            (direction,) = torch.autograd.grad(view, seen, _balanced(slopes, gradient, settings.normalization))
            direction = natural_colors(direction[0], settings.natural_colors)
            if wanted is not None:
                direction = (value < wanted) * direction - _NEARNESS * (x - base)
            ascent.step(direction)
            if on_step is not None:
                on_step((octave + (step + 1) / settings.steps) / len(sizes), ascent.picture)
        x = ascent.picture
        detail = x - base
    return x


def _balanced(slopes: Tensor, gradient: Gradient, normalization: str) -> Tensor:
    """The normalized sum [1, 3, H, W] of the gradients of :meth:`Gradient.apart`. Those of a class and of layers grow
    by different powers of what is seen, so that each is normalized by itself and counts by its weights."""
    if normalization == "none" or len(slopes) == 1:
        return normalized(slopes.sum(0), normalization)
    most = max(gradient.kinds.values())
    parts = [
        weight / most * normalized(slope, normalization)
        for slope, weight in zip(slopes, gradient.kinds.values(), strict=True)
    ]
    return torch.stack(parts).sum(0)


class Ascent(Protocol):
    """A picture and how a step changes it."""

    def __init__(self, picture: Tensor, step_size: float) -> None: ...

    @property
    def picture(self) -> Tensor:
        """[3, H, W] in [0, 1], which later steps leave as it is."""

    def step(self, direction: Tensor) -> None:
        """Move the picture towards the direction [3, H, W]."""


class PixelAscent:
    """Steps along the direction, clipped to [0, 1]."""

    def __init__(self, picture: Tensor, step_size: float) -> None:
        self.picture, self.step_size = picture, step_size

    def step(self, direction: Tensor) -> None:
        self.picture = (self.picture + self.step_size * direction).clamp(0, 1)


class FourierAscent:
    """Steps of Adam (Kingma and Ba 2015) on the spectrum of the picture."""

    def __init__(self, picture: Tensor, step_size: float) -> None:
        self.spectrum, self.width = fourier_spectrum(picture).requires_grad_(), picture.shape[2]
        self.adam = torch.optim.Adam([self.spectrum], lr=step_size)

    @property
    def picture(self) -> Tensor:
        return fourier_picture(self.spectrum.detach(), self.width)

    def step(self, direction: Tensor) -> None:
        with torch.enable_grad():
            picture = fourier_picture(self.spectrum, self.width)
        (self.spectrum.grad,) = torch.autograd.grad(picture, self.spectrum, -direction)
        self.adam.step()


ASCENTS: dict[str, type[Ascent]] = {"pixels": PixelAscent, "fourier": FourierAscent}
