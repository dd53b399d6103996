"""What a kernel fails of arrives in the text of its error, from whichever thread."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from imgops.ops._common import STATUSES

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="memory is limited with RLIMIT_AS"),
    pytest.mark.skipif(not STATUSES["cpu", "cpu"].available, reason="the CPU extension is not built"),
]

TELLS = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)
#: what is prepared, a call, the mebibytes that the process may still take then, and how many threads there are
CASES = {
    # the result, which PyTorch allocates or the extension does
    "result": ("x = torch.randn(1, 1, 4, 4)", "imgops.upfirdn2d(x, None, up=2**13)", 64, 1),
    "result beyond any machine": ("x = torch.randn(1, 1, 4, 4)", "imgops.upfirdn2d(x, None, up=2**22)", 64, 1),
    "small result": ("x = torch.randn(1, 3072, 2, 2)", "imgops.gram_matrix(x)", 16, 1),
    # what threads work in: rows of the up-sampled image, a hundred times the result
    "worker": (
        "x, f = torch.randn(4, 1, 9, 100_000), torch.ones(12)",
        "imgops.filtered_lrelu(x, f, f, up=10, down=10, padding=10)",
        48,
        2,
    ),
}
SCRIPT = """
import resource
import torch
import imgops

torch.set_num_threads({threads})
f = torch.ones(12)
imgops.filtered_lrelu(torch.randn(4, 1, 64, 64), f, f, up=2, down=2, padding=10)
imgops.gram_matrix(torch.randn(1, 8, 4, 4))
{prepare}
with open("/proc/self/statm") as memory:
    used = int(memory.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {more} * 2**20,) * 2)
try:
    {call}
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("name", CASES)
def test_memory_that_is_not_there_is_named(name):
    prepare, call, more, threads = CASES[name]
    script = SCRIPT.format(threads=threads, prepare=prepare, call=call, more=more)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("RuntimeError imgops: "), run.stdout
    # before 2.13 libtorch keeps the reason of a failed call to itself; the size of the tensor is told there too
    if TELLS or "cannot allocate a tensor of" not in run.stdout:
        assert "memory" in run.stdout
        assert "API call failed" not in run.stdout
