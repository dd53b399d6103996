"""What people install: a wheel, an editable checkout, an sdist; with a compiler and without.

Nothing is downloaded: each environment is fresh but sees the packages of this one. Objects that this checkout has
compiled are copied with their times, so that only what a test is about compiles.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMPILER = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)

slow = pytest.mark.slow
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on PATH (c++, g++ or clang++)")

#: every op on the backend that IMGOPS_TESTED names, or the automatic one
OPS = """
import os, torch, imgops
impl = os.environ.get("IMGOPS_TESTED")
x, f = torch.ones(1, 2, 4, 4), imgops.setup_filter([1, 3, 3, 1])
print(imgops.bias_act(x, torch.ones(2), act="relu", gain=1, impl=impl).sum().item())
print(imgops.upfirdn2d(x, f, up=2, padding=[2, 1, 2, 1], gain=4, impl=impl)[..., 2:-2, 2:-2].mean().item())
print(imgops.modulated_conv2d(x, torch.ones(1, 2, 1, 1), x[:, :, 0, 0], demodulate=False, impl=impl).mean().item())
"""
TINY = [
    *("--data", "samples:textures", "--resolution", "8", "--batch", "4", "--kimg", "0.008", "--log-kimg", "0.004"),
    *("--z-dim", "8", "--w-dim", "8", "--mapping-layers", "2", "--channel-base", "64", "--channel-max", "8"),
    *("--device", "cpu"),
]


def run(*command: object, cwd: Path, code: int | None = 0, **environment: str) -> str:
    """What a command prints on both streams; fails unless it ends with ``code`` (None: with any but 0)."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("IMGOPS_", "TRITON_")) and k != "PYTHONPATH"}
    result = subprocess.run(
        [str(c) for c in command],
        cwd=cwd,
        env={**kept, "IMGOPS_BUILD_CUDA": "0", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (result.returncode == code) if code is not None else result.returncode, result.stdout
    return result.stdout


def copy_tree(to: Path) -> Path:
    """This checkout without what was built, but with the compiled objects."""
    leave = shutil.ignore_patterns("*.so", "*.pyd", "_build_report.json", "__pycache__")
    for name in "imgops", "kernels", "csrc", "docs":
        shutil.copytree(ROOT / name, to / name, ignore=leave)
    for name in "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md":
        shutil.copy2(ROOT / name, to)
    for name in "Makefile", "requirements-dev.txt":
        shutil.copy2(ROOT / name, to)
    if (ROOT / "build" / "objects").is_dir():
        shutil.copytree(ROOT / "build" / "objects", to / "build" / "objects")
    return to


def fresh_environment(folder: Path) -> Path:
    """The folder of the programs of an environment that sees this one's packages but has none of its own."""
    venv.create(folder, symlinks=True)
    paths = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    (site / "outer.pth").write_text("".join(f"{p}\n" for p in sys.path if p.endswith("-packages")))
    # another project's package of this name; ours is imgops.kernels
    (site / "kernels").mkdir()
    (site / "kernels" / "__init__.py").write_text("whose = 'another project'\n")
    return Path(sysconfig.get_path("scripts", "venv", vars=paths))


def install(programs: Path, *what: object, cwd: Path, code: int | None = 0, **environment: str) -> str:
    options = ["--no-build-isolation", "--no-deps", "--force-reinstall", "-v"]
    python = programs / "python"
    return run(
        sys.executable, "-m", "pip", "--python", python, "install", *options, *what, cwd=cwd, code=code, **environment
    )


def build_wheel(tree: Path, to: Path, **environment: str) -> tuple[Path, str]:
    """(the wheel, what its build printed)."""
    output = run(
        *(sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-v", "-w", to, tree),
        cwd=to.parent,
        **environment,
    )
    return next(to.glob("*.whl")), output


def compiled(output: str) -> list[str]:
    """The sources that a build compiled."""
    return re.findall(r" -c (csrc/\S+)", output)


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return copy_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def wheel(tree, tmp_path_factory) -> Path:
    return build_wheel(tree, tmp_path_factory.mktemp("wheel") / "dist")[0]


@pytest.fixture(scope="module")
def programs(wheel, tmp_path_factory) -> Path:
    """The programs of an environment with the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    programs = fresh_environment(folder / "env")
    install(programs, wheel, cwd=folder)
    return programs


def test_pinned_packages_are_all_that_imgops_needs():
    """`make` installs imgops with --no-deps, after requirements-dev.txt and, where it exists, triton."""
    needed = re.search(r"install_requires=\[(.*?)\]", (ROOT / "setup.py").read_text(), re.DOTALL)[1]
    names = {n.lower() for n in re.findall(r'"([\w-]+)', needed)}
    lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    pinned = {m[1].lower() for line in lines if (m := re.match(r"([\w-]+)==[\d.]+", line))}
    assert len(names) >= 10
    assert names - pinned == {"triton"}


@slow
@needs_compiler
def test_wheel_holds_what_it_should(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    for name in (
        *(f"imgops/{n}" for n in ("__init__.py", "py.typed", "_build_report.json", f"_C{suffix}", f"_host{suffix}")),
        *(f"imgops/kernels/{p.name}" for p in (ROOT / "kernels").glob("*.py")),
        *(str(p.relative_to(ROOT)) for p in (ROOT / "imgops").rglob("*.py")),
        "imgops/models/encoders/default_encoder.safetensors",
        "imgops/models/encoders/imagenet_classes.txt",
        *(f"imgops/models/style/{name}.safetensors" for name in ("default_adain", "fast_hubble")),
    ):
        assert name in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {"imgops", wheel.name.split("-cp")[0] + ".dist-info"}


@slow
@needs_compiler
def test_wheel_runs_from_anywhere(programs, tmp_path):
    expected = ["64.0", "1.0", "2.0"]
    assert run(programs / "python", "-c", OPS, cwd=tmp_path, IMGOPS_TESTED="cpu").split() == expected
    facts = json.loads(run(programs / "imgops", "info", "--json", cwd=tmp_path))
    assert Path(facts["package"]).is_relative_to(programs.parent.resolve())
    assert facts["ops"]["upfirdn2d"]["cpu"]["chosen"] == "cpu"
    skipped = {"built": False, "reason": "IMGOPS_BUILD_CUDA=0", "remedy": "unset IMGOPS_BUILD_CUDA"}
    assert facts["build"]["_C_cuda"] == skipped
    assert "yes *" in run(programs / "imgops", "info", cwd=tmp_path)


@slow
@needs_compiler
def test_kernels_live_beside_another_package_of_that_name(programs, tmp_path):
    pytest.importorskip("triton")
    code = "import kernels, imgops.kernels.bias_act as k; print(kernels.whose, k.__file__, sep='\\n')"
    whose, path = run(programs / "python", "-c", code, cwd=tmp_path).splitlines()
    assert whose == "another project"
    assert Path(path).parent.parent.name == "imgops"


@slow
@needs_compiler
def test_wheel_trains_without_a_compiler(programs, tmp_path):
    run(programs / "imgops", "train", "--out", tmp_path / "run", *TINY, cwd=tmp_path, PATH=str(tmp_path))
    assert (tmp_path / "run" / "checkpoint-0000000008" / "G_ema.safetensors").is_file()
    run(programs / "imgops", "generate", "run", "--seeds", "0", "--out", "made", cwd=tmp_path, PATH=str(tmp_path))
    assert (tmp_path / "made" / "grid.png").is_file()


@slow
@needs_compiler
def test_editable_install_in_and_outside_the_root(tmp_path):
    tree = copy_tree(tmp_path / "tree")
    programs = fresh_environment(tmp_path / "env")
    install(programs, "-e", tree, cwd=tmp_path)
    code = OPS + "import kernels, imgops.kernels as ours\nprint(imgops.__file__, *ours.__path__)"
    for folder in tree, tmp_path:
        *results, paths = run(programs / "python", "-c", code, cwd=folder, IMGOPS_TESTED="cpu").splitlines()
        assert results == ["64.0", "1.0", "2.0"]
        assert paths.split() == [str(tree / "imgops" / "__init__.py"), str(tree / "kernels")]
    # what is built no longer does not stay behind to be loaded
    assert list((tree / "imgops").glob("_C*.so"))
    install(programs, "-e", tree, cwd=tmp_path, IMGOPS_BUILD_CPU="0")
    assert not list((tree / "imgops").glob("*.so"))


@slow
def test_install_without_a_compiler_succeeds_and_says_what_is_missing(tmp_path):
    tree = copy_tree(tmp_path / "tree")
    shutil.rmtree(tree / "build", ignore_errors=True)
    programs = fresh_environment(tmp_path / "env")
    output = install(programs, tree, cwd=tmp_path, CXX="/nonexistent")
    reason = "/nonexistent does not run: No such file or directory"
    for line in (
        "imgops: built no extension",
        f"imgops: without _C: {reason}",
        "imgops: to have _C: correct CXX, or unset it, and install again",
        "imgops: without _C_cuda: IMGOPS_BUILD_CUDA=0",
        "imgops: on the CPU the ops run on the reference in plain PyTorch; on a GPU on Triton",
    ):
        assert line in [printed.strip() for printed in output.splitlines()]

    results = run(programs / "python", "-c", OPS, cwd=tmp_path)
    assert results.count("UserWarning") == 1
    assert f"imgops runs without its CPU kernels: {reason}" in results
    assert results.split()[-3:] == ["64.0", "1.0", "2.0"]
    facts = json.loads(run(programs / "imgops", "info", "--json", cwd=tmp_path))
    assert facts["ops"]["bias_act"]["cpu"]["chosen"] == "reference"
    assert facts["ops"]["bias_act"]["cpu"]["backends"]["cpu"]["reason"] == reason
    remedy = f"correct CXX, or unset it, then pip install --no-build-isolation {tree}"
    assert facts["host"] == {"available": False, "reason": reason, "remedy": remedy}
    assert facts["ops"]["bias_act"]["cpu"]["backends"]["cpu"]["remedy"] == remedy
    assert "/nonexistent" in run(programs / "imgops", "info", cwd=tmp_path)


@slow
def test_a_build_that_was_asked_for_fails_with_the_reason(tmp_path):
    tree, programs = copy_tree(tmp_path / "tree"), fresh_environment(tmp_path / "env")
    shutil.rmtree(tree / "build", ignore_errors=True)
    for environment, expected in (
        (
            {"IMGOPS_BUILD_CPU": "1", "PATH": str(tmp_path), "CXX": ""},
            "imgops: imgops._C was asked for by IMGOPS_BUILD_CPU=1 and cannot be built: "
            "no C++ compiler was found (c++, g++ or clang++ on PATH, or CXX)",
        ),
        ({"IMGOPS_BUILD_CPU": "yes"}, "IMGOPS_BUILD_CPU must be 0 or 1; got 'yes'"),
    ):
        output = install(programs, tree, cwd=tmp_path, code=None, **environment)
        assert expected in [line.strip() for line in output.splitlines()]
        assert "Traceback" not in output


@slow
@needs_compiler
def test_only_what_changed_is_compiled_again(wheel, tree, tmp_path):
    again, output = build_wheel(tree, tmp_path / "again")
    assert compiled(output) == []
    assert any(name.startswith("imgops/_C") for name in zipfile.ZipFile(again).namelist())
    (tree / "csrc" / "library.cpp").touch()
    assert compiled(build_wheel(tree, tmp_path / "touched")[1]) == ["csrc/library.cpp"]
    # an extension of an earlier build is not packed into a wheel that is to be without
    without, _ = build_wheel(tree, tmp_path / "without", IMGOPS_BUILD_CPU="0")
    assert not any(name.endswith(".so") for name in zipfile.ZipFile(without).namelist())


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """The source distribution of this checkout's tracked files, unpacked."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("no repository, which says what belongs to the sources")
    folder = tmp_path_factory.mktemp("sdist")
    for name in tracked():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / "tree" / name)
    run(sys.executable, "-c", "import setuptools.build_meta as b; b.build_sdist('dist')", cwd=folder / "tree")
    (archive,) = (folder / "tree" / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder / "unpacked", filter="data")
    (result,) = (folder / "unpacked").iterdir()
    return result


def tracked() -> list[str]:
    """The files that git tracks, as they stand."""
    output = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in output.splitlines() if (ROOT / name).is_file()]


@slow
def test_sdist_holds_every_source(unpacked, tmp_path):
    names = {str(p.relative_to(unpacked)) for p in unpacked.rglob("*") if p.is_file()}
    sources = set(tracked())
    assert len(sources) > 250
    assert sources <= names
    # and nothing but what describes it
    assert {name.partition("/")[0] for name in names - sources} <= {"PKG-INFO", "setup.cfg", "imgops.egg-info"}
    # it builds from what it holds
    built, _ = build_wheel(unpacked, tmp_path / "dist", IMGOPS_BUILD_CPU="0")
    assert "imgops/kernels/bias_act.py" in zipfile.ZipFile(built).namelist()


@slow
def test_tests_of_the_sdist_are_collected_and_run_there(unpacked):
    here = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
    everything = run(sys.executable, *here, "--collect-only", "-qq", cwd=unpacked)
    for path in (ROOT / "tests").rglob("test_*.py"):
        assert f"{path.relative_to(ROOT)}: " in everything
    some = ("tests/test_layering.py", "tests/test_crops.py")
    run(sys.executable, *here, "-m", "not slow", *some, cwd=unpacked)
