"""One problem and the ways to solve it: checked against each other, then timed in turns."""

from __future__ import annotations

import ctypes
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch

from tests.op_specs import Comparison

#: the side that the others are held against, and the one among them that one writes first
OURS, OBVIOUS = "imgops", "eager"


def check(comparison: Comparison) -> None:
    """Arrange the memory; raise AssertionError unless every side computes the same: a wrong result has no speed."""
    if comparison.memory is not None:
        _arrange_memory(comparison.memory)
    expected = _tensors(comparison.sides[OURS]())
    for side, call in comparison.sides.items():
        if side == OURS:
            continue
        for actual, wanted in zip(_tensors(call()), expected, strict=True):
            error = float((actual.detach() - wanted.detach()).norm() / wanted.detach().norm().clamp(min=1e-12))
            if not error < comparison.tolerance:
                raise AssertionError(f"{comparison.id}: {side} differs from {OURS} by {error:.1e}")


def _tensors(result: Any) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(result)


def _arrange_memory(kind: str) -> None:
    """Tell glibc, for the rest of the process, where large tensors come from; other C libraries are left alone."""
    if not sys.platform.startswith("linux"):
        return
    trim_threshold, mmap_threshold, mmap_max = -1, -3, -4
    libc = ctypes.CDLL(None)
    libc.mallopt(trim_threshold, 2**31 - 1)
    libc.mallopt(mmap_threshold, 1 << 20)
    libc.mallopt(mmap_max, 65536 if kind == "fresh" else 0)


def medians(comparison: Comparison, seconds: float, least: int = 5, *, warm: bool = False) -> dict[str, float]:
    """Median seconds of each side, timed in turns so that what else the machine does falls on all of them.

    ``warm``: each call is timed after another of its side, whose weights and threads it then finds as it left them.
    """
    check(comparison)
    times: dict[str, list[float]] = {side: [] for side in comparison.sides}
    deadline = time.perf_counter() + seconds
    while len(times[OURS]) < least or time.perf_counter() < deadline:
        for side, call in comparison.sides.items():
            if warm:
                call()
            start = time.perf_counter()
            call()
            times[side].append(time.perf_counter() - start)
    return {side: statistics.median(t) for side, t in times.items()}


#: makes the comparisons of a module
Make = Callable[[], Sequence[Comparison]]


def names(make: Make) -> list[tuple[str, str]]:
    """(problem, side) of each call to time, by their names, which a record of pytest-benchmark can hold."""
    return [(comparison.id, side) for comparison in make() for side in comparison.sides]


def time_side(benchmark: Any, make: Make, problem: str, side: str) -> None:
    """Time one side of a problem with pytest-benchmark's fixture, after all sides were checked."""
    comparison = _made(make)[problem]
    check(comparison)
    benchmark.group = comparison.id
    benchmark(comparison.sides[side])


# the tensors of one module are kept, not those of all
@lru_cache(maxsize=1)
def _made(make: Make) -> dict[str, Comparison]:
    return {comparison.id: comparison for comparison in make()}
