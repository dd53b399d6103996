"""Every Triton kernel compiles for every GPU it is meant for, without one, and stays in its registers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "benchmarks" / "results" / "gpu_resources.json"
KERNELS = {
    name
    for path in (ROOT / "kernels").glob("*.py")
    for name in re.findall(r"^def (\w+_kernel)\(", path.read_text(), re.M)
}
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
DTYPES = ("float32", "float16", "bfloat16")
#: one launch of each kernel and mode; the report has them all
LAUNCHES = (
    "^(bias_act|upfirdn2d_bias_act|upfirdn2d 8x8|conv2d 3x3( transposed)?|gram_matrix( less a mean)?|mix_channels),"
    "|^(filtered_lrelu|filtered_lrelu_slopes) up 2, down 2|^grid_sample(_backward)?,|^bias_act_backward from x"
    "|^adaptive_instance_norm_backward of 512x512|^adaptive_instance_norm of 16x16"
)


def check(resources: dict[str, dict[str, int]]) -> None:
    """No kernel spills, and half-precision products run on tensor cores."""
    for name, kernel in resources.items():
        # for sm_100 ptxas parks one address here, where it has registers left
        parked = 8 if name.startswith("upfirdn2d up 2, 12 separable, planar, float32") else 0
        assert kernel["spills"] <= parked, name
        if any(k in name for k in ("conv2d_kernel", "gram_matrix_kernel", "mix_channels_kernel")) and "float16" in name:
            assert kernel["matrix_instructions"] > 0, name


@pytest.mark.parametrize("target", TARGETS)
def test_report(target):
    """The committed report (``python -m benchmarks.gpu.resources``) has every kernel in every dtype."""
    resources = json.loads(REPORT.read_text())["kernels"][target]
    found = {(name.rsplit(", ", 1)[1].split(":")[0], name.rsplit(" ", 1)[1]) for name in resources}
    assert found == {(dtype, kernel) for dtype in DTYPES for kernel in KERNELS}
    check(resources)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "dtype"), [*zip(TARGETS, ("float16", "float32", "bfloat16", "float16"), strict=True)]
)
def test_compiles(target, dtype):
    """Compile anew, as a GPU of the target would, in a process without the interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "benchmarks.gpu.resources", target, dtype, LAUNCHES]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    resources = json.loads(done.stdout)["kernels"][target]
    assert {name.rsplit(" ", 1)[1] for name in resources} == KERNELS
    check(resources)
    assert set(resources) <= set(json.loads(REPORT.read_text())["kernels"][target])
