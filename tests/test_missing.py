"""What is missing is named with what installs it: packages, and extensions by the reason why they were not built."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from setuptools import Distribution, Extension

from imgops import _backend, _install

ROOT = Path(__file__).resolve().parent.parent
SETUP = runpy.run_path(str(ROOT / "setup.py"))

#: runs each command as the program does, without one package; prints the code and what it wrote on stderr
COMMANDS = """
import contextlib, importlib.util, io, json, sys
missing, commands = sys.argv[1], json.loads(sys.argv[2])
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Finder())
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.split(".")[0] == missing else find(name, *rest)
from imgops.cli import main
for command in commands:
    sys.argv = ["imgops", *command]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            main()
        except SystemExit as end:
            code = end.code
    print(json.dumps([command[0], code, errors.getvalue()]))
"""


def without(missing: str, folder: Path) -> dict[str, tuple[int, str]]:
    """{command: (exit code, stderr)} of the commands where a package is not installed."""
    (folder / "data").mkdir()
    for i in range(4):
        Image.new("RGB", (32, 32), (60 * i, 0, 0)).save(folder / "data" / f"{i}.png")
    picture = str(folder / "data" / "0.png")
    tiny = ["--resolution", "8", "--channel-base", "64", "--channel-max", "8", "--mapping-layers", "1"]
    tiny += ["--kimg", "0.004", "--batch", "4", "--z-dim", "8", "--w-dim", "8", "--device", "cpu"]
    commands = [
        ["--help"],
        ["info"],
        ["train", "--data", str(folder / "data"), "--out", str(folder / "run"), *tiny],
        ["generate", str(folder / "run"), "--seeds", "0", "--out", str(folder / "made")],
        ["dream", "noise", "-o", str(folder / "dream.png"), "--size", "32", "--octaves", "1", "--steps", "1"],
        ["style", picture, picture, "-o", str(folder / "style.png"), "--size", "32", "--method", "adain"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, missing, json.dumps(commands)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: (code, errors) for name, code, errors in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("missing", ["typer", "rich", "torch"])
def test_without_what_every_command_needs_a_line_says_how_to_install_it(missing, tmp_path):
    line = f"imgops: error: the package {missing} is not installed; install it with: pip install {missing}\n"
    ended = without(missing, tmp_path)
    if missing == "torch":
        assert ended.pop("--help") == (0, "")
    assert len(ended) >= 5
    assert set(ended.values()) == {(2, line)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "package"),
    [
        ("numpy", "numpy"),
        ("PIL", "Pillow"),
        ("safetensors", "safetensors"),
        ("skimage", "scikit-image"),
        ("matplotlib", "matplotlib"),
        ("tensorboard", "tensorboard"),
        ("triton", "triton"),
        ("av", "av"),
    ],
)
def test_without_a_package_a_command_works_or_a_line_says_how_to_install_it(missing, package, tmp_path):
    ended = without(missing, tmp_path)
    assert ended.pop("--help") == (0, "")
    assert ended.pop("info")[0] == 0
    for command, (code, errors) in ended.items():
        last = errors.splitlines()[-1] if errors else ""
        told = f"pip install {package}" in last and package in last and last.startswith("imgops: error: ")
        # what no picture comes out of for want of a run is the fault of train, which has told
        assert code == 0 or told or (command == "generate" and ended["train"][0] == 2), (command, errors)
        assert "Traceback" not in errors


NVCC = """#!/bin/sh
case " $* " in
    *" --dryrun "*) echo "#$ TOP=/toolkit" >&2 ;;
    *) echo "catastrophe" >&2; exit 1 ;;
