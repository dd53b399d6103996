"""``make sanitize``: the CPU kernels with AddressSanitizer and UndefinedBehaviorSanitizer, under the tests of the ops.

A copy of the sources under build/sanitize is built and tested, so that the extensions in use stay as they are. It needs
gcc, whose sanitizers' libraries are loaded into Python before all others; Triton's kernels have no part in this.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / "build" / "sanitize"
#: checks at every access leave little to optimize, and take the compiler minutes where it tries
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1 -O1"


def main() -> None:
    """Copy, build, test; exit with pytest's status."""
    compiler = os.environ.get("CXX", "g++")
    libraries = [_library(compiler, name) for name in ("libasan.so", "libubsan.so")]
    for name in "imgops", "kernels", "benchmarks", "tests", "csrc":
        for path in (COPY / name).rglob("*.*"):
            if path.is_file() and not (ROOT / path.relative_to(COPY)).exists():
                path.unlink()
        # what is unchanged keeps its time, so that a second run builds only what changed
        shutil.copytree(
            ROOT / name, COPY / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.so", "_build_report.json")
        )
    for name in "setup.py", "pyproject.toml", "README.md":
        shutil.copy2(ROOT / name, COPY / name)
    environment = {**os.environ, "CXX": compiler, "CXXFLAGS": FLAGS, "IMGOPS_BUILD_CPU": "1", "IMGOPS_BUILD_CUDA": "0"}
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=COPY, env=environment, check=True)

    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        # Python and torch never free what they hold to the end
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "TRITON_INTERPRET": "0",
        "PYTHONPATH": str(COPY),
    }
    # those that look at compilers and processes have nothing to show here
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", "tests/ops"]
    command += ["-k", "not compile and not export and not opcheck and not emulated and not triton", *sys.argv[1:]]
    sys.exit(subprocess.run(command, cwd=COPY, env=environment).returncode)


def _library(compiler: str, name: str) -> str:
    command = [compiler, f"-print-file-name={name}"]
    path = Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    if not path.is_absolute():
        sys.exit(f"make sanitize: {compiler} has no {name}; install gcc with its sanitizers, or set CXX to it")
    return str(path.resolve())


if __name__ == "__main__":
    main()
