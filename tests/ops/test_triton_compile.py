"""Every Triton kernel compiles for every GPU it is meant for, without one, and stays in its registers."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.op_specs import SHEETS

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
LAUNCHES = "|".join(
    rf"^{re.escape(launch.name)}, (planar|channels-last)$"
    for sheet in SHEETS.values()
    for launch in sheet.launches(torch.float32, False)
    if launch.tested
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
    wanted = {(dtype, kernel) for dtype in DTYPES for kernel in KERNELS}
    assert found == wanted, "python -m benchmarks.gpu.resources --record compiles what is new: docs/adding-an-op.md"
    check(resources)


def compiled(*arguments: str) -> str:
    """What the program prints, in a process without Triton's interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "benchmarks.gpu.resources", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "dtype"), [*zip(TARGETS, ("float16", "float32", "bfloat16", "float16"), strict=True)]
)
def test_compiles(target, dtype):
    """Compile anew, as a GPU of the target would."""
    resources = json.loads(compiled(target, dtype, LAUNCHES))["kernels"][target]
    assert {name.rsplit(" ", 1)[1] for name in resources} == KERNELS
    check(resources)
    assert set(resources) <= set(json.loads(REPORT.read_text())["kernels"][target])


@pytest.mark.slow
def test_part_of_a_report(tmp_path):
    """It replaces the launches of its names, and leaves all else."""
    whole, target = json.loads(REPORT.read_text()), "sm_90"
    whole["triton"] = importlib.metadata.version("triton")
    name, resources = next((k, v) for k, v in whole["kernels"][target].items() if k.startswith("bias_act, planar"))
    report = tmp_path / "report.json"
    report.write_text(json.dumps({**whole, "kernels": {**whole["kernels"], target: {name: {"registers": 0}, "k": {}}}}))
    compiled(target, "float32", "^bias_act, planar", "--out", str(report))
    found = json.loads(report.read_text())
    assert found["kernels"][target].keys() == {name, "k"}
    assert found["kernels"][target][name].keys() == resources.keys()
    assert {**found, "kernels": {**found["kernels"], target: whole["kernels"][target]}} == whole
