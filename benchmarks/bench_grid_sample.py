"""grid_sample and displace on the CPU against PyTorch's grid_sample: forward, and forward with backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import imgops

from . import eager
from .comparison import Comparison, names, time_side

#: an image, and features of a generator's middle
SHAPES = ((4, 3, 256, 256), (4, 64, 64, 64))
FORMATS = {"planar": torch.contiguous_format, "channels-last": torch.channels_last}
#: a form, and the positions that it takes
Side = tuple[Callable[[Tensor, Tensor], Tensor], Tensor]


def _displace(x: Tensor, displacement: Tensor) -> Tensor:
    return imgops.displace(x, displacement, padding_mode="zeros")


def _problems() -> Iterator[tuple[str, str, Tensor, dict[str, Side]]]:
    """(op, name, x, sides), at fields that bend the image by a few pixels; "given grid" leaves out making the grid."""
    for n, c, h, w in SHAPES:
        displacement = 4 * F.interpolate(torch.randn(n, 2, 8, 8), size=(h, w), mode="bicubic", align_corners=False)
        grid = eager.displaced_grid(displacement).requires_grad_()
        displacement.requires_grad_()
        for layout, memory_format in FORMATS.items():
            x = torch.randn(n, c, h, w).contiguous(memory_format=memory_format).requires_grad_()
            name = f"{n}x{c}x{h}x{w} {layout}"
            yield "grid_sample", name, x, {"imgops": (imgops.grid_sample, grid), "eager": (eager.grid_sample, grid)}
            given = {"eager given grid": (eager.grid_sample, grid)}
            yield (
                "displace",
                name,
                x,
                {"imgops": (_displace, displacement), "eager": (eager.displace, displacement)} | given,
            )


def _forward(x: Tensor, side: Side) -> Callable[[], Tensor]:
    call, at = side
    return torch.no_grad()(lambda: call(x, at))


def _both(x: Tensor, side: Side) -> Callable[[], Tensor]:
    """Both gradients; the one for the positions, which is for a grid or for displacements, is not compared."""
    (call, at), dy = side, x.detach()
    return lambda: torch.autograd.grad(call(x, at), [x, at], dy)[0]


def comparisons() -> list[Comparison]:
    """The problems, in both formats."""
    return [
        Comparison(op, f"{name} {direction}", {form: make(x, side) for form, side in sides.items()}, goal=1.0)
        for op, name, x, sides in _problems()
        for direction, make in (("forward", _forward), ("forward+backward", _both))
    ]


@pytest.mark.parametrize(("problem", "side"), names(comparisons))
def test_grid_sample(benchmark, problem, side):
    time_side(benchmark, comparisons, problem, side)
