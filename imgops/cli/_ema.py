"""The work of ``imgops ema``."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

from ..training import checkpoint as files
from ..training.ema import SNAPSHOTS, reconstruct, snapshots
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
    network = files.network_file(checkpoint).stem
    paths = snapshots(run / SNAPSHOTS)
    if not paths:
        raise ValueError(
            f"{run}: keeps no snapshots of averages; imgops train --ema-snapshot-kimg 50 makes a run keep them"
        )
    out = Path(job.out or f"{run}-ema{job.length:g}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out} is there; choose a new folder")
    made = reconstruct(paths, job.length, job.images)
    tensors = files.read_tensors(checkpoint, network)
    wrong = [
        name for name, value in made.parameters.items() if name not in tensors or tensors[name].shape != value.shape
    ]
    if wrong:
        raise ValueError(f"{paths[0]}: does not fit the network of {checkpoint} at {wrong[0]}")
    tensors |= {name: value.to(tensors[name].dtype) for name, value in made.parameters.items()}
    meta = json.loads((checkpoint / files.CONFIG).read_text())
    meta["ema"] = {"length": job.length, "images": made.images, "misfit": made.misfit}
    if made.misfit > MISFIT:
        warnings.warn(
            f"the snapshots give an average of length {job.length:g} whose weight over time is {made.misfit:.0%} off; "
            f"a longer one, or denser snapshots, fit better",
            stacklevel=1,
        )
    written = files.save(out, made.images, {network: tensors}, {k: v for k, v in meta.items() if k not in OWN}, 1)
    return f"the average of length {job.length:g} at {made.images:,} images, of {len(paths)} snapshots, in {written}"
