"""Processes that torchrun starts do what one does with the same batch, and survive one another's end."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from imgops.data import EndlessSampler
from imgops.training import checkpoint as files
from imgops.training.processes import device_of_process

SMALL = [
    *("--data", "samples:textures", "--device", "cpu", "--preset", "tiny", "--resolution", "16", "--batch", "8"),
    *("--log-kimg", "0.008", "--checkpoint-kimg", "0.008", "--grid-kimg", "1", "--keep", "100"),
    *("--z-dim", "8", "--w-dim", "8", "--channel-base", "128", "--channel-max", "16", "--mbstd-group", "2"),
    *("--pl-interval", "2", "--r1-interval", "2", "--noise-strength", "0.5"),
]
#: without cutout: what is 0 lies, until biases have moved, where rounding chooses between the slopes of leaky ReLU
AUGMENTED = (
    *("--augment", "ada", "--augment-p", "0.5", "--augment-pipe", "bgcfn", "--apa"),
    *("--ada-interval", "1", "--ada-kimg", "0.08", "--ada-target", "-1"),
)
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2")


def small_run(*arguments: object) -> list[str]:
    """What a launcher or Python starts."""
    return ["-m", "imgops", "train", *SMALL, *map(str, arguments)]


def command(processes: int, *arguments: object, torchrun: tuple[str, ...] = ()) -> list[str]:
    launcher = [*TORCHRUN, *torchrun] if processes == 2 else []
    return [sys.executable, *launcher, *small_run(*arguments)]


def run(processes: int, *arguments: object) -> str:
    """What a run prints that ends well."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command(processes, *arguments), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def tensors(checkpoint: Path) -> dict[str, Tensor]:
    names = sorted(path.stem for path in checkpoint.glob("*.safetensors"))
    return {f"{name}.{k}": t for name in names for k, t in files.read_tensors(checkpoint, name).items()}


