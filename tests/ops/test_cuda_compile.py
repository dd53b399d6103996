"""Every .cu file through nvcc for each architecture: no warning, no name that hides another, no register spilled to
memory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from golden import relative_error

import imgops
from imgops import _backend

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
ARCHITECTURES = ("80", "90", "100")


def find_nvcc() -> str | None:
    """nvcc on PATH, in CUDA_HOME, or where the toolkit is usually installed."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), *sorted(Path("/usr/local").glob("cuda*"))]
    candidates = [shutil.which("nvcc"), *(shutil.which("nvcc", path=str(Path(home) / "bin")) for home in homes if home)]
    return next((path for path in candidates if path), None)


NVCC = find_nvcc()


def resources(report: str) -> dict[str, dict[str, int]]:
    """Registers and spilled bytes of each kernel in a report of ``ptxas -v``."""
    kernels = {}
    for part in re.split(r"Compiling entry function ", report)[1:]:
        name = part.split("'")[1]
        spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", part)
        registers = re.search(r"Used (\d+) registers", part)
        assert spills, f"ptxas says nothing of spills for {name}"
        assert registers, f"ptxas says nothing of registers for {name}"
        kernels[name] = {"spilled": int(spills[1]) + int(spills[2]), "registers": int(registers[1])}
    return kernels


def test_report_is_read():
    report = "ptxas info : Compiling entry function 'k' for 'sm_90'\n 8 bytes spill stores, 4 bytes spill loads\n"
    assert resources(report + "ptxas info : Used 40 registers")["k"] == {"spilled": 12, "registers": 40}


@pytest.mark.slow
@pytest.mark.skipif(NVCC is None, reason="no nvcc on PATH, in CUDA_HOME or under /usr/local/cuda*")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", SOURCES, ids=[s.name for s in SOURCES])
def test_compiles_without_spills(source, architecture, tmp_path):
    include = Path(torch.__file__).parent / "include"
    command = [NVCC, "-std=c++17", "-O3", "--expt-relaxed-constexpr", "-Werror", "all-warnings", "-Xptxas", "-v"]
    command += ["-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000", "-Xcompiler", "-fPIC,-Wall,-Wextra,-Wshadow"]
    command += [f"-gencode=arch=compute_{architecture},code=sm_{architecture}"]
    command += ["-I", str(ROOT / "csrc" / "include"), "-isystem", str(include)]
    result = subprocess.run(
        [*command, "-c", str(source), "-o", str(tmp_path / "object.o")], capture_output=True, text=True, timeout=1200
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert "warning" not in result.stderr.lower(), result.stderr[-4000:]
    kernels = resources(result.stderr)
    assert kernels
    assert {name: r for name, r in kernels.items() if r["spilled"]} == {}


def cuda_status() -> _backend.Status:
    return _backend.load()["cuda", "cuda"]


@pytest.mark.skipif(not cuda_status().available, reason=f"the CUDA backend cannot run: {cuda_status().reason}")
def test_streams_do_not_disturb_each_other():
    """Filters differ from call to call, and so must not live in memory that calls on other streams share."""
    x = torch.randn(2, 8, 64, 64, device="cuda")
    filters = [torch.randn(4, 4, device="cuda") for _ in range(16)]
    streams = [torch.cuda.Stream() for _ in filters]
    torch.cuda.synchronize()
    outputs = []
    for stream, f in zip(streams, filters, strict=True):
        with torch.cuda.stream(stream):
            outputs.append(imgops.upfirdn2d(x, f, padding=2, impl="cuda"))
    torch.cuda.synchronize()
    for y, f in zip(outputs, filters, strict=True):
        assert relative_error(y, imgops.upfirdn2d(x.double(), f, padding=2, impl="reference")) < 1e-5
