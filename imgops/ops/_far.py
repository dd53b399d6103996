"""Resampling by factors and paddings so large that zeros or crops are all that most of a pass would read.

Only samples that an output reads are filtered, and only for outputs that read one. So the work is proportional to the
output; the same holds for the gradients, which swap the factors and mirror the padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ._common import known, untraced

#: from this factor or padding on, zeros and crops are left out of the pass
FAR = 1024


def is_far(up: Sequence[int], down: Sequence[int], padding: Sequence[int]) -> bool:
    """Whether a factor or padding is so large that zeros or crops may be all that a pass reads."""
    if torch.compiler.is_compiling():
        return any(known(n > FAR) for n in (*up, *down, *padding, *(-p for p in padding)))
    # asked on every call, however small
    return max(*up, *down, *padding) > FAR or min(padding) < -FAR


class Near(NamedTuple):
    """A resampling of the part of an image that is read, and the zeros (x0, x1, y0, y1) around its result."""

    rows: slice
    columns: slice
    up: tuple[int, int]
    down: tuple[int, int]
    padding: tuple[int, int, int, int]
    zeros: tuple[int, int, int, int]


@untraced
def what_is_read(
    x: Tensor, taps: tuple[int, int], up: Sequence[int], down: Sequence[int], padding: Sequence[int]
) -> Near:
    """A resampling of x by a filter of so many taps (width, height), without the samples that no output reads and the
    outputs that read none."""
    (fw, fh), (h, w) = taps, x.shape[2:]
    ax, ay = _trimmed(w, fw, up[0], down[0], *padding[:2]), _trimmed(h, fh, up[1], down[1], *padding[2:])
    return Near(
        slice(ay.begin, ay.end),
        slice(ax.begin, ax.end),
        (ax.up, ay.up),
        (ax.down, ay.down),
        (*ax.padding, *ay.padding),
        (*ax.zeros, *ay.zeros),
    )


class _Axis(NamedTuple):
    """One axis of a resampling: the samples that it reads, how, and the zeros around its result."""

    begin: int
    end: int
    up: int
    down: int
    padding: tuple[int, int]
    zeros: tuple[int, int]


def _trimmed(size: int, taps: int, up: int, down: int, before: int, after: int) -> _Axis:
    """The axis without the outputs that read no sample and the samples that no output reads; one of each stays."""
    outputs = (size * up + before + after - taps) // down + 1
    # output o reads positions o * down - before and on, `taps` of them; samples lie at multiples of up
    leading = min(outputs - 1, max(0, -((taps - 1 - before) // down)))
    last = max(leading, min(outputs - 1, ((size - 1) * up + before) // down))
    begin = max(0, -((before - leading * down) // up))
    end = min(size, (last * down - before + taps - 1) // up + 1)
    first = leading * down - before - begin * up
    if begin >= end:
        # no output reads any sample; one output that reads only zeros stands for all
        begin, end, first, leading, last = 0, min(1, size), -taps, 0, 0
    count, kept = end - begin, last - leading + 1
    up, down = (1 if count <= 1 else up), (1 if kept == 1 else down)
    padding = (-first, (kept - 1) * down + taps - count * up + first)
    return _Axis(begin, end, up, down, padding, (leading, outputs - 1 - last))
