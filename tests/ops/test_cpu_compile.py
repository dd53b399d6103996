"""Every .cpp file through the C++ compiler: no warning, and no name that hides another."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pybind11
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = [*sorted((ROOT / "csrc" / "cpu").rglob("*.cpp")), *sorted((ROOT / "csrc").glob("*.cpp"))]
COMPILER = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on PATH (c++, g++ or clang++)")
@pytest.mark.parametrize("source", SOURCES, ids=[s.name for s in SOURCES])
def test_compiles_without_warnings(source):
    command = [COMPILER, "-std=c++17", "-fsyntax-only", "-fopenmp-simd", "-Wall", "-Wextra", "-Wshadow", "-Werror"]
    command += ["-DIMGOPS_X86", "-DTORCH_TARGET_VERSION=0x020a000000000000"]
    command += [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'csrc' / 'include'}"]
    for headers in (Path(torch.__file__).parent / "include", pybind11.get_include(), sysconfig.get_paths()["include"]):
        command += ["-isystem", str(headers)]
    result = subprocess.run([*command, str(source)], capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-4000:]
