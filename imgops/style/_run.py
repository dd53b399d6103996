"""The loop of a training that saves its network and state as it goes, and can continue from there, bit for bit."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from .._optimizer_state import load_optimizer_tensors, optimizer_tensors
from .._settings import present_names
from ..data.files import write_file
from .training_settings import Training

FORMAT = 1
#: settings that states of earlier versions lack, and what those versions did
_EARLIER = {"precision": "float32"}
#: called after each step with its number, the number of steps, the losses by name, and, at steps that save, a picture
#: [3, H, W] that the network makes now; a true answer stops the training
OnStep = Callable[[int, int, dict[str, float], Tensor | None], bool | None]


def state_path(out: Path) -> Path:
    """The file of the state of a training that writes its network to ``out``."""
    return out.with_name(out.name + ".state")


def check_out(owner: str, out: Path, resume: bool) -> None:
    """Raise ValueError unless a training can write to ``out``, or with ``resume`` go on from there."""
    if out.suffix != ".safetensors":
        raise ValueError(f"{owner}: out must end in .safetensors; got {out}")
    state = state_path(out)
    if resume and not state.is_file():
        raise ValueError(f"{state}: there is no training to resume")
    if not resume and (out.exists() or state.exists()):
        raise ValueError(f"{out}: a training is there; resume it, or give another name")


def run(
    network: nn.Module,
    out: Path,
    pace: Training,
    batches: Callable[[int], Iterator[Any]],
    losses: Callable[[Any], tuple[dict[str, Tensor], Tensor]],
    record: Mapping[str, Any],
    *,
    resume: bool,
    on_step: OnStep | None,
) -> int:
    """Minimize the sum of losses by Adam, and save the network to ``out`` and all that a resumed run needs beside it.

    Args:
        network: where it will be trained.
        out: its file. The state holds the network too and is written first, so that after a kill a resumed run needs
            the state alone.
        pace: when it saves and ends, and the learning rates.
        batches: all batches from a step on.
        losses: of a batch, by name, weighted; and a picture of what the network makes of it.
        record: JSON that must be the same in a resumed run.
        resume: start from the state.
        on_step: see :data:`OnStep`.

    Returns:
        The number of steps done in all.

    Raises:
        ValueError: a state that is damaged or of another training, what differs named.
        FloatingPointError: the loss is no longer finite; the files are those of the last save.
        OSError: a file cannot be written.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=pace.rate(0))
    step = _load(state_path(out), network, optimizer, record) if resume else 0
    out.parent.mkdir(parents=True, exist_ok=True)
    deadline = math.inf if pace.minutes is None else time.monotonic() + 60 * pace.minutes
    stopped = step >= pace.steps
    device = next(network.parameters()).device.type
    source = batches(step)
    while not stopped:
        for group in optimizer.param_groups:
            group["lr"] = pace.rate(step)
        with torch.autocast(device, torch.bfloat16, enabled=pace.precision == "bfloat16"):
            parts, picture = losses(next(source))
        total = torch.stack(list(parts.values())).sum()
        optimizer.zero_grad()
        total.backward()
        values = {name: float(value.detach()) for name, value in {"total": total, **parts}.items()}
        if not math.isfinite(values["total"]):
            raise FloatingPointError(f"{out}: the loss is {values['total']} at step {step + 1}; try a smaller lr")
        optimizer.step()
        step += 1
        saving = step % pace.save_every == 0
        stopped = step >= pace.steps or time.monotonic() >= deadline
        if on_step is not None and on_step(step, pace.steps, values, picture if saving or stopped else None):
            stopped = True
        if saving and not stopped:
            _save(out, network, optimizer, step, record)
    _save(out, network, optimizer, step, record)
    return step


def _save(
    out: Path, network: nn.Module, optimizer: torch.optim.Optimizer, step: int, record: Mapping[str, Any]
) -> None:
    weights = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    kept = optimizer_tensors(optimizer, "optimizer")
    moments = {key: value.detach().cpu().contiguous() for key, value in kept.items()}
    settings = json.dumps({"format": FORMAT, "step": step, **record})
    state = {**{f"network.{key}": value for key, value in weights.items()}, **moments}
    write_file(state_path(out), safetensors.torch.save(state, {"imgops": settings}))
    write_file(out, safetensors.torch.save(weights, {"imgops": settings}))


def _load(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, record: Mapping[str, Any]) -> int:
    """Put a state back, and return its step."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            saved = json.loads((file.metadata() or {})["imgops"], object_hook=present_names)
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        step, version = int(saved.pop("step")), saved.pop("format")
    except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not the state of a training, or a damaged one ({error})") from None
    if version != FORMAT:
        raise ValueError(f"{path}: has format {version}; this version of imgops reads format {FORMAT}")
    # through JSON, which turns tuples into lists
    for name, value in json.loads(json.dumps(record)).items():
        if (then := saved.get(name, _EARLIER.get(name))) != value:
            raise ValueError(f"{path}: was trained with {name} {then!r}; got {value!r}")
    network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
    load_optimizer_tensors(optimizer, "optimizer", tensors)
    return step
