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
from ..nn.chains import takes
from ..nn.joined import call_deferred, fused_instance_norm, split
from .discovery import Block, Unit, parts_of

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
        block: whether it is a module that calls layers; its times then include theirs, which have rows of their own.
    """

    name: str
    kind: str
    shape: tuple[int, ...] = ()
    before: float | None = None
    after: float | None = None
    kept: bool = True
    note: str = ""
    block: bool = False

    @classmethod
    def unmeasured(cls, unit: Unit | Block, note: str = "") -> Row:
        """Of a part that is not timed."""
        note = unit.reason or note
        return cls(unit.name, unit.kind, kept=not note, note=note, block=isinstance(unit, Block))


@dataclass(frozen=True)
class Table:
    """The parts of a network that can be made fast; ``str`` makes a table."""

    rows: list[Row]

    @property
    def before(self) -> float:
        """Milliseconds of all layers as they were."""
        return sum(row.before or 0.0 for row in self.rows if not row.block)

    @property
    def after(self) -> float:
        """Milliseconds of all layers, of each the way that is kept."""
        return sum((row.after if row.kept else row.before) or 0.0 for row in self.rows if not row.block)

    def __str__(self) -> str:
        lines: list[tuple[str, ...]] = [("layer", "kind", "input", "before ms", "after ms", "kept")]
        for row in self.rows:
            shape = " x ".join(map(str, row.shape)) or "-"
            times = ["-" if t is None else f"{t:.2f}" for t in (row.before, row.after)]
            kept = "yes" if row.kept else f"no: {row.note or 'not faster'}"
            lines.append((row.name or "-", row.kind, shape, *times, kept))
        layers = [row.kept for row in self.rows if not row.block]
        kept = f"{sum(layers)} of {len(layers)}"
        if self.before:
            lines.append(("all layers", "", "", f"{self.before:.2f}", f"{self.after:.2f}", kept))
        else:
            lines.append(("all layers", "", "", "-", "-", kept))
        return aligned(lines, numbers=3)


class _Call(NamedTuple):
    """Of a part: the shape of its input, and seconds as it was and made fast."""

    shape: tuple[int, ...]
    before: float
    after: float


def _row(part: Unit | Block, calls: Sequence[_Call]) -> Row:
    before, after = 1e3 * sum(call.before for call in calls), 1e3 * sum(call.after for call in calls)
    kept = before > WORTH * after
    return Row(part.name, part.kind, calls[0].shape, before, after, kept=kept, block=isinstance(part, Block))


def make_fast(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, training: bool) -> Table:
    """Time each part of a network that is as it was, and change those that are then faster.

    Raises:
        RuntimeError: an output is not that of before. After this and any other error the network is as it was.
    """
    units, blocks = parts_of(model)
    try:
        table = _measure(model, units, args, kwargs, training)
        kept = [unit for unit, row in zip(units, table.rows, strict=True) if row.kept]
        if training:
            # its parts were compared; a whole network in training can make anything of what they round
            for unit in kept:
                unit.use()
            return table
        with _mode(model, training):
            before = _outputs(model, args, kwargs)
            for unit in kept:
                unit.use()
            table.rows.extend(_use_blocks(model, blocks, args, kwargs))
            after = _outputs(model, args, kwargs)
        for was, now in zip(before, after, strict=True):
            _check("outputs", was, now)
    except BaseException:
        split(model)
        raise
    return table


def _measure(
    model: nn.Module, units: Sequence[Unit], args: tuple[Any, ...], kwargs: dict[str, Any], training: bool
) -> Table:
    """Run the network, and time each unit both ways when it is called."""
    seen: dict[int, list[_Call]] = {}

    def hook(unit: Unit) -> Callable[..., None]:
        def look(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            for x in [*inputs, *named.values()][:1]:
                seen.setdefault(id(unit), []).append(_Call(tuple(x.shape), *_both_ways(unit, x, training)))

        return look

    hooks = [(unit.first, hook(unit)) for unit in units if not unit.reason]
    with _mode(model, training):
        _run(model, hooks, args, kwargs)
    rows = []
    for unit in units:
        calls = seen.get(id(unit))
        rows.append(Row.unmeasured(unit, "not called") if unit.reason or calls is None else _row(unit, calls))
    return Table(rows)


def _run(
    model: nn.Module,
    hooks: Sequence[tuple[nn.Module, Callable[..., None]]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """Run the network with these hooks before the forwards of some of its modules."""
    handles = [module.register_forward_pre_hook(hook, with_kwargs=True) for module, hook in hooks]
    try:
        args, kwargs = _copied((args, kwargs))
        model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()


def _use_blocks(model: nn.Module, blocks: Sequence[Block], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Row]:
    """Time each block both ways when the network calls it, with layers that are fast already, and use those that are
    then faster; a row of each that does anything else than before."""
    seen: dict[int, list[_Call]] = {}
    timed: list[Block] = []

    def hook(block: Block) -> Callable[..., None]:
        def look(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            # blocks within one that is timed have their turn when the network calls it
            if timed:
                return
            timed.append(block)
            combined = _combined(block, inputs, named)
            # modules inside a block have functions too, which are theirs
            block.functions = sorted(combined.intersection(block.functions or combined))
            if block.functions:
                shape = next((tuple(x.shape) for x in pytree.tree_leaves((inputs, named)) if isinstance(x, Tensor)), ())
                seen.setdefault(id(block), []).append(_Call(shape, *_both_calls(block, inputs, named)))
            timed.clear()

        return look

    _run(model, [(block.module, hook(block)) for block in blocks], args, kwargs)
    rows = []
    for block in blocks:
        if id(block) in seen:
            rows.append(_row(block, seen[id(block)]))
            if rows[-1].kept:
                block.use()
    return rows


def _check(what: str, was: Tensor, now: Tensor) -> None:
    error = _error(was, now)
    if error is not None:
        raise RuntimeError(f"imgops.accelerate: {what} differ by {error:.1e} of the largest; the model is as it was")


def _error(was: Tensor, now: Tensor) -> float | None:
    """By what a tensor differs from before, relative to the largest value; None where rounding makes as much."""
    # what is not finite before need not be so afterwards
    if was.numel() == 0 or not was.isfinite().all():
        return None
    difference = (now.double() - was.double()).abs().max()
    error = float(difference / was.double().abs().max().clamp(min=1e-30))
    return None if error <= TOLERANCES.get(was.dtype, 1e-3) else error


def _outputs(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    torch.manual_seed(0)
    args, kwargs = _copied((args, kwargs))
    leaves = pytree.tree_leaves(forward(*args, **kwargs))
    return [leaf.detach() for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.numel()]


def _copied(inputs: Any) -> Any:
    """Example inputs whose tensors a network may write to."""
    return pytree.tree_map_only(Tensor, lambda x: x.detach().clone().requires_grad_(x.requires_grad), inputs)


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

    def run(way: Callable[[Tensor], Tensor]) -> tuple[float, Tensor]:
        given = x.detach().clone()
        wanted = [*parameters, given.requires_grad_()] if training and x.requires_grad else parameters
        start = time.perf_counter()
        y = way(given)
        if training and wanted and y.requires_grad:
            # a weight may be a result itself, whose graph the network's own backward needs
            torch.autograd.grad(y, wanted, torch.ones_like(y), retain_graph=True, allow_unused=True)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        return time.perf_counter() - start, y.detach()

    # the first call of each prepares what later ones have
    _check(f"outputs of {unit.name or unit.kind}", run(plain)[1], run(fast)[1])
    return _least(lambda made_fast: run(fast if made_fast else plain)[0])


def _combined(block: Block, args: tuple[Any, ...], kwargs: dict[str, Any]) -> set[str]:
    """The functions of a block that become parts of convolutions when it runs; none if its outputs then differ, as
    where it calls what is no function of PyTorch."""
    forward = block.module.forward
    found: set[str] = set()

    def fast(*args: Any, **kwargs: Any) -> Any:
        result, deferral = call_deferred(block.convs, lambda: forward(*args, **kwargs))
        found.update(() if deferral.misused else deferral.parts)
        return result

    before, after = _outputs(forward, args, kwargs), _outputs(fast, args, kwargs)
    same = len(before) == len(after) and all(_error(*pair) is None for pair in zip(before, after, strict=True))
    return found if same else set()


def _both_calls(block: Block, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[float, float]:
    """Seconds of a block as it is and with results that wait: the least of several, in turns."""

    def seconds(fast: bool) -> float:
        given, named = _copied((args, kwargs))
        start = time.perf_counter()
        if fast:
            call_deferred(block.convs, lambda: block.module.forward(*given, **named))
        else:
            block.module.forward(*given, **named)
        for x in pytree.tree_leaves((given, named)):
            if isinstance(x, Tensor) and x.is_cuda:
                torch.cuda.synchronize(x.device)
        return time.perf_counter() - start

    return _least(seconds)


def _least(seconds: Callable[[bool], float]) -> tuple[float, float]:
    """The least seconds of a part as it was and made fast, in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    while len(times[0]) < TIMES or sum(times[0]) < SECONDS:
        for fast in (False, True):
            times[fast].append(seconds(fast))
    return min(times[0]), min(times[1])


def _ways(unit: Unit, x: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """A unit's forward as it was, and made fast; neither changes anything in the network."""
    norm: Any = unit.first
    if unit.chain is None:
        plain = partial(type(norm).forward, norm)
        return plain, partial(fused_instance_norm, norm) if takes(x) else plain
    # what runs by itself either way is not timed
    chain = unit.chain if unit.chain.runs_as_one(x) else unit.chain.without_others()
    if chain is None or not chain.takes(x):
        return unit.chain.apart, unit.chain.apart
    return chain.apart, chain.as_one
