"""The state of an optimizer as named tensors, which a file of tensors can hold."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """``{"<prefix>.<number of the parameter>.<name>": tensor}`` of the optimizer's state for each parameter."""
    state = optimizer.state_dict()["state"]
    return {f"{prefix}.{i}.{name}": value for i, values in state.items() for name, value in values.items()}


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str, tensors: Mapping[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` gave; tensors of other names are ignored.

    A tensor of the parameter's shape gets the parameter's layout in memory, so that the same instructions run on it as
    before, and round alike.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        owner, _, rest = key.partition(".")
        if owner == prefix:
            number, name = rest.split(".")
            like = parameters[int(number)]
            if value.shape == like.shape:
                value = torch.empty_like(like, dtype=value.dtype, device=value.device).copy_(value)
            state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
