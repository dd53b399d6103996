"""Two functions timed in turns, so that other work of the machine slows both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def compare(first: Callable[[], object], second: Callable[[], object], budget: float) -> tuple[float, float]:
    """Median seconds of two functions, measured in turns.

    Args:
        first, second: what to time.
        budget: seconds for both together; each runs at least once after a warm-up, whatever that takes.

    Returns:
        (seconds of first, seconds of second).
    """
    both = first, second
    for function in both:
        _seconds(function)
    times: tuple[list[float], list[float]] = ([], [])
    deadline = time.perf_counter() + budget
    while not times[0] or time.perf_counter() < deadline:
        for function, kept in zip(both, times, strict=True):
            kept.append(_seconds(function))
    return statistics.median(times[0]), statistics.median(times[1])


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        # kernels run asynchronously, so the clock waits for them
        torch.cuda.synchronize()
    return time.perf_counter() - start
