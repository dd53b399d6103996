"""The work of ``imgops info``."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import warnings
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import __version__, _backend
from .._install import reinstall_command

PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "pillow",
    "safetensors",
    "tensorboard",
    "scikit-image",
    "matplotlib",
    "typer",
    "rich",
)


def collect() -> dict[str, Any]:
    """All facts of the page, as plain data for JSON.

    ``ops`` is {op: {device: {"chosen": backend or None, "backends": {backend: {"available", "reason", "remedy"}}}}}.
    """
    with warnings.catch_warnings():
        # the table says what the warning of a missing extension would
        warnings.simplefilter("ignore")
        statuses = _backend.load()
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return {
        "versions": {
            "imgops": __version__,
            "python": platform.python_version(),
            **{package: _version(package) for package in PACKAGES},
            # torch itself tells its build, which the package's metadata may leave out
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "hip": torch.version.hip,
        },
        "system": platform.platform(),
        "package": str(Path(__file__).resolve().parent.parent),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "host": _host(),
        "ops": {
            op: {
                device: {
                    "chosen": _chosen(op, device, statuses),
                    "backends": {
                        backend: _backend.status_of(op, backend, device, statuses)._asdict()
                        for backend in _backend.BACKENDS
                    },
                }
                for device in devices
            }
            for op in _backend.OPS
        },
        # what a GPU would need is listed even on a machine without one
        "missing": [
            {"backend": backend, "device": device, "reason": status.reason, "remedy": status.remedy}
            for (backend, device), status in statuses.items()
            if not status.available
        ]
        + [
            {
                "backend": "cuda",
                "device": "cuda",
                "reason": f"no kernels in CUDA C++: {', '.join(_backend.WITHOUT_CUDA)}",
                "remedy": "take the triton backend, which runs on the same GPUs",
            }
        ],
        "build": _backend.build_report(),
    }


def _chosen(op: str, device: str, statuses: dict[tuple[str, str], _backend.Status]) -> str | None:
    """The backend that a call uses; None where IMGOPS_IMPL asks for one that cannot run, which the page explains."""
    try:
        return _backend.choose(op, device, None, statuses)
    except RuntimeError:
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _host() -> dict[str, Any]:
    """SIMD level, CPU features and build of the extension ``imgops._host``; or why it is not there."""
    try:
        host: Any = importlib.import_module("imgops._host")
    except ModuleNotFoundError:
        return _backend.not_built("_host")._asdict()
    except ImportError as error:
        return _backend.Status(False, str(error), reinstall_command())._asdict()
    return {
        "available": True,
        "simd_level": host.simd_level(),
        "cpu_features": dict(host.cpu_features()),
        "build_info": dict(host.build_info()),
    }


def show(facts: dict[str, Any]) -> None:
    """Print the page for people."""
    console = Console(highlight=False, soft_wrap=False)
    there = {name: version for name, version in facts["versions"].items() if version}
    console.print("[bold]Versions[/]  " + ", ".join(f"{name} {version}" for name, version in there.items()))
    absent = [name for name in PACKAGES if not facts["versions"][name]]
    if absent:
        console.print(f"[bold]Not installed[/]  {', '.join(absent)}")
    console.print(f"[bold]System[/]  {facts['system']}, {facts['threads']} threads")
    console.print(f"[bold]Package[/]  {escape(facts['package'])}")
    console.print(f"[bold]GPUs[/]  {', '.join(facts['gpus']) or 'none visible to torch'}")
    host = facts["host"]
    if host["available"]:
        features = " ".join(name for name, present in host["cpu_features"].items() if present)
        console.print(f"[bold]CPU[/]  kernels use {host['simd_level']}; features: {features}")
    else:
        console.print(f"[bold]CPU[/]  features unknown: {escape(host['reason'])}; {escape(host['remedy'])}")

    table = Table(title="Backends of the ops (* is what a call uses)", title_justify="left")
    table.add_column("op", overflow="fold")
    table.add_column("device")
    for backend in _backend.BACKENDS:
        table.add_column(backend, justify="center")
    for op, places in facts["ops"].items():
        for device, place in places.items():
            marks = [
                ("[green]yes[/]" if status["available"] else "no") + (" *" if backend == place["chosen"] else "")
                for backend, status in place["backends"].items()
            ]
            table.add_row(op, device, *marks)
    console.print(table)

    why = Table(title="Why not, and the remedy", title_justify="left", show_lines=True)
    for heading in ("backend", "device", "reason", "remedy"):
        why.add_column(heading, overflow="fold")
    for row in facts["missing"]:
        # the CPU's backend is not missed on a GPU, nor the other way round
        if (row["backend"], row["device"]) in (("cpu", "cuda"), ("cuda", "cpu")):
            continue
        why.add_row(row["backend"], row["device"], escape(row["reason"]), escape(row["remedy"]))
    console.print(why)
