"""Fact sheets: of each op one file that says all that its tests, benchmarks and GPU checks need to know of it.

``SHEETS[op]``; see :class:`Sheet` for what stands in one, and docs/adding-an-op.md for how an op is added.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import imgops
from imgops import _backend

from ._sheet import FORWARD_ONLY, Call, Case, Comparison, Problem, Sheet, as_tuple

__all__ = [
    "CALLS",
    "FORWARD_ONLY",
    "SCHEMAS",
    "SHEETS",
    "SIZED",
    "Call",
    "Case",
    "Comparison",
    "Problem",
    "Sheet",
    "as_tuple",
    "cases",
]

SHEETS: dict[str, Sheet] = {op: importlib.import_module(f".{op}", __name__).SHEET for op in _backend.OPS}
for _op in SHEETS:
    # what a schema names is registered when its op loads
    getattr(imgops, _op)
#: of all ops: small calls, calls of any sizes, and the arguments of registered ops
CALLS: dict[str, Call] = {name: call for sheet in SHEETS.values() for name, call in sheet.calls.items()}
SIZED: dict[str, Call] = {name: call for sheet in SHEETS.values() for name, call in sheet.sized.items()}
SCHEMAS: dict[str, Callable[[], tuple[Any, ...]]] = {
    name: make for sheet in SHEETS.values() for name, make in sheet.schemas.items()
}


def cases(dry: bool) -> list[Case]:
    """What is timed on a GPU, of all ops."""
    return [case for sheet in SHEETS.values() for case in sheet.cases(dry)]
