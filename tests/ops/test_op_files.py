"""Every op has the files that docs/adding-an-op.md lists."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import imgops
from imgops import _backend
from imgops.ops._registration import SCHEMAS
from tests.op_specs import SHEETS

ROOT = Path(__file__).resolve().parents[2]
#: ops whose formula or whose kernels stand in the file of another
FORMULA_OF = {"displace": "grid_sample", "style_loss": "gram_matrix", "wasserstein_loss": "gram_matrix"}
KERNEL_OF = {**FORMULA_OF, **dict.fromkeys(("conv2d", "conv_transpose2d", "modulated_conv2d"), "fused_conv2d")}
#: ops that run in CUDA C++ by the kernels of others, and public names of imgops.ops that are no ops
IN_CUDA_BY_OTHERS, NO_OPS = {"conv2d", "conv_transpose2d", "modulated_conv2d"}, {"setup_filter"}


def home(op: str) -> str:
    """The stem of the op's file in imgops/ops."""
    return imgops._HOMES[op].rpartition(".")[2]


@pytest.mark.parametrize("op", _backend.OPS)
def test_an_op_has_all_its_files(op):
    stem = home(op)
    formula, kernel = FORMULA_OF.get(op, stem), KERNEL_OF.get(op, stem)
    files = [
        f"imgops/ops/{stem}.py",
        f"imgops/reference/{formula}.py",
        f"kernels/{kernel}.py",
        f"tests/op_specs/{op}.py",
        f"tests/ops/test_{FORMULA_OF.get(stem, stem)}.py",
    ]
    missing = [file for file in files if not (ROOT / file).is_file()]
    missing += [] if list((ROOT / "csrc" / "cpu").rglob(f"{kernel}.cpp")) else [f"csrc/cpu/<group>/{kernel}.cpp"]
    assert not missing, "docs/adding-an-op.md tells what stands in these"
    has_cuda = list((ROOT / "csrc" / "cuda").glob(f"{stem}.cu")) or op in IN_CUDA_BY_OTHERS
    assert bool(has_cuda) == (op not in _backend.WITHOUT_CUDA), "WITHOUT_CUDA in imgops/_backend.py"
    assert f"imgops.{op}(" in (ROOT / "docs" / "ops.md").read_text(), "docs/ops.md has no example of it"
    assert f"`{op}`" in (ROOT / "CHANGELOG.md").read_text(), "CHANGELOG.md does not name it"


def test_every_public_op_is_among_the_ops():
    public = {name for name, home in imgops._HOMES.items() if home.startswith(".ops.")} - NO_OPS
    assert public == set(_backend.OPS), "_HOMES in imgops/__init__.py, OPS in imgops/_backend.py"
    declared = (ROOT / "imgops" / "__init__.py").read_text()
    assert [op for op in sorted(public) if f"import {op} as {op}\n" not in declared] == [], "under TYPE_CHECKING"


def test_the_kernels_are_built_where_there_is_a_compiler():
    """pip succeeds where a kernel does not compile: imgops then runs on the reference, and tests on the CPU skip."""
    status = _backend.load()["cpu", "cpu"]
    if shutil.which("c++") is None or "IMGOPS_BUILD_CPU=0" in status.reason:
        pytest.skip("no kernels were wanted, or there is no compiler")
    assert status.available, f"{status.reason}; build again: python -m pip install --no-build-isolation --no-deps -e ."


@pytest.mark.parametrize("op", _backend.OPS)
def test_a_sheet_has_samples_of_every_kind(op):
    sheet = SHEETS[op]
    assert sheet.calls
    assert sheet.sized
    assert sheet.forms
    assert sheet.pictures()
    assert list(sheet.problems(True))
    assert sheet.cases(True)
    assert sheet.comparisons is not None
    # the square root of a matrix has no bound that random calls could hold
    assert sheet.random is not None or op == "wasserstein_loss"


def test_every_schema_has_a_kernel_on_the_cpu():
    text = (ROOT / "csrc" / "library.cpp").read_text()
    assert [name for name in SCHEMAS if f'm.impl("{name}"' not in text] == [], "m.impl in csrc/library.cpp"
