"""Set-up of every test: Triton's interpreter where there is no GPU, outputs poisoned with NaN, threads."""

import os

import torch

if not torch.cuda.is_available():
    # before Triton is imported: its kernels then run, slowly, on the CPU
    os.environ.setdefault("TRITON_INTERPRET", "1")

# the CPU kernels' cache returns memory that holds an earlier result, which nothing poisons; memory_cases.py has it on
os.environ.setdefault("IMGOPS_CACHE_MEMORY", "0")

if "PYTEST_XDIST_WORKER" in os.environ:
    # the workers share the cores
    torch.set_num_threads(max(1, torch.get_num_threads() // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])))

import importlib.util

import pytest

if os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton"):
    from triton.runtime.interpreter import InterpreterBuilder

    # that of triton 3.8 has no bfloat16 constants; with any version the kernels must do without
    if hasattr(InterpreterBuilder, "get_bf16"):
        del InterpreterBuilder.get_bf16


@pytest.fixture(autouse=True)
def poisoned_outputs():
    """Fill what ``torch.empty`` returns with NaN, so that an element that no kernel wrote fails its test."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
