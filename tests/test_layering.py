"""Imports run one way, from the command line down to the reference, and ``import imgops`` loads next to nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.earlier_places import MOVED

ROOT = Path(__file__).resolve().parent.parent

#: packages by level, lowest first: a file imports from its own package and from lower levels alone
PRIVATE = ("_device", "_eager", "_interrupts", "_lazy", "_memory", "_optimizer_state", "_settings", "_table")
LEVELS = (
    ("_install", "_epilogue"),
    ("reference", "kernels", "_C", "_C_cuda", "_host", "_backend", *PRIVATE),
    ("ops",),
    ("nn",),
    ("models", "acceleration"),
    ("data",),
    ("metrics",),
    ("training",),
    ("style", "dream"),
    ("cli",),
    ("__main__",),
)
LEVEL = {package: level for level, packages in enumerate(LEVELS) for package in packages}

#: what each of the lower packages may import besides imgops and the standard library
THIRD_PARTY = {
    "reference": {"torch"},
    "kernels": {"torch", "triton"},
    "_backend": {"torch"},
    "_lazy": set(),
    "_device": {"torch"},
    "_eager": {"torch"},
    "_install": set(),
    "_interrupts": set(),
    "_epilogue": {"torch"},
    "_settings": set(),
    "_table": set(),
    "acceleration": {"torch"},
    "_memory": {"torch"},
    "_optimizer_state": {"torch"},
    "ops": {"torch"},
    "nn": {"torch"},
    "models": {"torch", "safetensors", "timm"},
    "data": {"torch", "numpy", "PIL", "skimage", "av", "webdataset", "lmdb"},
}

FILES = [*sorted((ROOT / "imgops").rglob("*.py")), *sorted((ROOT / "kernels").rglob("*.py"))]


def module_of(path: Path) -> tuple[str, ...]:
    """("imgops", package, ...) of a file; the files of kernels/ are imgops.kernels."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("imgops", *parts) if parts[0] == "kernels" else parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def public_names() -> dict[str, str]:
    """The package that each public name of imgops comes from."""
    tree = ast.parse((ROOT / "imgops" / "__init__.py").read_text())
    homes = next(n.value for n in ast.walk(tree) if isinstance(n, ast.Assign) and n.targets[0].id == "_HOMES")
    return {name: home.split(".")[1] for name, home in ast.literal_eval(homes).items()}


def imports(source: str, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every module or name that a file of ``package`` imports, absolute; those inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            yield from ((*base, alias.name) for alias in node.names)


def faults(module: tuple[str, ...], is_package: bool, source: str) -> list[str]:
    """The imports of a file that break the rules, in words."""
    package, homes, found = module[1], public_names(), []
    # the earlier place of a module, which nothing of ours imports, may pass names on from the next level
    limit = LEVEL[package] + 2 * (".".join(module) in MOVED)
    for target in imports(source, module if is_package else module[:-1]):
        if target[0] == "imgops":
            # imgops itself, or a name such as __version__, is below everything
            other = homes.get(target[1], target[1]) if len(target) > 1 else ""
            if other in LEVEL and other != package and LEVEL[other] >= limit:
                found.append(f"{'.'.join(module)} imports {'.'.join(target)}, which is not below it")
            elif other and other not in LEVEL and not other.startswith("__"):
                found.append(f"{'.'.join(module)} imports {'.'.join(target)}, whose package has no level")
        elif target[0] not in sys.stdlib_module_names and target[0] not in THIRD_PARTY.get(package, {target[0]}):
            found.append(f"{'.'.join(module)} imports {target[0]}; it may import {', '.join(THIRD_PARTY[package])}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    module = module_of(path)
    if len(module) == 1:
        pytest.skip("the public names, which load on first use")
    assert module[1] in LEVEL, "a new package needs its level in this test and in docs/design.md"
    assert not faults(module, path.name == "__init__.py", path.read_text())


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("imgops.ops.new", "from ..nn import EqualizedConv2d"),
        ("imgops.ops.new", "def f():\n    import imgops.models.stylegan2"),
        ("imgops.reference.new", "from imgops.kernels import bias_act"),
        ("imgops.reference.new", "from .. import upfirdn2d"),
        ("imgops.kernels.new", "import numpy"),
        ("imgops.kernels.new", "from imgops.ops._common import namespace"),
        ("imgops.nn.new", "from PIL import Image"),
        ("imgops.data.new", "from ..training import config"),
        ("imgops.training.new", "from ..paint import brush"),
    ],
)
def test_an_arrow_that_runs_back_is_found(module, source):
    assert len(faults(tuple(module.split(".")), False, source)) == 1


def test_single_pictures_need_no_video_and_no_data_set():
    for path in (ROOT / "imgops" / "data" / "pictures").glob("*.py"):
        for target in imports(path.read_text(), module_of(path) if path.stem == "__init__" else module_of(path)[:-1]):
            assert target[:3] not in {("imgops", "data", other) for other in ("video", "datasets")}, path.name


def loaded_by(code: str) -> set[str]:
    """Names of the modules in a fresh interpreter after ``code``."""
    code += "\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout))


def test_import_loads_itself_alone():
    """No torch, no Triton, no op: ``import imgops`` costs what reading one small file costs."""
    new = loaded_by("import imgops") - loaded_by("import importlib, pathlib, typing, json")
    assert {name.split(".")[0] for name in new} - set(sys.stdlib_module_names) == {"imgops"}
    assert {name for name in new if name.startswith("imgops")} == {"imgops"}


def test_ops_load_no_triton_and_nothing_beyond_torch():
    # the interpreter of Triton is asked for by conftest; here it is a plain call on the CPU
    code = "import os; os.environ.pop('TRITON_INTERPRET', None); "
    new = loaded_by(code + "import imgops, torch; imgops.bias_act(torch.zeros(1, 1))") - loaded_by(
        "import torch, torch.library"
    )
    ours = {name for name in new if name.split(".")[0] in ("triton", "PIL", "typer", "rich", "numpy", "skimage")}
    assert not ours
    packages = {name.split(".")[1] for name in new if name.startswith("imgops.")}
    assert packages <= {"_install", "_epilogue", "_backend", "reference", "ops"}


def test_names_of_the_package():
    import imgops

    assert set(public_names()) == set(imgops.__all__) - {"__version__"}
    assert set(imgops.__all__) <= set(dir(imgops))
    with pytest.raises(AttributeError, match="no attribute 'upfirdn3d'"):
        imgops.upfirdn3d  # noqa: B018
