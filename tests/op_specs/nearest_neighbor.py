"""The fact sheet of nearest_neighbor."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import imgops
from imgops.reference import nearest_neighbor as reference

from . import _sheet as s
from ._random import Pick, RandomCall, strided

#: channels, queries and keys of make bench: hypercolumns of pictures of 256 to 512 pixels
HYPERCOLUMNS = ((128, 4096, 4096), (512, 4096, 4096), (1024, 4096, 4096), (2048, 4096, 4096), (512, 16384, 4096))


def _run(impl: str | None, x: Tensor, y: Tensor) -> Tensor:
    return imgops.nearest_neighbor(x, y, impl=impl)[0]


def similarities(x: Tensor, y: Tensor) -> Tensor:
    """All of them [N, Q, K], in float64."""
    return reference.unit(x.double())[0].mT @ reference.unit(y.double())[0]


def _random(pick: Pick, dtype: torch.dtype) -> RandomCall:
    n, c = pick.integer(0, 2), pick.integer(1, 80)
    x = strided(pick, (n, c, pick.integer(0, 70)), dtype)
    y = strided(pick, (pick.one([1, n]), c, pick.integer(1, 70)), dtype)
    apart = similarities(x, y).topk(min(2, y.shape[2]), 2).values
    # rounding decides between two keys that are equally near, each of which has its own gradient
    clear = y.shape[2] == 1 or bool((apart[..., 0] - apart[..., 1] > 1e-4).all())
    return RandomCall(_run, [x, y], smooth=clear)


def eager(x: Tensor, y: Tensor) -> Tensor:
    """As one writes it first; the index comes with the maximum."""
    return (F.normalize(x, dim=1).mT @ F.normalize(y, dim=1)).max(2).values


def eager_blocks(x: Tensor, y: Tensor) -> Tensor:
    """Blocks of queries, so that the similarities stay in cache; without gradient."""
    queries, keys = F.normalize(x, dim=1).mT, F.normalize(y, dim=1)
    return torch.cat([(block @ keys).max(2).values for block in queries.split(512, 1)], 1)


def _vectors(shape: s.Shape, dtype: torch.dtype, device: str | torch.device = "cpu") -> list[Tensor]:
    """x [N, C, Q] and y [N, C, K] of a shape (N, C, Q, K)."""
    n, c, queries, keys = shape
    return [torch.randn(n, c, count, device=device).to(dtype) for count in (queries, keys)]


def _of_features(impl: str | None, x: Tensor, y: Tensor) -> Tensor:
    """The pixels of features x [N, C, H, W] as queries."""
    return _run(impl, x.flatten(2), y)


def _problem(shape: s.Shape, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> s.Made:
    """Features [N, C, H, W] and K keys of a shape (N, C, H, W, K)."""
    n, c, *_, keys = shape
    x, y = s.image(shape[:4], dtype, device), s.image((n, c, keys), dtype, device)
    return [x, y], _of_features


def _case(shape: s.Shape, dtype: torch.dtype) -> s.Case:
    def make(device: torch.device) -> s.Kwargs:
        return dict(zip(("x", "y"), _vectors(shape, dtype, device), strict=True))

    n, c, queries, keys = shape
    vectors, product = n * c * (queries + keys) * dtype.itemsize, 2 * math.prod(shape)
    # forward: x, y, and a similarity and an index per query; backward: both again, and their gradients
    size = (vectors + 12 * n * queries, 3 * vectors + 16 * n * queries)
    # PyTorch's products of float32 are not in TF32
    rate = "float32" if dtype == torch.float32 else s.product_rate(dtype)
    return s.Case(
        "nearest_neighbor", s.label(shape, dtype, False), make, ("x", "y"), size, (product, product), dtype, rate
    )


_CASES = s.cases_of(
    _case((1, 4, 6, 5), s.SINGLE),
    _case((1, 512, 4096, 4096), s.SINGLE),
    _case((1, 512, 4096, 4096), torch.bfloat16),
    _case((1, 1024, 16384, 16384), torch.bfloat16),
)
FORMS: dict[str, s.Form] = {"eager": eager, "eager blocks": eager_blocks}


def _comparisons() -> list[s.Comparison]:
    rows, forms = [], {"imgops": lambda x, y: _run(None, x, y), **FORMS}
    for c, queries, keys in HYPERCOLUMNS:
        # as a network's features are: not negative, many of them zero, and less their mean
        x, y = (torch.relu(torch.randn(1, c, count)) for count in (queries, keys))
        kwargs = {"x": x - x.mean(2, keepdim=True), "y": y - y.mean(2, keepdim=True)}
        rows.append(
            s.Comparison(
                "nearest_neighbor", f"1x{c}x{queries} in {keys}", s.forward(forms, kwargs), goal=3, memory="reused"
            )
        )
    return rows


def _launches(dtype: torch.dtype, channels_last: bool) -> Iterator[s.Launch]:
    x = s.unread((1, 512, 64, 64), dtype, channels_last).flatten(2)
    yield s.Launch("nearest_neighbor", "nearest_neighbor.nearest_neighbor", (x, x))


def _pictures() -> dict[str, nn.Module]:
    return {"nearest_neighbor": s.Called(partial(_of_features, None), y=torch.randn(1, s.CHANNELS, 9))}


SHEET = s.Sheet(
    calls={
        "nearest_neighbor": s.Call(
            _run, {"x": "NCH", "y": "NCO"}, {"N": 2, "C": 4, "H": 3, "O": 3}, frozenset({"x", "y"})
        )
    },
    sized={
        "nearest_neighbor": s.Call(_run, {"x": "NCH", "y": "NCO"}, {}),
        "nearest_neighbor, keys for all": s.Call(_run, {"x": "NCH", "y": "1CO"}, {}),
    },
    random=_random, forms=FORMS, pictures=_pictures, cases=_CASES, launches=_launches, comparisons=_comparisons,
    problems=s.of_shapes([(2, 5, 7, 3, 6), (1, 70, 9, 11, 150), (3, 33, 5, 8, 31)], _problem),
    schemas={"nearest_neighbor": lambda: (s.values(2, 4, 5), s.values(2, 4, 6))},
    products={"nearest_neighbor": lambda x, y: x.mT @ y},
    tolerance=s.SEVERAL_ROUNDINGS,
)  # fmt: skip
