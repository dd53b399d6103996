"""How much memory a call takes, measured in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import torch, imgops
from imgops._memory import peak_memory
{setup}
before = peak_memory()
{call}
print(peak_memory() - before)
"""


def memory_growth(setup: str, call: str, **environment: str) -> int:
    """The bytes by which ``call`` raises the most memory that its process has had, its results included.

    Args:
        setup: makes the arguments, and calls once on small ones, so that libraries are loaded before.
        call: one statement.
        environment: variables for the process, beside this one's; it runs on two threads.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(setup=setup, call=call)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "2", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
