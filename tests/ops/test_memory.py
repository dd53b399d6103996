"""The CPU kernels' cache of the memory of large results, which is off in the other tests, and without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import imgops
from imgops.ops._common import STATUSES

pytestmark = pytest.mark.skipif(not STATUSES["cpu", "cpu"].available, reason="the CPU extension is not built")


def test_with_the_cache():
    cases = Path(__file__).with_name("memory_cases.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(cases)]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "IMGOPS_CACHE_MEMORY": "1"})
    assert run.returncode == 0, run.stdout + run.stderr


def test_without_the_cache():
    """Memory is PyTorch's, which can be resized."""
    y = imgops.bias_act(torch.zeros(4 << 20), gain=2.0, impl="cpu")
    y.untyped_storage().resize_(0)
    assert y.untyped_storage().nbytes() == 0
