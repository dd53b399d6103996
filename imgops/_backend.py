"""Which backends of the ops exist here, why the others do not, and which one a call uses."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import json
import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ._install import reinstall_command

#: what the extensions need of torch: the floor of its stable ABI
OLDEST_TORCH = (2, 10)
#: every backend, by the name that ``impl=`` takes
BACKENDS = ("reference", "cpu", "triton", "cuda")
#: the ops that have backends
OPS = (
    "adain",
    "adaptive_instance_norm",
    "bias_act",
    "conv2d",
    "conv_transpose2d",
    "displace",
    "efdm",
    "feature_statistics",
    "filtered_lrelu",
    "gram_matrix",
    "grid_sample",
    "modulated_conv2d",
    "nearest_neighbor",
    "style_loss",
    "upfirdn2d",
    "wasserstein_loss",
)
#: ops whose only kernels for GPUs are in Triton
WITHOUT_CUDA = (
    "adain",
    "adaptive_instance_norm",
    "displace",
    "efdm",
    "feature_statistics",
    "gram_matrix",
    "grid_sample",
    "nearest_neighbor",
    "style_loss",
    "wasserstein_loss",
)
#: what the automatic choice tries on each type of device, best first
PREFERENCE = {"cpu": ("cpu", "reference"), "cuda": ("triton", "cuda", "reference")}


class Status(NamedTuple):
    """Whether a backend can run on a type of device; if not, the reason and the remedy."""

    available: bool
    reason: str = ""
    remedy: str = ""


def interpreting_triton() -> bool:
    """Whether Triton's interpreter, which runs kernels on the CPU, was asked for by ``TRITON_INTERPRET=1``."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


@cache
def build_report() -> dict[str, Any]:
    """The report of setup.py: what it built, and why not the rest; empty where setup.py never ran."""
    path = Path(__file__).with_name("_build_report.json")
    return json.loads(path.read_text()) if path.is_file() else {}


def not_built(name: str) -> Status:
    """Why there is no ``imgops.<name>`` that this Python loads, and what to do."""
    report, command = build_report().get(name, {}), reinstall_command()
    if report.get("built"):
        there = ", ".join(sorted(path.name for path in Path(__file__).parent.glob(f"{name}.*"))) or "it is gone"
        return Status(False, f"the extension was built for another Python ({there})", command)
    before = f"{report['remedy']}, then " if "remedy" in report else ""
    return Status(False, report.get("reason", "the extension was not built"), before + command)


@cache
def _load_extension(name: str) -> Status:
    """Load ``imgops.<name>``, whose ops register themselves; a failure is kept as the reason."""
    # only beside this file: otherwise an editable install of another copy might be loaded
    spec = importlib.machinery.PathFinder.find_spec(f"imgops.{name}", [str(Path(__file__).parent)])
    if spec is None or spec.origin is None:
        return not_built(name)
    try:
        torch.ops.load_library(spec.origin)
    except OSError as error:
        old = tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])) < OLDEST_TORCH
        wanted = f"pip install 'torch>={'.'.join(map(str, OLDEST_TORCH))}'"
        return Status(False, f"the extension does not load: {error}", wanted if old else reinstall_command())
    return Status(True)


def _cuda_status() -> Status:
    """The status of the CUDA extension, which takes GPUs from the oldest architecture that it was built for on."""
    status, built = _load_extension("_C_cuda"), str(build_report().get("_C_cuda", {}).get("architectures", ""))
    oldest = min(map(int, re.findall(r"code=sm_(\d+)", built)), default=0)
    major, minor = torch.cuda.get_device_capability()
    if status.available and 10 * major + minor < oldest:
        reason = f"the extension was built for GPUs from sm_{oldest} on; this is sm_{major}{minor}"
        return Status(False, reason, f"TORCH_CUDA_ARCH_LIST={major}.{minor} {reinstall_command()}")
    return status


@cache
def _triton_status() -> Status:
    if importlib.util.find_spec("triton") is None:
        return Status(False, "the package triton is not installed", "pip install triton (Linux only)")
    return Status(True)


def _warn(message: str) -> None:
    """Warn; where warnings are errors, log instead, as the call of an op still works and should not end the program."""
    try:
        warnings.warn(message, stacklevel=3)
    except UserWarning:
        logging.getLogger("imgops").warning(message)


