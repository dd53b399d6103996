"""The recorded cases of tests/data: inputs and outputs of the published operators and networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

DATA = Path(__file__).parent / "data"


class Case(NamedTuple):
    """One recorded case: its parameters, and its arrays as tensors by name."""

    params: dict[str, Any]
    arrays: dict[str, torch.Tensor]


def cases(name: str) -> list[Any]:
    """The cases of a file as parameters for ``pytest.mark.parametrize``."""
    arrays = np.load(DATA / f"{name}.npz")
    params = []
    for case in json.loads((DATA / f"{name}.json").read_text()):
        tensors = {a: torch.from_numpy(arrays[f"{case['id']}/{a}"]) for a in case["arrays"]}
        params.append(pytest.param(Case(case["params"], tensors), id=f"{name}-{case['id']}"))
    return params


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over the largest magnitude expected; NaN where the actual has NaN."""
    assert actual.shape == expected.shape
    if expected.numel() == 0:
        return 0.0
    scale = expected.abs().max().clamp(min=1e-30)
    return float((actual.detach().double() - expected.detach().double()).abs().max() / scale.detach())
