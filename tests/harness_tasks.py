"""What the tests of the GPU harness have other processes do; without torch, so that these start at once."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def double(item: int) -> dict[str, Any]:
    return {"value": 2 * item}


def misbehave(item: str) -> dict[str, Any]:
    """Raise, die, or lose the GPU, of which a double of torch tells."""
    if item == "raise":
        raise ValueError("so")
    if item == "die":
        os._exit(1)
    if item == "lose the GPU":
        sys.modules["torch"] = SimpleNamespace(cuda=LOST_GPU)
        raise RuntimeError("an illegal memory access")
    return {"process": os.getpid()}


def _synchronize() -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


LOST_GPU = SimpleNamespace(is_initialized=lambda: True, synchronize=_synchronize)


def hang(path: Path) -> dict[str, Any]:
    path.write_text(str(os.getpid()))
    time.sleep(600)
    return {}
