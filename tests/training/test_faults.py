"""Full disks, data that vanishes, termination, clocks that jump, and kills: no run loses what it had."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imgops.data.datasets import picture_files
from imgops.training import DivergenceError, Trainer, find_checkpoint, load_generator, loop, train
from imgops.training import checkpoint as files
from imgops.training._report import _append
from imgops.training.recipes.stylegan2 import StyleGAN2
from tests.test_training import contents, stats, tiny, trainer_of

resource = pytest.importorskip("resource")


def loads(run: Path) -> int:
    """The images that the newest checkpoint was shown, which must be loadable."""
    newest = find_checkpoint(run)
    load_generator(newest)
    trainer = trainer_of(tiny(run))
    trainer.load(newest)
    return trainer.seen


@pytest.fixture
def full_for(monkeypatch):
    """A function that makes the disk full for files whose paths have a text in them, once some bytes are written."""

    def fill(text: str) -> None:
        def fsync(descriptor: int, real=os.fsync) -> None:
            if text in os.readlink(f"/proc/self/fd/{descriptor}"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)

    return fill


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="finds out names of open files by /proc")
@pytest.mark.parametrize(
    ("full", "named"),
    [
        ("D.safetensors", "checkpoint-0000000016"),
        ("config.json", "checkpoint-0000000016"),
        ("samples", "samples/0000000016.png"),
        ("report.html", "report.html"),
    ],
)
def test_a_full_disk_ends_the_run_and_leaves_nothing_half(tmp_path, full_for, monkeypatch, capsys, full, named):
    run = tmp_path / "run"
    train(tiny(run, kimg=0.008, grid_kimg=0.008), quiet=True)
    with pytest.raises(OSError, match="No space left on device") as raised:
        train(tiny(run, kimg=0.1, grid_kimg=0.008), resume=True, on_step=lambda *_: full_for(full))
    assert raised.value.errno == errno.ENOSPC
    assert str(raised.value.filename).endswith(named)
    said = capsys.readouterr().err
    newest = find_checkpoint(run)
    assert f"stopped; the newest checkpoint is {newest}\nto continue: imgops train --out {run} --resume" in said
    assert not list(run.rglob(".scrap-*"))
    monkeypatch.undo()
    assert loads(run) == (16 if named == "report.html" else 8)
    # with room again it goes on, and is what it would have been
    train(tiny(run, kimg=0.024, grid_kimg=0.008), resume=True, quiet=True)
    train(tiny(tmp_path / "whole", grid_kimg=0.008), quiet=True)
    assert stats(run) == stats(tmp_path / "whole")
    whole, parts = contents(tmp_path / "whole"), contents(run)
    assert all(torch.equal(whole[k], parts[k]) for k in whole)


def test_a_penalty_that_overflows_in_half_precision_ends_nothing(tmp_path, monkeypatch):
    half = {"num_fp16_res": 4, "half_dtype": "bfloat16", "r1_interval": 1, "pl_interval": 1}
    path_step, penalty = StyleGAN2._path_step, StyleGAN2._penalty
    steps = []

    def overflows(value: torch.Tensor) -> torch.Tensor:
        return value * (math.inf if len(steps) == 2 else 1.0)

    monkeypatch.setattr(StyleGAN2, "_path_step", lambda *given: overflows(path_step(*given)))
    monkeypatch.setattr(StyleGAN2, "_penalty", lambda *given: overflows(penalty(*given)))
    train(tiny(tmp_path, **half), quiet=True, on_step=lambda trainer, _: steps.append(trainer.recipe.pl_mean))
    assert all(mean.isfinite() for mean in steps)
    assert all(math.isfinite(value) for record in stats(tmp_path) for value in record.values())
    steps.clear()
    with pytest.raises(DivergenceError):
        train(tiny(tmp_path / "whole", **half | {"num_fp16_res": 0}), quiet=True, on_step=lambda *_: steps.append(None))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="finds out names of open files by /proc")
@pytest.mark.parametrize("full", ["G_ema.safetensors", "best.json"])
def test_a_full_disk_leaves_no_half_of_the_best(tmp_path, full_for, monkeypatch, full):
    last = train(tiny(tmp_path / "run", kimg=0.008), quiet=True)
    before = sorted(path.name for path in last.parent.iterdir())
    full_for(full)
    with pytest.raises(OSError, match="No space left on device") as raised:
        files.keep_best(last, "fd", 3.0)
    assert str(raised.value.filename).endswith("best-0000000008")
    assert sorted(path.name for path in last.parent.iterdir()) == before
    monkeypatch.undo()
    best = files.keep_best(last, "fd", 3.0)
    assert files.bests(last.parent) == [best]


@pytest.mark.filterwarnings("ignore:fd_embedded of .* is biased")
def test_a_kill_between_a_checkpoint_and_its_copy_as_the_best(tmp_path, monkeypatch):
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    monkeypatch.setenv("IMGOPS_CACHE_DIR", str(tmp_path / "cache"))
    for k in range(4):
        Image.effect_noise((8, 8), 20 + 10 * k).save(data / f"{k}.png")
    measuring = {"metrics": "fd", "metrics_kimg": 0.016, "metrics_samples": 8, "metrics_weights": "embedded"}
    train(tiny(run, kimg=0.016, data=str(data), **measuring), quiet=True)
    (best,) = files.bests(run)
    kept = {path.name: path.read_bytes() for path in best.iterdir()}
    shutil.rmtree(best)
    # its end is measured, too, and must not take the place
    monkeypatch.setattr(files, "is_best", lambda out, *by: not files.bests(out))
    train(tiny(run, kimg=0.02, data=str(data), **measuring), quiet=True, resume=True)
    assert files.bests(run) == [best]
    assert {path.name: path.read_bytes() for path in best.iterdir()} == kept


def test_a_record_is_appended_whole_or_not_at_all(tmp_path):
    path = tmp_path / "stats.jsonl"
    _append(path, b"first\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9, hard))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            _append(path, b"second\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert raised.value.filename == str(path)
    assert path.read_bytes() == b"first\n"
    _append(path, b"second\n")
    assert path.read_bytes() == b"first\nsecond\n"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("fault", ["vanished", "damaged"])
def test_a_picture_that_goes_bad_costs_no_step(tmp_path, monkeypatch, capsys, workers, fault):
    # nothing stays decoded, so that each picture is read each time
    monkeypatch.setattr(picture_files, "KEPT", 0)
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    draw = np.random.default_rng(0)
    for k in range(8):
        Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(data / f"{k}.png")
    config = tiny(run, data=str(data), kimg=10.0, log_kimg=0.008, checkpoint_kimg=10.0, workers=workers)
    spoil = {"vanished": lambda path: path.unlink(), "damaged": lambda path: path.write_bytes(b"\x89PNG")}[fault]
    record = train.__globals__["Report"].record

    def recorded(*given: object) -> None:
        record(*given)
        for path in data.iterdir():
            spoil(path)

    monkeypatch.setattr(train.__globals__["Report"], "record", recorded)
    with pytest.raises((OSError, ValueError)) as raised:
        train(config)
    text = str(raised.value)
    assert "\n" not in text
    assert str(data) in text
    assert "Traceback" not in text
    newest = find_checkpoint(run)
    # what two workers had read beforehand is trained on
    assert 8 <= int(newest.name[-10:]) <= 8 + 4 * 2 * workers + 4
    assert f"stopped; the newest checkpoint is {newest}" in capsys.readouterr().err
    load_generator(newest)


def test_a_termination_signal_saves_and_ends_as_an_interrupt_does(tmp_path):
    run = tmp_path / "run"
    options = "--preset tiny --data samples:textures --resolution 8 --batch 4 --log-kimg 0.004 --checkpoint-kimg 1000"
    command = [sys.executable, "-m", "imgops", "train", "--out", str(run), *options.split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 60
    while not ((run / "stats.jsonl").exists() and (run / "stats.jsonl").stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=60)
    (saved,) = files.checkpoints(run)
    assert process.returncode == 130
    assert f"interrupted; saved {saved}\nto continue: imgops train --out {run} --resume" in text
    assert "Traceback" not in text


def test_a_termination_signal_to_all_processes_saves(tmp_path):
    """Schedulers may send it to those that read pictures as well."""
    run = tmp_path / "run"
    program = "from tests.test_training import tiny; from imgops.training import train; import sys\n"
    program += "train(tiny(sys.argv[1], kimg=1000.0, checkpoint_kimg=1000.0, workers=2))"
    command = [sys.executable, "-c", program, str(run)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as training:
        deadline = time.monotonic() + 120
        while not (run / "stats.jsonl").exists() or not stats(run):
            assert time.monotonic() < deadline
            assert training.poll() is None
            time.sleep(0.1)
        os.killpg(training.pid, signal.SIGTERM)
        said = training.communicate(timeout=60)[1]
    assert "interrupted; saved" in said
    assert loads(run) > 0


def test_two_processes_cannot_train_in_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LINGERING", 0.0)
    run = tmp_path / "run"
    refused = []

    def second(*_: object) -> None:
        with pytest.raises(ValueError, match="another process trains there; let it end, or take another --out"):
            train(tiny(run), quiet=True, resume="auto")
        refused.append(contents(run) if files.checkpoints(run) else None)

    train(tiny(run), quiet=True, on_step=second)
    assert len(refused) == 6
    # it is free afterwards
    train(tiny(run, kimg=0.032), quiet=True, resume=True)
    assert files.checkpoints(run)[-1].name == "checkpoint-0000000032"


def test_a_run_that_another_one_finished_meanwhile_is_not_repeated(tmp_path, monkeypatch):
    run = tmp_path / "run"
    train(tiny(run, kimg=0.008), quiet=True)
    read = Trainer.load

    def late(trainer: Trainer, checkpoint: Path) -> None:
        read(trainer, checkpoint)
        monkeypatch.setattr(Trainer, "load", read)
        train(tiny(run), quiet=True, resume=True)

    monkeypatch.setattr(Trainer, "load", late)
    with pytest.raises(ValueError, match="another process has trained there meanwhile; give the command again"):
        train(tiny(run), quiet=True, resume=True)
    assert files.checkpoints(run)[-1].name == "checkpoint-0000000024"


def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
    train(tiny(tmp_path / "steady"), quiet=True)
    chance, real = random.Random(0), time.time
    monkeypatch.setattr(time, "time", lambda: real() + chance.uniform(-1e8, 1e8))
    begun = time.monotonic()
    train(tiny(tmp_path / "jumping", kimg=0.016), quiet=True, max_seconds=1000.0)
    train(tiny(tmp_path / "jumping"), quiet=True, resume=True)
    passed = time.monotonic() - begun
    assert stats(tmp_path / "steady") == stats(tmp_path / "jumping")
    steady, jumping = contents(tmp_path / "steady"), contents(tmp_path / "jumping")
    assert all(torch.equal(steady[k], jumping[k]) for k in steady)
    lines = [json.loads(line) for line in (tmp_path / "jumping" / "stats.jsonl").read_text().splitlines()]
    assert 0 < lines[0]["seconds"] < lines[1]["seconds"] < lines[2]["seconds"] < passed
    assert all(4 / passed < line["images_per_second"] for line in lines)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_fifty_kills_lose_nothing(tmp_path):
    program = Path(__file__).with_name("killed_runs.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), "50", "1"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["kills"] == 50
    assert counts["loaded"] + counts["before the first checkpoint"] == 50
    assert counts["loaded"] >= 30
    # some in the middle of a checkpoint, a sheet or a page
    assert counts["while something was written"] >= 5
    assert counts["tensors"] > 100
    assert counts["tensors that differ"] == []
    assert counts["records are the same"]
    assert counts["sheets are the same"]
    assert counts["scraps"] == []
