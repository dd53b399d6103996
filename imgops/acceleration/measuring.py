"""Each part of a network timed as it is and made fast, on what it gets of example inputs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .._table import aligned
from ..nn.joined import fused_instance_norm, split
from .discovery import Unit, units_of

#: a layer is timed for so long each way in seconds, and so often at least
SECONDS, TIMES = 0.1, 3
#: a layer must be faster by so much to be changed: less could be noise
WORTH = 1.03
#: largest difference of outputs that rounding makes, relative to the largest output, by the bits of a mantissa
TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 2e-1}


@dataclass(frozen=True)
class Row:
    """A part of a network in a table.

    Attributes:
        name: of its first layer; "" where that is the network itself.
        kind: the classes of its layers.
        shape: of what the first gets; () where it was not called, or nothing was timed.
        before, after: milliseconds as it was and made fast, of all its calls; None where it was not timed.
        kept: whether it is made fast.
        note: why not, where it is not for the time.
    """

    name: str
    kind: str
    shape: tuple[int, ...] = ()
    before: float | None = None
    after: float | None = None
    kept: bool = True
    note: str = ""

    @classmethod
    def unmeasured(cls, unit: Unit, note: str = "") -> Row:
        """Of a part that is not timed."""
        note = unit.reason or note
        return cls(unit.name, unit.kind, kept=not note, note=note)


@dataclass(frozen=True)
class Table:
    """The parts of a network that can be made fast; ``str`` makes a table."""

    rows: list[Row]

    @property
    def before(self) -> float:
        """Milliseconds of all parts as they were."""
        return sum(row.before or 0.0 for row in self.rows)

    @property
    def after(self) -> float:
        """Milliseconds of all parts, of each the way that is kept."""
        return sum((row.after if row.kept else row.before) or 0.0 for row in self.rows)

    def __str__(self) -> str:
        lines: list[tuple[str, ...]] = [("layer", "kind", "input", "before ms", "after ms", "kept")]
        for row in self.rows:
            shape = " x ".join(map(str, row.shape)) or "-"
            times = ["-" if t is None else f"{t:.2f}" for t in (row.before, row.after)]
            kept = "yes" if row.kept else f"no: {row.note or 'not faster'}"
            lines.append((row.name or "-", row.kind, shape, *times, kept))
        kept = f"{sum(row.kept for row in self.rows)} of {len(self.rows)}"
        if self.before:
            lines.append(("all of them", "", "", f"{self.before:.2f}", f"{self.after:.2f}", kept))
        else:
            lines.append(("all of them", "", "", "-", "-", kept))
        return aligned(lines, numbers=3)


class _Call(NamedTuple):
    """Of a unit: the shape of its input, and seconds as it was and made fast."""

    shape: tuple[int, ...]
    before: float
    after: float


def make_fast(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, training: bool) -> Table:
    """Time each part of a network that is as it was, and change those that are then faster.

    Raises:
        RuntimeError: the outputs are not those of before; the network is as it was.
    """
    units = units_of(model)
    table = _measure(model, units, args, kwargs, training)
    kept = [unit for unit, row in zip(units, table.rows, strict=True) if row.kept]
    if error := _difference(model, kept, args, kwargs, training):
        split(model)
        raise RuntimeError(f"imgops.accelerate: outputs differ by {error:.1e} of the largest; the model is as it was")
    return table


def _measure(
    model: nn.Module, units: Sequence[Unit], args: tuple[Any, ...], kwargs: dict[str, Any], training: bool
) -> Table:
    """Run the network, and time each unit both ways when it is called."""
    seen: dict[int, list[_Call]] = {}

    def hook(unit: Unit) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def look(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs and isinstance(inputs[0], Tensor):
                call = _Call(tuple(inputs[0].shape), *_both_ways(unit, inputs[0], training))
                seen.setdefault(id(unit), []).append(call)

        return look

    handles = [unit.first.register_forward_pre_hook(hook(unit)) for unit in units if not unit.reason]
    try:
        with _mode(model, training):
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    rows = []
    for unit in units:
        calls = seen.get(id(unit))
        if unit.reason or calls is None:
            rows.append(Row.unmeasured(unit, "not called"))
            continue
        before, after = 1e3 * sum(call.before for call in calls), 1e3 * sum(call.after for call in calls)
        rows.append(Row(unit.name, unit.kind, calls[0].shape, before, after, kept=before > WORTH * after))
    return Table(rows)


def _difference(
    model: nn.Module, units: Sequence[Unit], args: tuple[Any, ...], kwargs: dict[str, Any], training: bool
) -> float:
    """Make the units fast; the difference of outputs, of the largest, where it is more than rounding, else 0."""
    with _mode(model, training), torch.no_grad():
        before = _outputs(model, args, kwargs)
        again = _outputs(model, args, kwargs)
        for unit in units:
            unit.use()
        after = _outputs(model, args, kwargs)
    for was, same, now in zip(before, again, after, strict=True):
        # what a network draws at random differs by itself
        if torch.equal(was, same):
            error = (now.double() - was.double()).abs().max() / was.double().abs().max().clamp(min=1e-30)
            if not error <= TOLERANCES.get(was.dtype, 1e-3):
                return float(error)
    return 0.0


def _outputs(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    leaves = pytree.tree_leaves(model(*args, **kwargs))
    return [leaf.detach() for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.numel()]


@contextlib.contextmanager
def _mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Within it the network is in that mode, with the generator of random numbers and buffers to be set back."""
    modes = {module: module.training for module in model.modules()}
    buffers = {buffer: buffer.detach().clone() for buffer in model.buffers()}
    model.train(training)
    try:
        with torch.random.fork_rng(), torch.set_grad_enabled(training):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for buffer, was in buffers.items():
                buffer.copy_(was)


def _both_ways(unit: Unit, x: Tensor, training: bool) -> tuple[float, float]:
    """Seconds of a unit as it was and made fast, of input x: the least of several, in turns."""
    plain, fast = _ways(unit, x)
    parameters = [p for layer in (unit.chain.layers if unit.chain else [unit.first]) for p in layer.parameters()]
    parameters = [p for p in parameters if p.requires_grad]

    def run(way: Callable[[Tensor], Tensor]) -> float:
        given = x.detach()
        wanted = [*parameters, given.requires_grad_()] if training and x.requires_grad else parameters
        start = time.perf_counter()
        y = way(given)
        if training and wanted:
            torch.autograd.grad(y, wanted, torch.ones_like(y), allow_unused=True)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        return time.perf_counter() - start

    # the first call of each prepares what later ones have
    run(plain), run(fast)
    times: tuple[list[float], list[float]] = ([], [])
    while len(times[0]) < TIMES or sum(times[0]) < SECONDS:
        for way, seconds in zip((plain, fast), times, strict=True):
            seconds.append(run(way))
    return min(times[0]), min(times[1])


def _ways(unit: Unit, x: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """A unit's forward as it was, and made fast; neither changes anything in the network."""
    norm: Any = unit.first
    if unit.chain is None:
        return partial(type(norm).forward, norm), partial(fused_instance_norm, norm)
    # what runs by itself either way is not timed
    chain = unit.chain if unit.chain.runs_as_one(x) else unit.chain.shorter()
    return (chain.apart, chain.as_one) if chain else (unit.chain.apart, unit.chain.apart)
