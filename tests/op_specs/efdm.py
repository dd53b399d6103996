"""The fact sheet of efdm."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import imgops

from . import _sheet as s
from ._random import Pick, RandomCall, random_image, strided
from .adain import FEATURES

#: as large as the style, larger, smaller, of one pixel, and of more than one block and one sort of Triton's
MATCHED = [(2, 3, 6, 7), (1, 5, 9, 13), (2, 3, 3, 2), (2, 2, 1, 1), (1, 2, 53, 41)]


def _random(pick: Pick, dtype: torch.dtype) -> RandomCall:
    x = random_image(pick, dtype, largest=pick.one([9, 40]))
    n, c = x.shape[:2]
    side = pick.one([9, 40])
    y = strided(pick, (pick.one([n, 1]), c, pick.integer(1, side), pick.integer(1, side)), dtype)
    alpha = pick.one([1.0, 1.0, 0.3, 0.0])
    return RandomCall(lambda impl, x, y: imgops.efdm(x, y, alpha=alpha, impl=impl), [x, y])


def eager(x: Tensor, y: Tensor) -> Tensor:
    """The formula, as the authors have it."""
    flat = x.flatten(2)
    ranks = flat.argsort(-1).argsort(-1)
    values = y.to(x.dtype).flatten(2).sort(-1).values
    return (flat + (values.gather(-1, ranks) - flat.detach())).view_as(x)


def eager_scatter(x: Tensor, y: Tensor) -> Tensor:
    """Two sorts, and one scatter in place of the third sort."""
    flat = x.flatten(2)
    order, values = flat.argsort(-1), y.to(x.dtype).flatten(2).sort(-1).values
    matched = torch.zeros_like(flat).scatter(-1, order, values)
    return (flat + (matched - flat.detach())).view_as(x)


def _problem(shape: s.Shape, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> s.Made:
    style = s.image((*shape[:2], 6, 7), dtype, device) * 2 + 1
    return [s.image(shape, dtype, device), style], lambda backend, x, y: imgops.efdm(x, y, alpha=0.7, impl=backend)


def _case(shape: s.Shape, dtype: torch.dtype, channels_last: bool = False) -> s.Case:
    def make(device: torch.device) -> s.Kwargs:
        return {name: s.image(shape, dtype, device, channels_last) for name in ("x", "y")}

    # forward: x, y and the result; backward: its gradient, both orders, and the gradient of y
    return s.image_case("efdm", shape, dtype, channels_last, make, ("x", "y"), images=(3, 7))


_CASES = s.cases_of(
    _case((1, 2, 6, 6), s.SINGLE),
    _case((8, 512, 32, 32), s.SINGLE),
    _case((8, 512, 32, 32), s.HALF),
    _case((8, 512, 64, 64), s.HALF, channels_last=True),
)


def distinct(shape: s.Shape, channels_last: bool) -> Tensor:
    """An image whose pixels all differ within a channel: the plain forms sort equal ones in any order, and the gradient
    for y tells."""
    ranks = torch.rand(shape).flatten(2).argsort(-1).view(shape)
    x = (ranks + 0.9 * torch.rand(shape)) / ranks[0, 0].numel() - 0.5
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _comparisons() -> list[s.Comparison]:
    rows = []
    forms: dict[str, s.Form] = {"imgops": imgops.efdm, **FORMS}
    for layout in ("nchw", "nhwc"):
        kwargs = {name: distinct(FEATURES, layout == "nhwc") for name in ("x", "y")}
        name = f"4x256x64x64 {layout}"
        rows += [
            s.Comparison("efdm", f"{name} forward", s.forward(forms, kwargs), goal=3.0),
            s.Comparison("efdm", f"{name} forward+backward", s.both(forms, kwargs, ("x", "y")), goal=3.0),
        ]
    return rows


def _pictures() -> dict[str, nn.Module]:
    return {"efdm": s.Called(lambda x: imgops.efdm(x, 2 * x[:, :, 1:].contiguous()))}


def _run(impl: str, x: Tensor, y: Tensor) -> Tensor:
    return imgops.efdm(x, y, alpha=0.7, impl=impl)


def _launches(dtype: torch.dtype, channels_last: bool) -> Iterator[s.Launch]:
    # the most pixels but one power of 2 that a program sorts
    x = s.unread((8, 512, 32, 32), dtype, channels_last)
    yield s.Launch("efdm of 32x32", "efdm.efdm", (x, x, 1.0, False))


FORMS: dict[str, s.Form] = {"eager": eager, "eager scatter": eager_scatter}
SHEET = s.Sheet(
    calls={"efdm": s.Call(_run, {"x": "NCHW", "y": "1CWH"}, {"N": 2, "C": 2, "H": 3, "W": 2})},
    sized={"efdm": s.Call(_run, {"x": "NCHW", "y": "NCOO"}, {})},
    random=_random, forms=FORMS, pictures=_pictures, cases=_CASES, launches=_launches, comparisons=_comparisons,
    problems=s.of_shapes(MATCHED, _problem),
    schemas={
        "efdm": lambda: (s.values(2, 2, 3, 2), s.values(1, 2, 2, 4), 0.7, True),
        "efdm: of one size, nothing kept": lambda: (s.values(2, 2, 3, 2), s.values(2, 2, 3, 2), 1.0, False),
        "sort_rows": lambda: (s.values(2, 3, 7),),
    },
)  # fmt: skip