def stats(out: Path) -> list[dict[str, float]]:
    timed = {"seconds", "images_per_second"}
    records = map(json.loads, (out / "stats.jsonl").read_text().splitlines())
    return [{k: v for k, v in record.items() if k not in timed} for record in records]


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["nonsaturating", "relativistic", "wgan-gp"])
def test_two_processes_agree_with_one(tmp_path, loss):
    augmented = loss == "nonsaturating"
    for processes in 1, 2:
        more = AUGMENTED if augmented else ()
        text = run(processes, "--kimg", 0.04, "--loss", loss, *more, "--out", tmp_path / str(processes))
        assert ("of 2 processes" in text) == (processes == 2)
        # the first process alone reports
        assert text.count("trained on 40 images") == 1
    one, two = (files.checkpoints(tmp_path / name) for name in "12")
    assert [path.name for path in one] == [path.name for path in two]
    for a, b in zip(one, two, strict=True):
        wanted, found = tensors(a), tensors(b)
        assert wanted.keys() == found.keys()
        for name, value in wanted.items():
            difference = (value.double() - found[name].double()).abs()
            if name.startswith("state."):
                # gradients of single numbers, as of the noise's strength, are sums that nearly cancel
                assert float(difference.mean()) <= 0.05 * float(value.abs().max()) + 1e-9, name
                continue
            # Adam makes a whole step of a gradient that only rounding keeps from 0, so that few weights may differ more
            rate = 0.0025
            assert float(difference.mean()) < 1e-3 * max(rate, float(value.abs().max())), name
            assert float(difference.quantile(0.9)) < 1e-2 * rate, name
    for a, b in zip(stats(tmp_path / "1"), stats(tmp_path / "2"), strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5)
    # each step moves both probabilities by a tenth
    moved = [
        {round(record[name], 4) for record in stats(tmp_path / "1")} for name in ("augment_p", "pseudo_p") if augmented
    ]
    assert all(len(values) > 2 for values in moved)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, processes):
    run(processes, "--kimg", 0.048, "--out", tmp_path / "whole")
    run(processes, "--kimg", 0.024, "--out", tmp_path / "parts")
    run(processes, "--kimg", 0.048, "--out", tmp_path / "parts", "--resume", "auto")
    assert stats(tmp_path / "whole") == stats(tmp_path / "parts")
    whole, parts = (tensors(files.checkpoints(tmp_path / name)[-1]) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes as Linux lists them")
def test_a_rank_that_dies_brings_the_job_back_from_its_last_checkpoint(tmp_path):
    out = tmp_path / "run"
    arguments = command(2, "--kimg", 0.8, "--out", out, torchrun=("--max-restarts", "2"))
    log = tmp_path / "log"
    with open(log, "w") as text:
        process = subprocess.Popen(arguments, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=text, text=True)
        deadline = time.monotonic() + 120
        while len(files.checkpoints(out)) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(children(process.pid)[-1], signal.SIGKILL)
        assert process.wait(timeout=120) == 0, log.read_text()[-3000:]
    said = log.read_text()
    resumed = next(line for line in said.splitlines() if line.startswith("resumed"))
    assert int(resumed.partition("checkpoint-")[2][:10]) >= 24
    assert "trained on 800 images" in said
    records = stats(out)
    assert [record["images"] for record in records] == list(range(8, 801, 8))
    # and nothing came of it
    run(2, "--kimg", 0.8, "--out", tmp_path / "whole")
    assert stats(tmp_path / "whole") == records


@pytest.mark.slow
def test_a_picture_that_the_second_process_cannot_read_costs_no_step(tmp_path):
    data, out = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    draw = np.random.default_rng(0)
    for k in range(64):
        Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(data / f"{k:02}.png")
    # the sixth step is the first that shows it, by the second process
    shown = next(itertools.islice(EndlessSampler(64, 0, 0), 5 * 8 + 1, None))
    bad = data / f"{shown:02}.png"
    bad.write_bytes(bad.read_bytes()[:-60])
    more = ("--data", data, "--no-check-data", "--checkpoint-kimg", 1)
    done = subprocess.run(
        command(2, "--kimg", 0.8, "--out", out, *more),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    (saved,) = files.checkpoints(out)
    assert saved.name == "checkpoint-0000000040"
    assert f"stopped; the newest checkpoint is {saved}" in done.stderr
    assert f"imgops: error: {bad}" in done.stderr
    assert "imgops: error: the data could not be read in another process" in done.stderr


@pytest.mark.slow
def test_a_termination_signal_ends_the_measurements_of_all_processes(tmp_path):
    out, log = tmp_path / "run", tmp_path / "log"
    endless = ("--metrics", "fd", "--metrics-kimg", 0.016, "--metrics-samples", 10**7, "--checkpoint-kimg", 1)
    with open(log, "w") as text:
        process = subprocess.Popen(
            command(2, "--kimg", 0.8, "--out", out, "--metrics-weights", "embedded", *endless),
            env={**os.environ, "OMP_NUM_THREADS": "1", "IMGOPS_CACHE_DIR": str(tmp_path)},
            stderr=text,
        )
        deadline = time.monotonic() + 120
        while not ((out / "stats.jsonl").exists() and stats(out)) and time.monotonic() < deadline:
            time.sleep(0.05)
        # the second step is measured, which would take hours
        time.sleep(3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) != 0
    (saved,) = files.checkpoints(out)
    assert saved.name == "checkpoint-0000000016"
    assert f"interrupted; saved {saved}" in log.read_text()


def test_one_processs_mistake_ends_in_one_line(tmp_path):
    environment = {**os.environ, "WORLD_SIZE": "3", "RANK": "0"}
    done = subprocess.run(command(1, "--out", tmp_path), env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("imgops: error: --batch must be divisible among 3 processes; got 8")


def test_each_process_has_the_gpu_of_its_number_whatever_a_file_says(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    # the first process writes the settings, and with them its own GPU
    assert [device_of_process(name) for name in ("cuda", "cuda:0", "cpu")] == ["cuda:3", "cuda:3", "cpu"]
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert device_of_process("cuda:1") == "cuda:1"
