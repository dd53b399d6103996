"""Two agents of torchrun, as two machines have them, train as one process does, and come back when a process dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imgops.training import checkpoint as files
from tests.metrics.test_evaluator import free_port
from tests.training.test_processes import children, run, small_run, stats

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="finds the processes as Linux lists them"),
]


def machines(log: Path, *arguments: object) -> list[subprocess.Popen[str]]:
    """Two agents, each with one process; what they print is in the file."""
    endpoint = f"127.0.0.1:{free_port()}"
    agent = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "2"]
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", "test", "--local-addr", "127.0.0.1"]
    command = [sys.executable, *agent, *meeting, *small_run(*arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(log, "w") as text:
        return [subprocess.Popen(command, env=environment, stdout=text, stderr=text) for _ in range(2)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[dict[str, float]]:
    """The records of a run that nothing interrupts."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(2, "--kimg", 0.4, "--out", out)
    return stats(out)


@pytest.mark.parametrize("failing", [0, 1])
def test_the_job_comes_back_on_all_machines_whichever_loses_a_process(tmp_path, whole, failing):
    out, log = tmp_path / "run", tmp_path / "log"
    agents = machines(log, "--kimg", 0.4, "--out", out)
    try:
        deadline = time.monotonic() + 180
        while len(files.checkpoints(out)) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        (worker,) = children(agents[failing].pid)
        os.kill(worker, signal.SIGKILL)
        assert [agent.wait(timeout=180) for agent in agents] == [0, 0], log.read_text()[-3000:]
    finally:
        for agent in agents:
            agent.kill()
    said = log.read_text()
    assert said.count("of 2 processes") == 2
    resumed = next(line for line in said.splitlines() if line.startswith("resumed"))
    assert int(resumed.partition("checkpoint-")[2][:10]) >= 24
    assert said.count("trained on 400 images") == 1
    assert stats(out) == whole
