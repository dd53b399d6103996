"""The device that a name stands for, and the error where that device is missing."""

from __future__ import annotations


def choose_device(name: str) -> str:
    """The device that ``auto`` stands for, or the one named.

    Raises:
        ValueError: there is no such device here; the message lists those that there are.
    """
    # the names of settings are read without torch
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if gpus else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N; got {name!r}")
    if kind == "cuda" and (torch.device(name).index or 0) >= gpus:
        there = "cpu" if not gpus else f"cpu, {', '.join(f'cuda:{i}' for i in range(gpus))}"
        why = (
            ""
            if gpus
            else "; no GPU is visible to torch"
            + ("" if torch.version.cuda or torch.version.hip else ", a build without CUDA")
        )
        raise ValueError(f"device {name} is not here: there is {there}{why}")
    return name
