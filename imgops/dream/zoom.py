"""A zoom into a dream: each frame is the last one zoomed and turned, and dreamt again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._settings import accept_former_names
from ._state import evaluating, working_picture
from .objectives import AnyObjective, check_picture
from .octaves import dreamt, prepared, starting_picture
from .scales import match_scales
from .settings import ROTATE, ZOOM, DreamSettings
from .views import view_size

#: pixels along each axis that are read for one pixel of a zoomed picture
_TAPS = 8
#: pixels that are computed at once: their taps take some 50 MB
_AT_ONCE = 2**16


@accept_former_names
def zoom_frames(
    picture: Tensor | None,
    network: nn.Module,
    objectives: Sequence[AnyObjective],
    settings: DreamSettings | None = None,
    frames: int = 100,
    zoom: float = ZOOM,
    rotate: float = ROTATE,
    on_frame: Callable[[int, Tensor], None] | None = None,
    *,
    keep_colors: bool = True,
    size: int | tuple[int, int] | None = None,
    on_step: Callable[[float, Tensor], None] | None = None,
    after: tuple[int, Tensor, Tensor] | None = None,
) -> Iterator[Tensor]:
    """Frames of a zoom into a dream, one at a time: the first is the dream of the picture, each other one the dream of
    :func:`zoom_picture` of the frame before it.

    Args:
        picture, network, objectives, settings, size: as of :func:`imgops.dream.dream`. Frame i has the seed + i.
        frames: how many, 1 at least. Default 100.
        zoom, rotate: from a frame to the next; see :func:`zoom_picture`. Default 0.05 and 0.
        on_frame: called with the number of each frame, from 0, and the frame [3, H, W], before it is given out.
        keep_colors: give each frame the mean of the first one's colors, and their covariance at each scale. Without it
            the zoom blurs what is fine, and the colors become all or nothing within some ten frames. Default True.
        on_step: called after each step with the fraction of all frames that is done, and the picture [3, H', W'].
        after: go on after so many frames: their number, the first and the last of them. Default None: from the first.

    Returns:
        An iterator of [3, H, W] in [0, 1], on a CPU the same whether it begins anew or goes on. What is wrong with the
        arguments is raised before the first of them.

    Raises:
        TypeError, ValueError: as of :func:`imgops.dream.dream`; frames, zoom or rotate out of range.
    """
    if isinstance(frames, bool) or not isinstance(frames, int):
        raise TypeError(f"zoom_frames: frames must be an int; got {frames!r}")
    if frames < 1:
        raise ValueError(f"zoom_frames: frames must be >= 1; got {frames}")
    _check(zoom, rotate)
    with evaluating(network):
        gradient, chosen = prepared(network, objectives, settings)
        start = starting_picture(picture, gradient, chosen, size)
        gradient.first_fitting([view_size(start.shape[1], start.shape[2], chosen)])

    def run() -> Iterator[Tensor]:
        begin, first, frame = (0, start, start) if after is None else after
        first, frame = (working_picture(picture, network) for picture in (first, frame))
        for i in range(begin, frames):
            if i > 0:
                frame = zoom_picture(frame, zoom, rotate)
            report = None
            if on_step is not None:
                report = lambda done, x, i=i: on_step((i + done) / frames, x)  # noqa: E731
            with evaluating(network):
                frame = dreamt(frame, gradient, chosen, chosen.seed + i, report)
            if i == 0:
                first = frame
            elif keep_colors:
                frame = match_scales(frame, first)
            if on_frame is not None:
                on_frame(i, frame)
            yield frame

    return run()


def zoom_picture(picture: Tensor, zoom: float = ZOOM, rotate: float = ROTATE) -> Tensor:
    """A picture seen from nearer and turned about its middle; what was outside is reflected in.

    Args:
        picture: [3, H, W].
        zoom: the share of each side that leaves the picture, from above -1 to below 1; below 0 it shrinks. Default
            0.05.
        rotate: degrees, clockwise. Default 0.

    Returns:
        [3, H, W], interpolated by a windowed sinc of 8 x 8 pixels; the picture itself where zoom and rotate are 0. What
        is bilinear is blurred between pixels and sharp on them: frame upon frame that draws a cross through the middle,
        where the picture hardly moves.

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
    # positions in float32 would be visibly wrong where they should fall on pixels
    y = (torch.arange(height, dtype=torch.float64, device=picture.device) - (height - 1) / 2)[:, None]
    x = torch.arange(width, dtype=torch.float64, device=picture.device) - (width - 1) / 2
    from_x = near * (math.cos(angle) * x + math.sin(angle) * y) + (width - 1) / 2
    from_y = near * (math.cos(angle) * y - math.sin(angle) * x) + (height - 1) / 2
    pixels = picture.flatten(1).T.contiguous()
    parts = [
        _sampled(pixels, part_y, part_x, height, width)
        for part_y, part_x in zip(from_y.flatten().split(_AT_ONCE), from_x.flatten().split(_AT_ONCE), strict=True)
    ]
    # the overshoot at edges would grow from frame to frame
    return torch.cat(parts).T.reshape(picture.shape).clamp(picture.min(), picture.max())


def _sampled(pixels: Tensor, y: Tensor, x: Tensor, height: int, width: int) -> Tensor:
    """A picture's colors [height * width, 3] at places y, x [N], in pixels: [N, 3]."""
    rows, shares_y = _taps(y, height)
    columns, shares_x = _taps(x, width)
    index = (rows[:, :, None] * width + columns[:, None]).flatten(1)
    shares = (shares_y[:, :, None] * shares_x[:, None]).flatten(1)
    return F.embedding_bag(index, pixels, per_sample_weights=shares.to(pixels), mode="sum")


def _taps(places: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The pixels along an axis that are read for places [N], reflected at its ends, and their shares; [N, 8] each."""
    whole = places.floor()
    steps = torch.arange(1 - _TAPS // 2, _TAPS // 2 + 1, device=places.device)
    distance = steps - (places - whole)[:, None]
    shares = torch.sinc(distance) * torch.cos(math.pi * distance / _TAPS)
    shares /= shares.sum(1, keepdim=True)
    # the two nearest taps make up for what the window takes from a ramp
    lost = (shares * distance).sum(1)
    shares[:, _TAPS // 2 - 1] += lost
    shares[:, _TAPS // 2] -= lost
    index = (whole.long()[:, None] + steps) % max(1, 2 * size - 2)
    return torch.minimum(index, 2 * size - 2 - index).abs(), shares


def _check(zoom: float, rotate: float) -> None:
    for name, value, bound in (("zoom", zoom, 1.0), ("rotate", rotate, math.inf)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"zoom_frames: {name} must be a number; got {value!r}")
        if not -bound < value < bound:
            allowed = "finite" if bound == math.inf else f"above {-bound} and below {bound}"
            raise ValueError(f"zoom_frames: {name} must be {allowed}; got {value}")
