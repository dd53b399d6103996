"""One problem and the ways to solve it: checked against each other, then timed in turns."""

from __future__ import annotations

import ctypes
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

#: the side that the others are held against
OURS = "imgops"


@dataclass(frozen=True)
class Comparison:
    """A named problem; ``sides`` maps each form's name to a call that solves it, "imgops" among them.

    The calls return a tensor, or tensors, that all sides must agree on to ``tolerance`` of their norm. (Not of the
    largest element: in float32 the sides of a kink, such as leaky ReLU's, change places for one pixel in millions.)
    ``goal``: how many times faster than the fastest other side imgops means to be. ``memory``: "fresh", each result in
    pages that the kernel maps for it, as in a training step, whose activations are freed before the next; "reused",
    results in the pages of those before; None leaves it to the C library, which changes its mind as it goes.
    """

    op: str
    name: str
    sides: Mapping[str, Callable[[], Any]]
    goal: float | None = None
    tolerance: float = 1e-4
    memory: str | None = None

    @property
    def id(self) -> str:
        return f"{self.op}: {self.name}"

    def check(self) -> None:
        """Raise AssertionError unless every side computes what imgops does: a wrong result has no speed."""
        expected = _tensors(self.sides[OURS]())
        for side, call in self.sides.items():
            for actual, wanted in zip(_tensors(call()), expected, strict=True):
                error = float((actual.detach() - wanted.detach()).norm() / wanted.detach().norm().clamp(min=1e-12))
                if not error < self.tolerance:
                    raise AssertionError(f"{self.id}: {side} differs from {OURS} by {error:.1e}")


def _tensors(result: Any) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(result)


def _arrange_memory(kind: str | None) -> None:
    """Tell glibc where tensors of 1 to 32 MiB come from, its default included; elsewhere it is left as it is."""
    if not sys.platform.startswith("linux") or kind is None:
        return
    trim_threshold, mmap_threshold = -1, -3
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_threshold, (1 if kind == "fresh" else 32) << 20)
    libc.mallopt(trim_threshold, 2**31 - 1)


def medians(comparison: Comparison, seconds: float, least: int = 5) -> dict[str, float]:
    """Median seconds of each side, timed in turns so that what else the machine does falls on all of them."""
    _arrange_memory(comparison.memory)
    comparison.check()
    times: dict[str, list[float]] = {side: [] for side in comparison.sides}
    deadline = time.perf_counter() + seconds
    while len(times[OURS]) < least or time.perf_counter() < deadline:
        for side, call in comparison.sides.items():
            start = time.perf_counter()
            call()
            times[side].append(time.perf_counter() - start)
    return {side: statistics.median(t) for side, t in times.items()}
