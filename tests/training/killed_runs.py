"""A run that is killed at random moments, as a program: ``python killed_runs.py FOLDER KILLS SEED``.

Each life of the run is a fork of a process that has imported everything, so that a life is milliseconds from its first
step. After each kill the newest checkpoint is loaded. At last the run goes on to its end, and one that was never killed
runs as long; what is printed says what was counted, and what differs between the two.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.utils.tensorboard

from imgops.training import Trainer, TrainingConfig, find_checkpoint, load_generator, train
from imgops.training import checkpoint as files
from imgops.training._data import open_pictures

#: seconds within which a run is killed
LIFE = 1.2
#: what a run writes before its first checkpoint, and while it writes one
SCRAP = ".scrap-"


def settings(out: Path, kimg: float) -> TrainingConfig:
    """A run of 8 px that writes a checkpoint in each step, and a sheet in every fourth."""
    return TrainingConfig(
        data="samples:textures",
        out=str(out),
        preset="tiny",
        resolution=8,
        batch=4,
        kimg=kimg,
        log_kimg=0.004,
        grid_kimg=0.016,
        checkpoint_kimg=0.004,
        z_dim=8,
        w_dim=8,
        channel_base=64,
        channel_max=8,
        r1_interval=2,
        pl_interval=3,
        augment="ada",
        ada_interval=1,
        ada_kimg=0.1,
        ema_snapshot_kimg=0.02,
        device="cpu",
    )


def forked(work: Callable[[], object]) -> int:
    """Do it in a child process; returns its id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def load(out: Path) -> int:
    """Load the newest checkpoint as its users do; returns the images that it was shown."""
    newest = find_checkpoint(out)
    load_generator(newest)
    config = files.read_meta(newest)["config"]
    data = open_pictures(config)
    trainer = Trainer(config, data.labels, data.class_names)
    trainer.load(newest)
    return trainer.seen


def contents(out: Path) -> dict[str, torch.Tensor]:
    newest = find_checkpoint(out)
    names = sorted(path.stem for path in newest.glob("*.safetensors"))
    return {f"{name}.{key}": t for name in names for key, t in files.read_tensors(newest, name).items()}


def records(out: Path) -> list[dict[str, float]]:
    """What ``stats.jsonl`` says, but for times."""
    lines = [json.loads(line) for line in (out / "stats.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "second" not in k} for line in lines]


def main(folder: Path, kills: int, seed: int) -> dict[str, object]:
    """Kill a run that often, continue it to its end, and compare it with one that nothing happened to."""
    killed, whole = folder / "killed", folder / "whole"
    chance = random.Random(seed)
    done = loaded = writing = early = 0
    before = -1
    # what an optimizer imports takes seconds; a process that has trained itself could not be forked
    data = open_pictures(settings(whole, 1.0))
    Trainer(settings(whole, 1.0).resolve(), data.labels, data.class_names)
    while done < kills:
        child = forked(lambda: train(settings(killed, 1000.0), resume="auto", quiet=True))
        time.sleep(chance.uniform(0, LIFE))
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the run ended by itself"
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        done += 1
        writing += killed.is_dir() and any(killed.glob(f"{SCRAP}*"))
        if files.checkpoints(killed):
            seen = load(killed)
            assert seen >= before
            before, loaded = seen, loaded + 1
        else:
            # there was none before either: none can be lost
            assert before < 0
            early += 1
    end = (before + 8) / 1000
    for out in killed, whole:
        _, status = os.waitpid(forked(lambda out=out: train(settings(out, end), resume="auto", quiet=True)), 0)  # type: ignore[misc]
        assert status == 0
    a, b = contents(killed), contents(whole)
    names = [sorted(path.name for path in (out / "samples").iterdir()) for out in (killed, whole)]
    return {
        "kills": done,
        "loaded": loaded,
        "before the first checkpoint": early,
        "while something was written": writing,
        "steps": round(end * 1000) // 4,
        "tensors": len(a),
        "tensors that differ": [
            k for k in a.keys() | b.keys() if k not in a or k not in b or not torch.equal(a[k], b[k])
        ],
        "records are the same": records(killed) == records(whole),
        "sheets are the same": names[0] == names[1]
        and all((killed / "samples" / n).read_bytes() == (whole / "samples" / n).read_bytes() for n in names[0]),
        "scraps": [path.name for path in killed.glob(f"{SCRAP}*")],
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
