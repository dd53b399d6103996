"""What is particular to an op, on lesser CPUs: kernels that take another way there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imgops.ops._common import STATUSES

#: of an op the tests whose results depend on the way
TESTS = {
    "concat_conv2d": "agrees or rounding",
    "depthwise_conv2d": "forward or gradients",
    "nearest_neighbor": "agrees or apart or channels or stands_out or equals or direction or beyond",
    "efdm": "published or ties or nan or rows",
    "grid_sample": "cpu-cpu",
    "displace": "cpu-cpu",
}


@pytest.mark.slow
@pytest.mark.skipif(not STATUSES["cpu", "cpu"].available, reason="the CPU extension is not built")
@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512", "vnni"])
@pytest.mark.parametrize("op", TESTS)
def test_every_instruction_set(op, level):
    env = {**os.environ, "IMGOPS_SIMD": level}
    asked = "import imgops._host as h; print(h.simd_level())"
    taken = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, env=env).stdout.strip()
    if taken != level:
        pytest.skip(f"this CPU has no {level}")
    file = Path(__file__).with_name(f"test_{op}.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    command += ["-k", f"cpu-cpu and ({TESTS[op]})"]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout
