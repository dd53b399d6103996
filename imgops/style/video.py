"""A video in a style: each frame of "optimize" and "nnst" begins with the last one's result, moved along."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from ..data.pictures import resize_picture
from ..data.video.flow import occlusion, optical_flow, warp
from .optimization import check_picture
from .prepared import DESCENDING, PreparedTransfer
from .transfer import Transfer


def stylize_frames(
    frames: Iterable[Tensor],
    transfer: Transfer,
    styles: Sequence[Tensor],
    *,
    masks: Sequence[Tensor] | None = None,
    style_masks: Sequence[Tensor | None] | None = None,
    before: tuple[Tensor, Tensor] | None = None,
) -> Iterator[Tensor]:
    """Each frame of a video in the styles, one at a time.

    With the methods "optimize" and "nnst" (Ruder et al. 2016) the first frame is made as a picture is, and each other
    begins with the result of the frame before, moved as the picture moves (TV-L1 optical flow), where the frame before
    shows it, and with its own content elsewhere; it takes ``frame_steps`` steps. The other methods make each frame by
    itself.

    Args:
        frames: [3, H, W] of one size, RGB in [0, 1].
        transfer: the method; its settings say the size of the result.
        styles, masks, style_masks: as a call of :class:`~imgops.style.Transfer` takes them, for all frames.
        before: to go on: the frame before the first one, and its result. Default None.

    Returns:
        An iterator of [3, H', W'] in [0, 1] on the CPU, on a CPU the same whether it begins anew or goes on.

    Raises:
        OutOfMemory, TypeError, ValueError: as a call of :class:`~imgops.style.Transfer`, when the frame is made.

    >>> from imgops.style import TransferSettings
    >>> transfer = Transfer(TransferSettings(method="fast", size=32), ["hubble"])
    >>> [frame.shape for frame in stylize_frames(torch.rand(2, 3, 36, 48), transfer, [])]
    [torch.Size([3, 24, 32]), torch.Size([3, 24, 32])]
    """
    last = None if before is None else (_sized(before[0], transfer), before[1])
    prepared: PreparedTransfer | None = None
    for frame in frames:
        small, init = _sized(frame, transfer), None
        if last is not None and transfer.settings.method in DESCENDING:
            init = _carried(last[1], last[0], small)
        if prepared is None or prepared.shape != small.shape:
            prepared = transfer.prepare(small, styles, masks, style_masks)
        else:
            check_picture("content", small)
        result = prepared(small, init=init)
        last = small, result
        yield result


def _sized(frame: Tensor, transfer: Transfer) -> Tensor:
    return resize_picture(frame, transfer.size_of(frame))


def _carried(result: Tensor, before: Tensor, now: Tensor) -> Tensor:
    """The result of the frame before at the places of this one; the frame itself where that one did not show it."""
    backward = optical_flow(before, now)
    hidden = occlusion(optical_flow(now, before), backward)
    return torch.where(hidden, now, warp(result, backward).clamp(0, 1))
