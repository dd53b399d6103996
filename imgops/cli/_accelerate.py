"""The work of ``imgops accelerate``."""

from __future__ import annotations

import copy
import dataclasses
import json
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

from ..acceleration import Table, restore
from ..acceleration.measuring import make_fast
from ..models.encoders.custom import network_of
from .accelerate import Job

#: how often the whole network runs each way, in turns
RUNS = 3


def tell(job: Job) -> str:
    """The page.

    Raises:
        ValueError, TypeError, RuntimeError: there is no such function, it returns no network, or the network does not
            take such an input.
    """
    inputs = _inputs(job.input)
    network = restore(network_of(job.network))
    if job.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        inputs = tuple(x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs)
    fast = copy.deepcopy(network)
    try:
        table = make_fast(fast, inputs, {}, training=job.training)
        before, after = _whole((network, fast), inputs, job.training)
    except Exception as error:
        raise RuntimeError(f"{job.network} does not run on --input {job.input}: {error}") from error
    if job.json:
        rows = [dataclasses.asdict(row) for row in table.rows]
        return json.dumps({"layers": rows, "before": before, "after": after}, indent=2)
    return _page(table, before, after, job)


def _page(table: Table, before: float, after: float, job: Job) -> str:
    what = "forward and backward" if job.training else "forward"
    threads = torch.get_num_threads()
    return (
        f"{table}\n\nthe whole network, {what}, {threads} thread{'s' * (threads > 1)}: {before:.1f} ms, "
        f"with imgops.accelerate {after:.1f} ms, {before / after:.2f} times as fast"
    )


def _inputs(text: str) -> tuple[Tensor, ...]:
    try:
        shapes = [[int(size) for size in shape.split("x")] for shape in text.split(",")]
    except ValueError:
        shapes = [[0]]
    if not all(size >= 1 for shape in shapes for size in shape):
        raise ValueError(f"input must be a shape like 1x3x256x256, or several with commas; got {text!r}")
    return tuple(torch.rand(shape) for shape in shapes)


def _whole(networks: tuple[nn.Module, nn.Module], inputs: tuple[Tensor, ...], training: bool) -> tuple[float, float]:
    """Milliseconds of both networks: medians of several runs, in turns."""

    def run(network: nn.Module) -> float:
        start = time.perf_counter()
        with torch.set_grad_enabled(training):
            y: Any = network(*inputs)
            for leaf in torch.utils._pytree.tree_leaves(y):
                if training and isinstance(leaf, Tensor) and leaf.requires_grad:
                    leaf.sum().backward(retain_graph=True)
        return 1e3 * (time.perf_counter() - start)

    for network in networks:
        run(network.train(training))
    times = [[run(network) for network in networks] for _ in range(RUNS)]
    before, after = (statistics.median(column) for column in zip(*times, strict=True))
    return before, after
