"""A video dreamt: each frame begins with what was dreamt into the last one, carried along as the picture moves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ..data.video.flow import occlusion, optical_flow, warp
from ._state import evaluating, working_picture
from .objectives import AnyObjective
from .octaves import dreamt, prepared, starting_picture
from .settings import DreamSettings

#: the share of the last frame's dream that the next one begins with; its own steps make up for the rest
_CARRIED = 0.7


def dream_frames(
    frames: Iterable[Tensor],
    network: nn.Module,
    objectives: Sequence[AnyObjective],
    settings: DreamSettings | None = None,
    *,
    size: int | None = None,
    before: tuple[Tensor, Tensor] | None = None,
    on_step: Callable[[float, Tensor], None] | None = None,
) -> Iterator[Tensor]:
    """The dream of each frame of a video, one at a time, each going on from the last.

    A frame begins with 0.7 of the detail that was dreamt into the frame before, moved as the picture moves (TV-L1
    optical flow), where the frame before shows that place; its steps are 0.3 as large as those of a single dream. So a
    dream continues from frame to frame, and is as strong in every one.

    Args:
        frames: [3, H, W] of one size, RGB in [0, 1].
        network, objectives, settings: as of :func:`imgops.dream.dream`. Every frame has the same seed.
        size: longer side of the result in pixels. Default: the frames'.
        before: to go on: the frame before the first one, and its dream. Default None.
        on_step: called after each step with the fraction of the frame that is done, and the picture [3, H', W'].

    Returns:
        An iterator of [3, H', W'] in [0, 1], on a CPU the same whether it begins anew or goes on. What is wrong with
        network, objectives and settings is raised before the first of them.

    Raises:
        TypeError, ValueError: as of :func:`imgops.dream.dream`.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> frames = dream_frames(torch.rand(2, 3, 24, 32), network, [Objective("1")], DreamSettings(steps=1))
    >>> [frame.shape for frame in frames]
    [torch.Size([3, 24, 32]), torch.Size([3, 24, 32])]
    """
    with evaluating(network):
        gradient, chosen = prepared(network, objectives, settings)
    later = dataclasses.replace(chosen, intensity=chosen.intensity * (1 - _CARRIED))

    def run() -> Iterator[Tensor]:
        last = None
        if before is not None:
            with evaluating(network):
                last = starting_picture(before[0], gradient, chosen, size), working_picture(before[1], network)
        for frame in frames:
            with evaluating(network):
                start = small = starting_picture(frame, gradient, chosen, size)
            if last is not None:
                start = (small + _CARRIED * _carried(last[1] - last[0], last[0], small)).clamp(0, 1)
            with evaluating(network):
                result = dreamt(start, gradient, chosen if last is None else later, chosen.seed, on_step)
            last = small, result
            yield result

    return run()


def _carried(dream: Tensor, before: Tensor, now: Tensor) -> Tensor:
    """The detail dreamt into the frame before, moved to this frame; zero at places that only this frame shows."""
    backward = optical_flow(before, now)
    hidden = occlusion(optical_flow(now, before), backward)
    return torch.where(hidden, torch.zeros_like(dream), warp(dream, backward.to(dream)))