esac
"""


def attempt(name: str, folder: Path) -> dict[str, object]:
    """What the build of an extension reports."""
    command = SETUP["BuildExtensions"](Distribution())
    command.build_lib, command.package, command.inplace = str(folder / "lib"), None, False
    extension = Extension(f"imgops.{name}", sources=[])
    command.ext_map, command.extensions = {}, [extension]
    with ThreadPoolExecutor(1) as command.pool:
        return command.attempt(extension)


@pytest.mark.parametrize(
    ("name", "environment", "reason", "remedy"),
    [
        ("_C", {"IMGOPS_BUILD_CPU": "0"}, "IMGOPS_BUILD_CPU=0", "unset IMGOPS_BUILD_CPU"),
        ("_host", {"IMGOPS_BUILD_CPU": "0"}, "IMGOPS_BUILD_CPU=0", "unset IMGOPS_BUILD_CPU"),
        ("_C_cuda", {"IMGOPS_BUILD_CUDA": "0"}, "IMGOPS_BUILD_CUDA=0", "unset IMGOPS_BUILD_CUDA"),
        ("_C", {"PATH": "", "CXX": ""}, "no C++ compiler was found", "install a C++17 compiler"),
        ("_C", {"CXX": "/nonexistent"}, "/nonexistent does not run", "correct CXX, or unset it"),
        ("_C", {"CXX": "false"}, "false failed", "correct CXX, or unset it"),
        ("_C", {"CXX": "", "PATH": "fakes"}, "c++ failed: catastrophe", "mend what c++ reports, or set CXX to another"),
        ("_host", {"no": "pybind11"}, "pybind11 is not installed where the build runs", "pip install pybind11"),
        ("_C", {"no": "torch"}, "torch is not installed where the build runs", "pip install torch"),
        ("_C_cuda", {"CUDA_HOME": "/nonexistent"}, "nvcc was not found", "install the CUDA toolkit"),
        ("_C_cuda", {"CUDA_HOME": "", "PATH": ""}, "nvcc was not found", "install the CUDA toolkit"),
        (
            "_C_cuda",
            {"CUDA_HOME": "toolkit", "TORCH_CUDA_ARCH_LIST": "new"},
            "TORCH_CUDA_ARCH_LIST must list versions such as 8.0;9.0+PTX; got 'new'",
            "correct TORCH_CUDA_ARCH_LIST, or unset it",
        ),
        ("_C_cuda", {"CUDA_HOME": "toolkit"}, "nvcc failed: catastrophe", "mend what nvcc reports, or set CUDA_HOME"),
    ],
    ids=str,
)
def test_every_reason_of_the_build_has_its_remedy(name, environment, reason, remedy, tmp_path, monkeypatch):
    for variable in "IMGOPS_BUILD_CPU", "IMGOPS_BUILD_CUDA", "TORCH_CUDA_ARCH_LIST", "CUDA_PATH":
        monkeypatch.delenv(variable, raising=False)
    for tool in "toolkit/bin/nvcc", "fakes/c++":
        (tmp_path / tool).parent.mkdir(parents=True)
        (tmp_path / tool).write_text(NVCC)
        (tmp_path / tool).chmod(0o755)
    for key, value in environment.items():
        if key == "no":
            monkeypatch.setitem(sys.modules, value, None)
            monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        else:
            monkeypatch.setenv(key, str(tmp_path / value) if value in ("toolkit", "fakes") else value)
    if environment.get("PATH") == "":
        monkeypatch.setenv("PATH", str(tmp_path))
    # objects of the real build are neither taken nor touched
    monkeypatch.setitem(SETUP["compile_object"].__globals__, "OBJECTS", tmp_path / "objects")
    report = attempt(name, tmp_path)
    assert report["built"] is False
    assert reason in report["reason"]
    assert report["remedy"].startswith(remedy)
    # and what a user is told of it
    monkeypatch.setattr(_backend, "build_report", lambda: {name: report})
    status = _backend.not_built(name)
    assert status.reason == report["reason"]
    assert status.remedy == f"{report['remedy']}, then {_install.reinstall_command()}"
    if "compiler" in status.remedy:
        assert "BUILD" not in str(environment)


def test_an_extension_of_another_python_is_not_taken_for_one_that_was_not_built(monkeypatch, tmp_path):
    monkeypatch.setattr(_backend, "build_report", lambda: {"_C": {"built": True}})
    monkeypatch.setattr(_backend, "__file__", str(tmp_path / "imgops" / "_backend.py"))
    (tmp_path / "imgops").mkdir()
    (tmp_path / "imgops" / "_C.cpython-38-x86_64-linux-gnu.so").touch()
    status = _backend.not_built("_C")
    assert status.reason == "the extension was built for another Python (_C.cpython-38-x86_64-linux-gnu.so)"
    assert status.remedy == _install.reinstall_command()


def test_the_command_that_installs_again_names_what_this_copy_came_from(monkeypatch, tmp_path):
    command = "pip install --no-build-isolation"
    assert _install.reinstall_command() == f"{command} -e {ROOT}"
    # no checkout around it
    monkeypatch.setattr(_install, "__file__", str(tmp_path / "site-packages" / "imgops" / "_install.py"))
    folder, sdist, wheel = tmp_path / "my checkout", tmp_path / "imgops-1.tar.gz", tmp_path / "imgops-1-py3.whl"
    folder.mkdir()
    for file in sdist, wheel:
        file.touch()
    for url, expected in (
        (folder.as_uri(), f"{command} '{folder}'"),
        (sdist.as_uri(), f"{command} {sdist}"),
        (wheel.as_uri(), f"{command} PATH"),
        ((tmp_path / "gone").as_uri(), f"{command} PATH"),
        ("https://example.org/imgops-1.tar.gz", f"{command} PATH"),
        (None, f"{command} PATH"),
    ):

        class Installed:
            def read_text(self, name, url=url):
                return None if url is None else json.dumps({"url": url})

        monkeypatch.setattr("importlib.metadata.distribution", lambda name, found=Installed: found())
        assert _install.reinstall_command().partition(" (")[0] == expected
