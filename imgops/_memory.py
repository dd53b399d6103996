"""The memory that this process may still take, by the machine, its control groups and its own limits."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
#: per version of control groups: the files of the limit and of the memory taken, and the key of its droppable pages
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
#: words of the errors of failed allocations: PyTorch's on the CPU and on a GPU, this package's, C++'s
_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")


#: bytes of the program, where the system does not tell
_PROGRAM = 450e6
#: bytes that CUDA and its libraries take on a GPU, about
_CUDA_CONTEXT = 500e6


class OutOfMemory(MemoryError):
    """Memory ran out; the message says what helps. ``picture`` is the picture so far, or None."""

    picture: Any = None


@contextmanager
def naming_remedy(remedy: str) -> Iterator[None]:
    """Within it any failed allocation raises :class:`OutOfMemory`, whose message names the remedy.

    Raises:
        OutOfMemory: memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        told = isinstance(error, MemoryError) or any(words in str(error).lower() for words in _WORDS)
        if isinstance(error, OutOfMemory) or not told:
            raise
        # raised outside the handler: the traceback of the error would keep alive all that was in memory
        failure = OutOfMemory(f"memory ran out; {remedy}")
    else:
        return
    raise failure


def free_memory() -> int | None:
    """Bytes that this process may still take without swapping or being killed; None where that is not known.

    This is the least of the memory that the machine has available, the memory left in each control group of the process
    (containers, jobs of a cluster), and the rest of its own limit of addresses (``ulimit -v``).
    """
    if sys.platform != "linux":
        return None
    known = [left for left in (_of_machine(), *_of_groups(), _of_addresses()) if left is not None]
    return max(0, min(known)) if known else None


def room_on(device: torch.device) -> float:
    """Bytes that this process may have in all, including those that it has taken; infinite where that is not known."""
    if device.type == "cuda":
        import torch

        return float(torch.cuda.mem_get_info(device)[0])
    free = free_memory()
    return math.inf if free is None else float(free + resident_memory())


def resident_memory() -> int:
    """Bytes of memory that this process has taken; 0 where that is not known."""
    if sys.platform != "linux":
        return 0
    import resource

    return int((_text(_PROC / "self/statm") or "0 0").split()[1]) * resource.getpagesize()


def peak_memory() -> int | None:
    """The most bytes of memory that this process has had; None where the system does not tell."""
    high = _field(_PROC / "self/status", "VmHWM:")
    if high is not None:
        # getrusage would count the memory of the process that started this one
        return 1024 * high
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def program_memory(device: torch.device) -> float:
    """Bytes of a device's memory that the program takes beside its tensors.

    On a GPU CUDA's own; what the process holds on the host does not count there.
    """
    return _CUDA_CONTEXT if device.type == "cuda" else _before_any_work()


@cache
def _before_any_work() -> float:
    """Bytes of the program with its libraries: the memory taken when this is first called.

    It differs between builds of PyTorch: with CUDA it is twice that without.
    """
    return float(resident_memory() or _PROGRAM)


def _of_machine() -> int | None:
    kilobytes = _field(_PROC / "meminfo", "MemAvailable:")
    return None if kilobytes is None else 1024 * kilobytes


def _of_groups() -> Iterator[int | None]:
    """The bytes that are left in each control group above the process."""
    for line in (_text(_PROC / "self/cgroup") or "").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and controllers == "":
            root, names = _CGROUPS, _V2
        elif "memory" in controllers.split(","):
            root, names = _CGROUPS / "memory", _V1
        else:
            continue
        place = PurePosixPath(path.lstrip("/"))
        # within a container the path may be the host's: then the root is the container's group
        for part in (place, *place.parents):
            yield _of_group(root / part, names)


def _of_group(folder: Path, names: tuple[str, str, str]) -> int | None:
    limit, taken = (_text(folder / name) for name in names[:2])
    if limit is None or taken is None or not limit.strip().isdigit():
        return None
    return int(limit) - int(taken) + (_field(folder / "memory.stat", names[2]) or 0)


def _of_addresses() -> int | None:
    import resource

    limit, pages = resource.getrlimit(resource.RLIMIT_AS)[0], _text(_PROC / "self/statm")
    if limit == resource.RLIM_INFINITY or pages is None:
        return None
    return limit - int(pages.split()[0]) * resource.getpagesize()


def _field(path: Path, name: str) -> int | None:
    """The number that follows a name at the beginning of a line."""
    rows = (line.split() for line in (_text(path) or "").splitlines())
    return next((int(row[1]) for row in rows if row[:1] == [name]), None)


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
