"""The schema of each op stands in Python; csrc/library.cpp and both namespaces say the same, argument by argument."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import imgops.ops.adain
import imgops.ops.bias_act
import imgops.ops.concat_conv2d
import imgops.ops.depthwise_conv2d
import imgops.ops.efdm
import imgops.ops.filtered_lrelu
import imgops.ops.fused_conv2d
import imgops.ops.gram_matrix
import imgops.ops.grid_sample
import imgops.ops.nearest_neighbor
import imgops.ops.squared_norm
import imgops.ops.upfirdn2d  # noqa: F401
from imgops.ops._common import STATUSES
from imgops.ops._registration import SCHEMAS

LIBRARY = Path(__file__).resolve().parents[2] / "csrc" / "library.cpp"


def written() -> dict[str, str]:
    """{name: schema} of csrc/library.cpp, whose strings are joined as the compiler joins them."""
    definitions = re.findall(r'm\.def\(\s*((?:"[^"]*"\s*)+)\)', LIBRARY.read_text())
    schemas = ("".join(re.findall(r'"([^"]*)"', text)) for text in definitions)
    return {schema.partition("(")[0]: schema for schema in schemas}


def parts(schema: str | torch.FunctionSchema) -> list[tuple[str, str]]:
    """(name, type) of each argument, then of each result."""
    parsed = torch._C.parse_schema(schema) if isinstance(schema, str) else schema
    return [(a.name, str(a.real_type)) for a in (*parsed.arguments, *parsed.returns)]


def test_both_sides_have_the_same_ops():
    assert SCHEMAS.keys() == written().keys(), "left: imgops/ops (and imported above); right: m.def in csrc/library.cpp"


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schema_is_the_same_in_c_plus_plus(name):
    assert parts(SCHEMAS[name]) == parts(written()[name])
    registered = [space for space in (torch.ops.imgops, torch.ops.imgops_triton) if hasattr(space, name)]
    assert registered or not STATUSES["cpu", "cpu"].available
    for space in registered:
        assert parts(getattr(space, name).default._schema) == parts(SCHEMAS[name])
