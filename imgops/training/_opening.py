"""What a run reports before its first step: device, data, size of the networks, and the expected duration."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from pathlib import Path

import torch

from .. import __version__, _backend
from .._settings import resolution_text
from ._data import RunData
from ._progress import about
from .trainer import Trainer

#: the ops that the networks are made of
OPS = ("bias_act", "modulated_conv2d", "upfirdn2d")
#: duration in hours from which a run on a CPU is told which options suit it
LONG = 6.0


def opening(trainer: Trainer, data: RunData, out: Path) -> str:
    """Lines on the device, the data, the networks, the disk, and what the recipe says of its settings."""
    return lines_of(facts_of(trainer, data, out))


def lines_of(facts: Mapping[str, str]) -> str:
    """Facts as lines, their names in a column."""
    return "\n".join(f"{name:<9} {fact}" for name, fact in facts.items())


def facts_of(trainer: Trainer, data: RunData, out: Path) -> dict[str, str]:
    """What :func:`opening` shows, by name."""
    config = trainer.config
    trained = {k: n for k, n in trainer.recipe.networks.items() if any(p.requires_grad for p in n.parameters())}
    parameters = [f"{name} {_millions(network)}" for name, network in trained.items()]
    chosen = backends(trainer.device.type)
    why = " (no fused kernels: imgops info says why)" if chosen == "reference" else ""
    count = trainer.processes.count
    among = f", of {count} processes" if count > 1 else ""
    return {
        "device": f"{device_name(trainer.device)}{among}; ops by {chosen}{why}",
        "data": data.describe(),
        "networks": f"{resolution_text(config.resolution)} px, {', '.join(parameters)} parameters",
        "disk": _disk(trainer, out),
        **trainer.recipe.advice(),
    }


def _disk(trainer: Trainer, out: Path) -> str:
    """What the run's checkpoints will take, and the snapshots of its averages."""
    config, size, recipe = trainer.config, trainer.checkpoint_bytes(), trainer.recipe
    best, count = (" and the best", config.keep + 1) if recipe.measures else ("", config.keep)
    text = f"{megabytes(size)} per checkpoint, {megabytes(size * count)} for the {config.keep} that {out} keeps{best}"
    if recipe.averages is None or recipe.averages_kimg is None:
        return text
    # after each step at most
    written = math.ceil(config.total / max(recipe.averages_kimg * 1000, config.batch))
    taken = megabytes(recipe.averages.snapshot_bytes * written)
    return f"{text}\n{'':<9} {taken} for the averages, in {written:,} snapshots"


def forecast(
    device: str, images_per_second: float, left: int, steps: int, limited: bool, for_cpu: str | None = None
) -> str:
    """Lines on the speed of the first steps and the time for the images that are left; for a long run on a CPU, with
    the options ``for_cpu``."""
    seconds = left / images_per_second
    # the first step includes one-time set-up and every regularizer, so the others are faster
    after, at_most = ("the first step", "at most ") if steps == 1 else (f"{steps} steps", "")
    text = f"{'speed':<9} {images_per_second:.3g} images/s after {after}"
    if limited:
        return text
    text += f": {at_most}about {about(seconds)} for {left:,} images"
    if device == "cpu" and for_cpu is not None and seconds > LONG * 3600:
        text += f"\n{'':<9} a CPU wants smaller networks: {for_cpu}\n{'':<9} (docs/training.md, Sizing a run)"
    return text


def device_name(device: torch.device) -> str:
    """A device in words."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    return f"{device}, {threads} thread{'' if threads == 1 else 's'}"


def backends(device_type: str) -> str:
    """What runs the networks' ops on a type of device, in words."""
    statuses = _backend.load()
    return ", ".join(sorted({_backend.choose(op, device_type, None, statuses) for op in OPS}))


def made_by(device_type: str) -> dict[str, str]:
    """The versions and the backend that a run depends on besides its settings."""
    python = platform.python_version()
    return {"imgops": __version__, "torch": torch.__version__, "python": python, "backend": backends(device_type)}


def _millions(network: torch.nn.Module) -> str:
    return f"{sum(p.numel() for p in network.parameters()) / 1e6:.3g} M"


def megabytes(size: float) -> str:
    """A number of bytes in MB, or GB."""
    return f"{size / 1e6:.3g} MB" if size < 1e9 else f"{size / 1e9:.3g} GB"
