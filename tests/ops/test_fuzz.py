"""Random calls of every op on the CPU backend, forward and backward, against the float64 reference.

``make test`` draws a few hundred calls, ``make fuzz`` 20,000 and more: shapes, strides (channels-last, transposed,
expanded, views with an offset), dtypes, factors, paddings, filters and thread counts. What a draw once found is a test
of its op.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from backends import TOLERANCE
from golden import relative_error
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from imgops.ops._common import accumulation_dtype
from tests.op_specs import SHEETS
from tests.op_specs._random import RandomCall, strided

#: draws an op
DRAWS = int(os.environ.get("IMGOPS_FUZZ_DRAWS", "40"))


class Draws:
    """A :class:`Pick` whose choices hypothesis makes."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self.draw = draw

    def one(self, options: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(options))

    def integer(self, least: int, most: int) -> int:
        return self.draw(st.integers(least, most))

    def order(self, n: int) -> list[int]:
        return self.draw(st.permutations(range(n)))

    def assume(self, condition: bool) -> None:
        assume(condition)


@pytest.mark.parametrize("op", [op for op, sheet in SHEETS.items() if sheet.random is not None])
@settings(max_examples=DRAWS, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_calls(op, data):
    torch.manual_seed(data.draw(st.integers(0, 2**31)))
    dtype = data.draw(st.sampled_from(list(TOLERANCE)))
    pick = Draws(data.draw)
    call = SHEETS[op].random(pick, dtype)
    threads = torch.get_num_threads()
    torch.set_num_threads(data.draw(st.integers(1, 3)))
    try:
        errors = _errors(pick, call, dtype)
        assert all(error <= allowed for error, allowed in errors), errors
    finally:
        torch.set_num_threads(threads)


def _errors(pick: Draws, call: RandomCall, dtype: torch.dtype) -> list[tuple[float, float]]:
    """(error, what is allowed) of the output and, where it is smooth, of each gradient."""
    leaves = [t.detach().requires_grad_() for t in call.tensors]
    exact = [t.detach().double().requires_grad_() for t in call.tensors]
    half = dtype in (torch.float16, torch.bfloat16)
    tolerance = 4 * TOLERANCE[dtype] * (call.roundings if half else 4 if call.squashed else 1)
    y, expected = call.run(None, *leaves), call.run("reference", *exact)
    assert y.dtype in (dtype, accumulation_dtype(dtype))
    errors = [(relative_error(y, expected), tolerance)]
    margin = 0.05 * call.roundings if half else 1e-4
    if not call.smooth or any(bool(((expected.abs() - kink).abs() < margin).any()) for kink in call.kinks):
        # rounding may put a value on the other side, where the slope is another
        return errors
    dy = strided(pick, tuple(y.shape), y.dtype)
    gradients = torch.autograd.grad(y, leaves, dy)
    wanted = torch.autograd.grad(expected, exact, dy.double())
    largest = max((float(t.abs().max()) for t in (dy, *wanted) if t.numel() > 0), default=0.0)
    for t, g, e in zip(leaves, gradients, wanted, strict=True):
        assert g.dtype == t.dtype
        assert g.shape == t.shape
        if g.numel() == 0 or y.numel() == 0:
            assert not g.any()
            continue
        # sums of what was rounded on the way; where cancellation leaves little of one, its error is that of the terms
        terms = max(float(e.abs().max()), (0.2 if call.roundings == 1 else 1.0) * largest)
        many = math.sqrt(max(1, y.numel() / t.numel()))
        allowed = 5 * max(tolerance, TOLERANCE[t.dtype]) * many
        errors.append((float((g.double() - e).abs().max()), min(allowed, 0.3) * terms))
    return errors
