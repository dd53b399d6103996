"""The backends that can run here, on which device, and how well each dtype must agree with the float64 reference."""

from __future__ import annotations

import pytest
import torch

from imgops import _backend

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]

#: largest error over largest magnitude; a half-precision result is rounded once, at the end
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def backends(op: str = "", *, fast_only: bool = False, exclude: tuple[str, ...] = ()) -> list[object]:
    """(backend, device) pairs of an op as parameters; one that cannot run here is skipped with its reason."""
    params = []
    for device in DEVICES:
        for backend in _backend.BACKENDS:
            other_device = backend in ("cpu", "cuda") and backend != device
            unwritten = backend == "cuda" and op in _backend.WITHOUT_CUDA
            if other_device or unwritten or backend in exclude or (fast_only and backend == "reference"):
                continue
            status = _backend.load()[backend, device]
            marks = [] if status.available else [pytest.mark.skip(reason=f"{backend} on {device}: {status.reason}")]
            params.append(pytest.param(backend, device, id=f"{backend}-{device}", marks=marks))
    return params
