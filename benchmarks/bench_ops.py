"""Every op on the CPU against its eager forms: the rows of the fact sheets."""

from __future__ import annotations

import pytest

from tests.op_specs import SHEETS

from .comparison import names, time_side


@pytest.mark.parametrize(
    ("op", "problem", "side"),
    [(op, *one) for op, sheet in SHEETS.items() for one in names(sheet.comparisons)],
)
def test_op(benchmark, op, problem, side):
    time_side(benchmark, SHEETS[op].comparisons, problem, side)
