"""Every op has the files that docs/adding-an-op.md lists."""

from __future__ import annotations

from pathlib import Path

import pytest

import imgops
from imgops import _backend
from imgops.ops._registration import SCHEMAS
from tests.op_specs import SHEETS

ROOT = Path(__file__).resolve().parents[2]
#: ops whose formula or whose kernels stand in the file of another
FORMULA_OF = {"displace": "grid_sample", "style_loss": "gram_matrix", "wasserstein_loss": "gram_matrix"}
KERNEL_OF = {**FORMULA_OF, "modulated_conv2d": "fused_conv2d"}


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
    assert [file for file in files if not (ROOT / file).is_file()] == []
    assert list((ROOT / "csrc" / "cpu").rglob(f"{kernel}.cpp"))
    assert bool(list((ROOT / "csrc" / "cuda").glob(f"{stem}.cu"))) <= (op not in _backend.WITHOUT_CUDA)
    assert f"imgops.{op}(" in (ROOT / "docs" / "ops.md").read_text()
    assert f"`{op}`" in (ROOT / "CHANGELOG.md").read_text()


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
    assert [name for name in SCHEMAS if f'm.impl("{name}"' not in text] == []
