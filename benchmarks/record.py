"""What the GPU harness writes: one JSON per section, kept up to date case by case, and a description of the machine."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
#: the records that are kept with the code, and where a run writes unless asked to go there
RESULTS, BUILD = ROOT / "benchmarks" / "results", ROOT / "build"
#: what a result depends on; a change of any of these files makes it stale
SOURCES = ("csrc", "kernels", "imgops", "benchmarks", "setup.py", "tests/op_specs", "tests/golden.py")
#: what only writes pages of results
PAGES = ("benchmarks/performance.py", "benchmarks/report.py")
#: results of an earlier run are kept only where all of these are the same
IDENTITY = ("commit", "sources", "device", "driver", "cuda", "torch", "triton", "dry")


def add_out(parser: argparse.ArgumentParser, kept: Path, default: str) -> None:
    """Give a program ``--out PATH`` and ``--record``, which stands for what is kept with the code.

    ``out`` is None where neither is given.
    """
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--out", type=Path, help=f"where the results go (default {default})")
    kept_name = kept.relative_to(ROOT)
    where.add_argument(
        "--record", dest="out", action="store_const", const=kept, help=f"they go to {kept_name}, kept with the code"
    )


def output_of(*command: str) -> str | None:
    """The output of a command, or None where it fails or does not exist."""
    try:
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def sources_digest() -> str:
    """A digest of the source files, which also tells trees without a commit apart."""
    digest = hashlib.sha256()
    for name in SOURCES:
        path = ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            name = file.relative_to(ROOT).as_posix()
            if file.suffix in (".py", ".cpp", ".h", ".cu", ".cuh") and name not in PAGES:
                digest.update(f"{name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def commit() -> str:
    """The commit of the checkout, ``+`` where files differ from it; IMGOPS_COMMIT where there is no repository."""
    name = output_of("git", "rev-parse", "--short=12", "HEAD")
    if not name:
        return os.environ.get("IMGOPS_COMMIT", "unknown")
    others = [f":!{path}" for path in (*PAGES, "benchmarks/results")]
    return name + ("+" if output_of("git", "status", "--porcelain", "--", *SOURCES, *others) else "")


def cpu_name() -> str:
    """The processor's model, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine(device: str, dry: bool) -> dict[str, Any]:
    """The device, its driver, the versions, the commit and the date: without these a figure counts for nothing."""
    import torch

    on_gpu = torch.device(device).type == "cuda"
    driver = output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") if on_gpu else None
    try:
        triton = metadata.version("triton")
    except metadata.PackageNotFoundError:
        triton = None
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else cpu_name(),
        "driver": driver.splitlines()[0] if driver else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        "torch": torch.__version__,
        "triton": triton,
        "python": platform.python_version(),
        "commit": commit(),
        "sources": sources_digest(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "dry": dry,
    }


def read(path: Path) -> dict[str, Any] | None:
    """A record as it was written; None where there is none, or none that can be read."""
    try:
        data = json.loads(path.read_text())
        if isinstance(data["machine"], dict) and isinstance(data["results"], dict):
            return data
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two results are of the same code on the same machine."""
    return all(one.get(key) == other.get(key) for key in IDENTITY)


def wrong_backends(checks: dict[str, Any]) -> set[tuple[str, str]]:
    """(op, backend) of the checks that failed, whose timings count for nothing."""
    pairs = (name.split("/")[:2] for name, result in checks.items() if not result["passed"])
    return {(op, backend) for op, backend in pairs}


class Record:
    """The results of a section by case; each is on disk before the next one starts.

    Args:
        path: the JSON file. What it holds of an interrupted run of the same code on the same machine is kept.
        machine: what :func:`machine` says.
    """

    def __init__(self, path: Path, machine: dict[str, Any]) -> None:
        self.path = path
        self.data: dict[str, Any] = {"machine": machine, "complete": False, "results": {}}
        before = read(path)
        if before is not None and same(before["machine"], machine):
            # what ended in an error is tried again
            self.data["results"] = {case: r for case, r in before["results"].items() if "error" not in r}
        self._write()

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        return self.data["results"]

    def add(self, case: str, **values: Any) -> None:
        """Keep the values of a case, beside those it has."""
        self.results[case] = self.results.get(case, {}) | values
        self._write()

    def finish(self, left: list[str]) -> None:
        """Say which cases were left out for want of time; where none was, the section is complete."""
        self.data |= {"complete": not left, "left_out": left}
        self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".tmp")
        beside.write_text(json.dumps(self.data, indent=1) + "\n")
        beside.replace(self.path)
