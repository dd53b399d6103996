"""The twins that can run here, on which device, and how well each dtype must agree with the float64 reference."""

from __future__ import annotations

import pytest
import torch

from imgops import _backend

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]

#: largest error over largest magnitude; a half-precision result is rounded once, at the end
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def twins(op: str = "", *, fast_only: bool = False, exclude: tuple[str, ...] = ()) -> list[object]:
    """(twin, device) pairs of an op as parameters; one that cannot run here is skipped with its reason."""
    params = []
    for device in DEVICES:
        for twin in _backend.TWINS:
            other_device = twin in ("cpu", "cuda") and twin != device
            unwritten = twin == "cuda" and op in _backend.WITHOUT_CUDA
            if other_device or unwritten or twin in exclude or (fast_only and twin == "reference"):
                continue
            status = _backend.load()[twin, device]
            marks = [] if status.available else [pytest.mark.skip(reason=f"{twin} on {device}: {status.reason}")]
            params.append(pytest.param(twin, device, id=f"{twin}-{device}", marks=marks))
    return params
