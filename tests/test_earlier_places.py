"""Modules that have moved: programs import their names from the earlier place as before, and get the same objects."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import subprocess
import sys

import pytest

from tests.earlier_places import MOVED
from tests.public_surface import MODULES, RECORD
from tests.test_layering import FILES, ROOT, imports, module_of


def recorded(place: str) -> set[str]:
    """The names of a module in the record of the public surface."""
    lines = RECORD.read_text().splitlines()
    names = {line.removeprefix(f"{place}.") for line in lines if line.startswith(f"{place}.")}
    return {name for name in names if name.isidentifier()}


@pytest.mark.parametrize("place", MOVED)
def test_names_are_the_same_objects(place):
    homes = [vars(importlib.import_module(home)) for home in MOVED[place]]
    public = {name for home in homes for name in home if not name.startswith("_")}
    assert recorded(place) <= public
    assert recorded(place) or not place.startswith(MODULES)
    found: dict[str, object] = {}
    exec(f"import {place}\nfrom {place} import {', '.join(public)}", found)
    for name in public:
        assert any(found[name] is home.get(name) for home in homes), name
        assert found[name] is getattr(importlib.import_module(place), name)


@pytest.mark.parametrize("place", MOVED)
def test_an_earlier_place_only_passes_names_on(place):
    docstring, *statements = ast.parse((ROOT / (place.replace(".", "/") + ".py")).read_text()).body
    assert ast.literal_eval(docstring.value) == "The earlier place of these names."
    package, _, _ = place.rpartition(".")
    if isinstance(statements[-1], ast.If):
        assert ast.unparse(statements.pop()) == "if __name__ == '__main__':\n    main()"
    homes = [importlib.util.resolve_name(ast.unparse(node).split()[1], package) for node in statements]
    assert homes == MOVED[place]
    assert all(ast.unparse(node).endswith(" import *") for node in statements)


def test_our_own_code_imports_from_the_new_places():
    files = [*FILES, *(path for folder in ("benchmarks", "docs", "tests") for path in (ROOT / folder).rglob("*.py"))]
    for path in files:
        if ".".join(module_of(path)) in MOVED:
            continue
        package = module_of(path) if path.name == "__init__.py" else module_of(path)[:-1]
        for target in imports(path.read_text(), package):
            assert {".".join(target), ".".join(target[:-1])}.isdisjoint(MOVED), path.relative_to(ROOT)


def test_the_encoder_is_trained_from_the_earlier_place_too():
    command = [sys.executable, "-m", "imgops.training.encoder", "--help"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Train the encoder that ships with imgops." in result.stdout
