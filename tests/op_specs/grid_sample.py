"""The fact sheet of grid_sample, with what it shares with displace."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import imgops

from . import _sheet as s
from ._random import Pick, RandomCall, random_image, sides, strided
from .bias_act import LAUNCH_SHAPE

#: on which the backends are checked
SAMPLED = [(2, 3, 9, 6), (2, 37, 6, 9)]
#: of make bench: an image, and features of a generator's middle
PICTURES = ((4, 3, 256, 256), (4, 64, 64, 64))
LAYOUTS = ("planar", "channels-last")
#: a form, and the positions that it takes
Side = tuple[Callable[[Tensor, Tensor], Tensor], Tensor]


def away_from_pixels(places: Tensor) -> bool:
    """Whether these positions, in pixels, are between the centers of pixels, where the slope of a sample jumps."""
    places = places.double()
    return bool(((places - places.round()).abs() > 1e-4 + 1e-6 * places.abs()).all())


def _random(pick: Pick, dtype: torch.dtype) -> RandomCall:
    x = random_image(pick, dtype)
    # at a position that another dtype rounds, the sample is another
    acc_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    grid = strided(pick, (x.shape[0], *sides(pick), 2), acc_dtype, pick.one([0.5, 0.5, 2.0, 1e4]))
    places = ((grid.double() + 1) * torch.tensor([x.shape[3], x.shape[2]]) - 1) / 2
    return RandomCall(
        lambda impl, x, grid: imgops.grid_sample(x, grid, impl=impl), [x, grid], smooth=away_from_pixels(places)
    )


def eager(x: Tensor, grid: Tensor) -> Tensor:
    """PyTorch's own, which takes a grid of the image's dtype."""
    return F.grid_sample(x, grid.to(x.dtype), align_corners=False)


def displaced_grid(displacement: Tensor) -> Tensor:
    """The grid of grid_sample for a displacement [N, 2, H, W] in pixels."""
    h, w = displacement.shape[2:]
    along_x, along_y = ((torch.arange(size, device=displacement.device) * 2 + 1) / size - 1 for size in (w, h))
    return torch.stack([displacement[:, 0] * (2 / w) + along_x, displacement[:, 1] * (2 / h) + along_y[:, None]], -1)


def off_center(size: s.Shape, most: int, device: str, dtype: torch.dtype) -> Tensor:
    """Random numbers in [-most, most + 1], away from whole ones, where the slope of bilinear samples jumps."""
    return torch.randint(-most, most + 1, size, device=device).to(dtype) + 0.1 + 0.8 * torch.rand(size, device=device)


def _problem(shape: s.Shape, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> s.Made:
    n, _, h, w = shape
    pixels = (off_center((n, h + 1, w), side + 2, device, acc_dtype) for side in (w, h))
    grid = torch.stack([(2 * at + 1) / side - 1 for at, side in zip(pixels, (w, h), strict=True)], -1)
    return [s.image(shape, dtype, device), grid], lambda backend, x, grid: imgops.grid_sample(x, grid, impl=backend)


def _problems(dry: bool) -> Iterator[s.Problem]:
    # a pixel's gradients are added in one order, or in any
    for shape, deterministic in itertools.product(SAMPLED[: 1 if dry else None], (True, False)):
        yield s.Problem(str(shape) if deterministic else f"{shape}/atomic", partial(_problem, shape), deterministic)


def displacement(shape: s.Shape, device: str | torch.device) -> Tensor:
    """A smooth displacement by a few pixels, [N, 2, H, W] for an image of this shape."""
    coarse = torch.randn(shape[0], 2, 8, 8, device=device)
    return 4 * F.interpolate(coarse, size=shape[2:], mode="bicubic", align_corners=False)


def sampling_cases(
    op: str, places: str, make: Callable[[s.Shape, torch.device], s.Kwargs]
) -> Callable[[bool], list[s.Case]]:
    """Bilinear samples at places some pixels away, which ``make`` gives by the name ``places``."""

    def case(shape: s.Shape, dtype: torch.dtype, channels_last: bool = False) -> s.Case:
        def arguments(device: torch.device) -> s.Kwargs:
            return {"x": s.image(shape, dtype, device, channels_last), **make(shape, device)}

        n, _, h, w = shape
        pixels, where = math.prod(shape) * dtype.itemsize, n * 2 * h * w * 4
        # backward: dy, x, dx, the places and their gradient
        bytes = 2 * pixels + where, 5 * pixels + 3 * where
        return s.Case(op, s.label(shape, dtype, channels_last), arguments, ("x", places), bytes, (0, 0), dtype)

    return s.cases_of(
        case((1, 2, 8, 8), torch.float32),
        case((16, 3, 256, 256), torch.float32),
        case((16, 64, 128, 128), torch.float16),
        case((16, 64, 128, 128), torch.float16, channels_last=True),
    )


def _grid(shape: s.Shape, device: torch.device) -> s.Kwargs:
    return {"grid": displaced_grid(displacement(shape, device))}


def compare(op: str, sides: Callable[[Tensor], dict[str, Side]]) -> list[s.Comparison]:
    """The rows in both layouts, at fields that bend the image by a few pixels; ``sides`` makes forms of a field.

    The gradient for the positions, which is for a grid or for displacements, is not compared.
    """

    def forward(x: Tensor, side: Side) -> Callable[[], Tensor]:
        call, at = side
        return torch.no_grad()(lambda: call(x, at))

    def both(x: Tensor, side: Side) -> Callable[[], Tensor]:
        (call, at), dy = side, x.detach()
        return lambda: torch.autograd.grad(call(x, at), [x, at], dy)[0]

    rows = []
    for shape in PICTURES:
        forms = sides(displacement(shape, "cpu"))
        for layout, (direction, make) in itertools.product(LAYOUTS, (("forward", forward), ("forward+backward", both))):
            x = s.image(shape, torch.float32, "cpu", layout == "channels-last").requires_grad_()
            calls = {name: make(x, side) for name, side in forms.items()}
            rows.append(s.Comparison(op, f"{'x'.join(map(str, shape))} {layout} {direction}", calls, goal=1.0))
    return rows


def _sides(field: Tensor) -> dict[str, Side]:
    grid = displaced_grid(field).requires_grad_()
    return {"imgops": (imgops.grid_sample, grid), "eager": (eager, grid)}


def _pictures() -> dict[str, nn.Module]:
    return {"grid_sample": s.Called(lambda x: imgops.grid_sample(x, x[:, :2].permute(0, 2, 3, 1).tanh()))}


def places(*shape: int) -> Tensor:
    """Positions away from the centers of pixels, where the slope jumps: in pixels, and as a grid of a 4 x 4 image."""
    return torch.rand(shape, dtype=torch.float64) * 0.4 + 0.3


def _run(impl: str, x: Tensor, grid: Tensor) -> Tensor:
    return imgops.grid_sample(x, grid, impl=impl)


def launches(op: str, mode: str, dtype: torch.dtype, channels_last: bool) -> Iterator[s.Launch]:
    """The op and its backward."""
    n, _, h, w = LAUNCH_SHAPE
    displaced, no_derivative = op == "displace", (0, 0)
    x, at = s.unread(LAUNCH_SHAPE, dtype, channels_last), torch.empty((n, 2, h, w) if displaced else (n, h, w, 2))
    yield s.Launch(op, "grid_sample.grid_sample", (x, at, displaced, mode, no_derivative), tested=not displaced)
    arguments = x, x, at, x.shape, displaced, "border", no_derivative, True, True
    backward = s.Launch(f"{op}_backward", "grid_sample.grid_sample_backward", arguments, tested=not displaced)
    yield backward
    if displaced:
        yield backward._replace(name=f"{op}_backward, deterministic", deterministic=True)


FORMS: dict[str, s.Form] = {"eager": eager}
_AT = (False, "zeros", [0, 0])
SHEET = s.Sheet(
    calls={
        "grid_sample": s.Call(
            # an image of 4 x 4, at places between its pixels
            lambda impl, x, grid: _run(impl, x, grid.tanh() * 0.1 + 0.5),
            {"x": "NCHW", "grid": "1232"},
            {"N": 1, "C": 2, "H": 4, "W": 4},
            frozenset({"x"}),
        )
    },
    sized={"grid_sample": s.Call(_run, {"x": "NCHW", "grid": "NOO2"}, {})},
    random=_random, forms=FORMS, pictures=_pictures, problems=_problems,
    cases=sampling_cases("grid_sample", "grid", _grid),
    launches=partial(launches, "grid_sample", "zeros"),
    comparisons=lambda: compare("grid_sample", _sides),
    schemas={
        "grid_sample": lambda: (s.values(1, 2, 4, 4), places(1, 3, 3, 2), *_AT),
        "grid_sample: displaced": lambda: (s.values(2, 3, 4, 5), places(2, 2, 4, 5), True, "border", [1, 0]),
        "grid_sample_backward": lambda: (
            s.values(1, 2, 5, 4), s.values(1, 2, 5, 4), places(1, 2, 5, 4), [1, 2, 5, 4], True, "border", [0, 0],
            True, True,
        ),
        "grid_sample_backward: for the image": lambda: (
            s.values(2, 3, 3, 2), None, places(2, 3, 2, 2), [2, 3, 4, 5], *_AT, True, False,
        ),
        "grid_sample_backward: for the grid": lambda: (
            s.values(2, 3, 3, 2), s.values(2, 3, 4, 5), places(2, 3, 2, 2), [2, 3, 4, 5], *_AT, False, True,
        ),
    },
)  # fmt: skip
