"""Every backend on a GPU against the float64 reference: the checks of ``make gpu``, each a test."""

from __future__ import annotations

import pytest
import torch

from benchmarks.gpu.correctness import arrange, checks, run_check

ON_GPU = torch.cuda.is_available()


@pytest.mark.slow
@pytest.mark.skipif(not ON_GPU, reason="no GPU is visible to torch")
@pytest.mark.parametrize("name", checks("cuda", dry=False) if ON_GPU else [])
def test_check(name):
    arrange()
    result = run_check("cuda", False, name)
    assert result["passed"], result
