"""Medians of timings on a device: CUDA graphs, inputs rotated past the L2 cache, and the ceilings of the card."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

#: bytes of inputs that a rotation may take
MOST_BYTES = 12 << 30


class Clock:
    """Times callables on a device.

    Args:
        device: where they run.
        dry: one repetition, to run the logic and not to measure.
    """

    def __init__(self, device: str, dry: bool) -> None:
        self.device, self.dry = torch.device(device), dry
        self.on_gpu = self.device.type == "cuda"

    def rotation(self, bytes_each: int) -> int:
        """How many sets of inputs of so many bytes to cycle through, so that none is still in the L2 cache."""
        if self.dry or bytes_each == 0:
            return 2
        cache = torch.cuda.get_device_properties(self.device).L2_cache_size if self.on_gpu else 1 << 25
        wanted = 2 * cache // max(bytes_each, 1) + 2
        return int(max(2, min(wanted, 64, MOST_BYTES // max(bytes_each, 1))))

    def measure(
        self, functions: Sequence[Callable[[], Any]], budget: float = 0.3, graph: bool = True
    ) -> dict[str, Any]:
        """Median seconds of one call, over rounds through all the functions.

        Args:
            functions: the same work on different inputs.
            budget: seconds of repetitions.
            graph: capture a round as a CUDA graph, so that the time of launches drops out; where that fails, the
                round is launched call by call, and the result says why.
        """
        if not self.on_gpu:
            return self._on_cpu(functions, budget)
        note = {}
        for function in functions:
            function()
        replay = None
        if graph:
            try:
                replay = _captured(functions, self.device)
            except RuntimeError as error:
                note = {"no_graph": str(error).splitlines()[0][:200]}
                # a capture that fails may leave its own stream behind
                torch.cuda.set_stream(torch.cuda.default_stream(self.device))
        run = replay or (lambda: [f() for f in functions] and None)
        run()
        torch.cuda.synchronize(self.device)
        times: list[float] = []
        end = time.perf_counter() + budget
        # at least five rounds, but fewer of slow functions
        while not times or time.perf_counter() < (end + 2 if len(times) < 5 else end if len(times) < 500 else 0):
            start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            run()
            stop.record()
            stop.synchronize()
            times.append(start.elapsed_time(stop) / 1e3 / len(functions))
        return {"seconds": statistics.median(times), "rounds": len(times), "graph": replay is not None, **note}

    def _on_cpu(self, functions: Sequence[Callable[[], Any]], budget: float) -> dict[str, Any]:
        times = []
        end = time.perf_counter() + (0 if self.dry else budget)
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            for function in functions:
                function()
            times.append((time.perf_counter() - start) / len(functions))
        return {"seconds": statistics.median(times), "rounds": len(times), "graph": False}

    def free(self) -> None:
        """Give memory back between cases."""
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()


def _captured(functions: Sequence[Callable[[], Any]], device: torch.device) -> Callable[[], None]:
    """One round of the functions as a graph; replaying it needs no Python but the launch."""
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(2):
            for function in functions:
                function()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for function in functions:
            function()
    return graph.replay


def _copy_rate(clock: Clock) -> dict[str, float]:
    """Bytes/s of a large copy, read plus written."""
    source = torch.randn(1 << 12 if clock.dry else 1 << 28, device=clock.device)
    target = torch.empty_like(source)
    seconds = clock.measure([lambda: target.copy_(source)], 0.5)["seconds"]
    return {"per_second": 2 * source.numel() * source.element_size() / seconds}


def _product_rate(name: str, clock: Clock) -> dict[str, float]:
    """FLOP/s of a large matrix product of random numbers."""
    n = 32 if clock.dry else 4096 if name == "float32" else 8192
    dtype = torch.float32 if name == "tf32" else getattr(torch, name)
    a, b = (torch.randn(n, n, device=clock.device, dtype=dtype) for _ in range(2))
    torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    try:
        seconds = clock.measure([lambda: a @ b], 0.5)["seconds"]
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    return {"per_second": 2 * n**3 / seconds}


#: what this card does at best: "per_second" of a copy's bytes, and of a product's FLOPs by its arithmetic
CEILINGS: dict[str, Callable[[Clock], dict[str, float]]] = {
    "copy": _copy_rate,
    **{name: partial(_product_rate, name) for name in ("bfloat16", "float16", "tf32", "float32")},
}
