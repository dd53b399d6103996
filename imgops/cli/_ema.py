"""The work of ``imgops ema``."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch

from ..training import checkpoint as files
from ..training.ema import SNAPSHOTS, reconstruct, snapshots
from ..training.recipes import recipe_class
from .ema import Job

#: the share of an average's weight over time that may be missed without a word
MISFIT = 0.05
#: what a checkpoint's file says by itself
OWN = {"format", "seen"}


def average(job: Job) -> str:
    """Write the checkpoint; return a line that says where, and how well the average fits.

    Raises:
        ValueError: no run with snapshots, one that is damaged, or a folder that holds a checkpoint.
    """
    run = Path(job.run)
    checkpoint = files.find_checkpoint(run)
    name = files.network_file(checkpoint).stem
    paths = snapshots(run / SNAPSHOTS)
    if not paths:
        raise ValueError(
            f"{run}: keeps no snapshots of averages; imgops train --ema-snapshot-kimg 50 makes a run keep them"
        )
    out = Path(job.out or f"{run}-ema{job.length:g}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out} is there; choose a new folder")
    made = reconstruct(paths, job.length, job.images)
    network, about = files.load_generator(checkpoint)
    own = dict(network.named_parameters())
    wrong = [key for key, value in made.parameters.items() if key not in own or own[key].shape != value.shape]
    if wrong:
        raise ValueError(f"{paths[0]}: does not fit the network of {checkpoint} at {wrong[0]}")
    with torch.no_grad():
        for key, value in made.parameters.items():
            own[key].copy_(value)
    # checkpoints of before class_counts say nothing of how frequent classes are
    counts = about.get("class_counts") or [1] * about["c_dim"]
    recipe_class(about["config"].recipe).renew(network, counts, about["config"], made.images)
    meta = json.loads((checkpoint / files.CONFIG).read_text())
    meta["ema"] = {"length": job.length, "images": made.images, "misfit": made.misfit}
    if made.misfit > MISFIT:
        warnings.warn(
            f"the snapshots give an average of length {job.length:g} whose weight over time is {made.misfit:.0%} off; "
            f"a longer one, or denser snapshots, fit better",
            stacklevel=1,
        )
    kept = {key: value for key, value in meta.items() if key not in OWN}
    written = files.save(out, made.images, {name: network.state_dict()}, kept, 1)
    return f"the average of length {job.length:g} at {made.images:,} images, of {len(paths)} snapshots, in {written}"
