"""The memory that is left, by each of the limits that there are."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from imgops import _memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux says what is free")
GB = 10**9


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of which 8 GB are available, in no control group."""
    monkeypatch.setattr(_memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(_memory, "_CGROUPS", tmp_path / "cgroup")
    write(tmp_path, {"proc/meminfo": "MemTotal: 9765625 kB\nMemAvailable:    7812500 kB\n"})
    return tmp_path


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_the_machines(machine):
    assert _memory.free_memory() == 8 * GB


@pytest.mark.parametrize(
    ("files", "left"),
    [
        # of the group, whose parent has no limit; files that can be dropped are free
        (
            {
                "proc/self/cgroup": "0::/jobs/7\n",
                "cgroup/jobs/7/memory.max": f"{4 * GB}\n",
                "cgroup/jobs/7/memory.current": f"{3 * GB}\n",
                "cgroup/jobs/7/memory.stat": f"anon 5\ninactive_file {GB}\n",
                "cgroup/jobs/memory.max": "max\n",
                "cgroup/jobs/memory.current": "0\n",
            },
            2 * GB,
        ),
        # of a parent, and of the root of a container that sees the host's path
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "cgroup/a/memory.max": f"{2 * GB}",
                "cgroup/a/memory.current": f"{GB}",
            },
            GB,
        ),
        (
            {"proc/self/cgroup": "0::/x", "cgroup/memory.max": f"{GB}", "cgroup/memory.current": f"{2 * GB}"},
            0,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/1\n",
                "cgroup/memory/docker/1/memory.limit_in_bytes": f"{3 * GB}",
                "cgroup/memory/docker/1/memory.usage_in_bytes": f"{GB}",
                "cgroup/memory/docker/1/memory.stat": "total_inactive_file 5",
            },
            2 * GB + 5,
        ),
    ],
    ids=["v2", "parent", "exhausted", "v1"],
)
def test_those_of_control_groups(machine, files, left):
    write(machine, files)
    assert _memory.free_memory() == left


def test_the_processs_own():
    code = (
        "import resource; from imgops._memory import free_memory; before = free_memory();"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize();"
        "resource.setrlimit(resource.RLIMIT_AS, (size + 10**8,) * 2); print(before > 10**8, free_memory() <= 10**8)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


def test_what_the_host_holds_does_not_count_on_a_gpu(monkeypatch):
    monkeypatch.setattr(_memory, "resident_memory", lambda: 20 * GB)
    _memory._before_any_work.cache_clear()
    try:
        assert _memory.program_memory(torch.device("cpu")) == 20 * GB
        assert _memory.program_memory(torch.device("cuda")) < GB
    finally:
        _memory._before_any_work.cache_clear()
