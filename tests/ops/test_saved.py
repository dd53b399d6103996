"""What is kept between the passes: nothing that no gradient reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from backends import backends
from torch import Tensor

from tests.op_specs import CALLS, SHEETS, as_tuple

#: how many times larger pictures are than those of the calls, so that the CPU's kernels convolve them
LARGER = {"cpu": 5}


def nodes_of(tensors: Sequence[Tensor]) -> Iterator[Any]:
    """The nodes of ours in a graph."""
    todo, seen = [t.grad_fn for t in tensors], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo += [following for following, _ in node.next_functions]
        if node.name().startswith("imgops_"):
            yield node


def other_than(t: Tensor) -> Tensor:
    """A tensor of the same shape, with other values."""
    if t.is_floating_point():
        return torch.full_like(t, torch.nan)
    return ~t if t.dtype == torch.uint8 else torch.zeros_like(t)


class Saved:
    """What nodes save while ``hooks`` are on; the tensor at ``changed`` they get back as another."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.read: set[int] = set()
        self.changed: int | None = None
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)

    def _pack(self, t: Tensor) -> int:
        self.tensors.append(t.detach())
        return len(self.tensors) - 1

    def _unpack(self, i: int) -> Tensor:
        self.read.add(i)
        return other_than(self.tensors[i]) if i == self.changed else self.tensors[i]

    def by(self, nodes: Iterator[Any]) -> list[int]:
        """The places of what these nodes saved."""
        self.read = set()
        for node in nodes:
            node.saved_tensors  # noqa: B018
        return sorted(self.read)


@pytest.mark.parametrize(
    ("name", "backend", "device"),
    [
        pytest.param(name, *pair.values, id=f"{name}-{pair.id}", marks=pair.marks)
        for op, sheet in SHEETS.items()
        for name in sheet.calls
        for pair in backends(op, fast_only=True)
    ],
)
def test_a_gradient_reads_all_that_is_saved(name, backend, device):
    """Of each input alone: with another tensor in the place of any that a node of ours saved, it is another."""
    call = CALLS[name]
    larger = {letter: LARGER.get(backend, 1) * call.sizes[letter] for letter in "HWP" if letter in call.sizes}
    tensors = call.tensors(device, **larger)
    # of weights, styles and filters, which stay in memory anyway, the layout may be read
    small = {t.numel() for which, t in tensors.items() if not set("HP") & set(call.shapes[which])}
    for wanted in tensors:
        saved, leaf = Saved(), tensors[wanted].clone().requires_grad_()
        with saved.hooks:
            y = [t for t in as_tuple(call.run(backend, **{**tensors, wanted: leaf})) if t.requires_grad]
        dy = [torch.randn_like(t) for t in y]
        (expected,) = torch.autograd.grad(y, leaf, dy, retain_graph=True)
        for place in saved.by(nodes_of(y)):
            if saved.tensors[place].numel() in small:
                continue
            saved.changed = place
            (actual,) = torch.autograd.grad(y, leaf, dy, retain_graph=True)
            saved.changed = None
            assert not torch.equal(actual, expected), f"{list(saved.tensors[place].shape)} for {wanted}"
