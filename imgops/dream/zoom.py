"""A dream that one falls into: each frame is the last one zoomed and turned, and dreamt again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ..ops.adain import adain
from ..ops.displace import displace
from ._state import evaluating
from .gradient import Gradient
from .objectives import GuidedObjective, Objective, check_picture
from .octaves import dreamt, starting_picture
from .settings import DreamSettings


def zoom_frames(
    picture: Tensor | None,
    network: nn.Module,
    objectives: Sequence[Objective | GuidedObjective],
    settings: DreamSettings | None = None,
    frames: int = 100,
    zoom: float = 0.05,
    rotate: float = 0.0,
    on_frame: Callable[[int, Tensor], None] | None = None,
    *,
    keep_colours: bool = True,
    size: int | tuple[int, int] | None = None,
    on_step: Callable[[float, Tensor], None] | None = None,
) -> Iterator[Tensor]:
    """Frames of a zoom into a dream, one at a time: the first is the dream of the picture, each other one the dream of
    :func:`zoom_picture` of the frame before it.

    Args:
        picture, network, objectives, settings, size: as of :func:`imgops.dream.dream`. Frame i has the seed + i.
        frames: how many, 1 at least. Default 100.
        zoom, rotate: from a frame to the next; see :func:`zoom_picture`. Default 0.05 and 0.
        on_frame: called with the number of each frame, from 0, and the frame [3, H, W], before it is given out.
        keep_colours: give each zoomed frame the mean and standard deviation of the first frame's red, green and blue
            before it is dreamt again. Otherwise the dream feeds on itself until its colours are all or nothing, within
            some ten frames. Default True.
        on_step: called after each step with the fraction of all frames that is done, and the picture [3, H', W'].

    Returns:
        An iterator of [3, H, W] in [0, 1]. What is wrong with the arguments is raised before the first of them.

    Raises:
        TypeError, ValueError: as of :func:`imgops.dream.dream`; frames, zoom or rotate out of range.
    """
    settings = DreamSettings() if settings is None else settings
    if isinstance(frames, bool) or not isinstance(frames, int):
        raise TypeError(f"zoom_frames: frames must be an int; got {frames!r}")
    if frames < 1:
        raise ValueError(f"zoom_frames: frames must be >= 1; got {frames}")
    _check(zoom, rotate)
    start = starting_picture(picture, network, settings, size)
    with evaluating(network):
        gradient = Gradient(network, objectives, settings.tile)
        gradient.first_fitting([(start.shape[1], start.shape[2])])

    def run() -> Iterator[Tensor]:
        frame = first = start
        for i in range(frames):
            if i > 0:
                frame = zoom_picture(frame, zoom, rotate)
                if keep_colours:
                    frame = adain(frame[None], first[None])[0].clamp(0, 1)
            report = None
            if on_step is not None:
                report = lambda done, x, i=i: on_step((i + done) / frames, x)  # noqa: E731
            with evaluating(network):
                frame = dreamt(frame, gradient, settings, settings.seed + i, report)
            first = frame if i == 0 else first
            if on_frame is not None:
                on_frame(i, frame)
            yield frame

    return run()


def zoom_picture(picture: Tensor, zoom: float = 0.05, rotate: float = 0.0) -> Tensor:
    """A picture seen from nearer and turned about its middle; what was outside is reflected in.

    Args:
        picture: [3, H, W].
        zoom: the share of each side that leaves the picture, from above -1 to below 1; below 0 it shrinks. Default
            0.05.
        rotate: degrees, clockwise. Default 0.

    Returns:
        [3, H, W], bilinear; the picture itself where zoom and rotate are 0.

    Raises:
        TypeError, ValueError: a picture of another shape; zoom or rotate out of range.

    >>> zoom_picture(torch.rand(3, 20, 30), 0.5).shape
    torch.Size([3, 20, 30])
    """
    check_picture("zoom_picture", "picture", picture)
    _check(zoom, rotate)
    if zoom == 0 and rotate % 360 == 0:
        return picture
    height, width = picture.shape[1:]
    angle, near = math.radians(rotate), 1 - zoom
    dtype = torch.float64 if picture.dtype == torch.float64 else torch.float32
    y = (torch.arange(height, dtype=dtype, device=picture.device) - (height - 1) / 2)[:, None]
    x = torch.arange(width, dtype=dtype, device=picture.device) - (width - 1) / 2
    along_x = near * (math.cos(angle) * x + math.sin(angle) * y) - x
    along_y = near * (math.cos(angle) * y - math.sin(angle) * x) - y
    displacement = torch.stack([along_x, along_y])[None]
    return displace(picture[None], displacement, padding_mode="reflection")[0].clamp(0, 1)


def _check(zoom: float, rotate: float) -> None:
    for name, value, bound in (("zoom", zoom, 1.0), ("rotate", rotate, math.inf)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"zoom_frames: {name} must be a number; got {value!r}")
        if not -bound < value < bound:
            raise ValueError(f"zoom_frames: {name} must be above {-bound} and below {bound}; got {value}")