@cache
def load() -> dict[tuple[str, str], Status]:
    """Load the extensions that are here; the status of every (backend, device type), computed once."""
    native = _load_extension("_C")
    if torch.cuda.is_available():
        # its kernels belong to the schemas that _C defines
        native_cuda = _cuda_status() if native.available else native
        triton_cuda = _triton_status()
    else:
        if torch.version.cuda is None and torch.version.hip is None:
            reason, remedy = "this build of torch has no GPU support", "install a CUDA or ROCm build of torch"
        else:
            reason, remedy = "no GPU is visible to torch", "check the driver and CUDA_VISIBLE_DEVICES"
        native_cuda = triton_cuda = Status(False, reason, remedy)
    triton_cpu = _triton_status()
    if triton_cpu.available and not interpreting_triton():
        triton_cpu = Status(
            False, "Triton kernels need a GPU", "set TRITON_INTERPRET=1 to run them, slowly, in Triton's interpreter"
        )
    if not native.available:
        _warn(f"imgops runs without its CPU kernels: {native.reason}. To mend it: {native.remedy}")
    return {
        ("reference", "cpu"): Status(True),
        ("reference", "cuda"): Status(True),
        ("cpu", "cpu"): native,
        ("cpu", "cuda"): Status(False, "the CPU backend takes tensors on the CPU", "move the tensors to the CPU"),
        ("triton", "cpu"): triton_cpu,
        ("triton", "cuda"): triton_cuda,
        ("cuda", "cpu"): Status(False, "the CUDA backend takes tensors on a GPU", "move the tensors to a GPU"),
        ("cuda", "cuda"): native_cuda,
    }


class _Choice(threading.local):
    """The backend that :func:`use_impl` asks for in this thread; None leaves it to the automatic choice."""

    impl: str | None = None


_choice = _Choice()
_environment = os.environ.get("IMGOPS_IMPL") or None


def check_impl(impl: str | None, name: str = "impl") -> None:
    """Raise ValueError unless ``impl`` is None or the name of a backend."""
    if impl is not None and impl not in BACKENDS:
        raise ValueError(f"{name} must be None or one of {', '.join(BACKENDS)}; got {impl!r}")


check_impl(_environment, "the environment variable IMGOPS_IMPL")


@contextlib.contextmanager
def use_impl(impl: str | None) -> Iterator[None]:
    """Within this context, calls in this thread that name no ``impl`` use this backend.

    Args:
        impl: "reference", "cpu", "triton" or "cuda"; None restores the automatic choice. An ``impl=``
            given to a call goes before this, and this goes before the environment variable ``IMGOPS_IMPL``.

    Raises:
        ValueError: ``impl`` is not the name of a backend.
    """
    check_impl(impl)
    before, _choice.impl = _choice.impl, impl
    try:
        yield
    finally:
        _choice.impl = before


def status_of(op: str, backend: str, device_type: str, statuses: dict[tuple[str, str], Status]) -> Status:
    """Whether the backend of this op can run on a type of device."""
    if backend == "cuda" and op in WITHOUT_CUDA:
        return Status(False, f"{op} has no kernel in CUDA C++", "take the triton backend, which runs on the same GPUs")
    return statuses.get((backend, device_type), Status(backend == "reference", f"it does not run on {device_type}"))


def choose(
    op: str, device_type: str, impl: str | None, statuses: dict[tuple[str, str], Status], first: str | None = None
) -> str:
    """The backend of ``op`` that runs on ``device_type``; only the automatic choice falls back.

    ``first`` is the backend that suits this very call best, if one does: the automatic choice tries it before the
    others.

    Raises:
        ValueError: ``impl`` is not the name of a backend.
        RuntimeError: the backend that was asked for cannot run here; says why and what to do.
    """
    check_impl(impl)
    asked = impl or _choice.impl or _environment
    if asked is not None:
        status = status_of(op, asked, device_type, statuses)
        if not status.available:
            raise RuntimeError(
                f"imgops.{op}: the {asked} backend is not available on {device_type}: {status.reason}. {status.remedy}"
            )
        return asked
    # a custom op has no translation to ONNX: its exporters, old and new, get plain operators
    if (torch.compiler.is_compiling() or torch.jit.is_tracing()) and torch.onnx.is_in_onnx_export():
        return "reference"
    for backend in (first, *PREFERENCE.get(device_type, ("reference",))):
        if backend is not None and status_of(op, backend, device_type, statuses).available:
            return backend
    return "reference"
