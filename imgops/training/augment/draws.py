"""What is drawn per image: for each transform whether it is applied, and by how much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Draws(NamedTuple):
    """Numbers per image, [N, k] each: all 0 where their transform is left out, which changes nothing."""

    xflip: Tensor
    rotate90: Tensor
    lumaflip: Tensor
    xint: Tensor
    rotate: Tensor
    hue: Tensor
    center: Tensor
    scale: Tensor
    aniso: Tensor
    xfrac: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    imgfilter: Tensor
    noise: Tensor
    cutout: Tensor


#: k of each field of Draws
WIDTHS = (1, 1, 1, 2, 2, 1, 2, 1, 1, 2, 1, 1, 1, 4, 1, 1)
#: the numbers by distribution, in the order of Draws, each named by the gate that opens it: a rotation has one gate
#: before the stretch and one after it, every frequency band has its own
CHOICES = {"xflip": 2, "rotate90": 4, "lumaflip": 2}
UNIFORM = ("xint", "xint", "rotate before", "rotate after", "hue", "cutout", "cutout")
NORMAL = (
    "scale", "aniso", "xfrac", "xfrac", "brightness", "contrast", "saturation",
    "imgfilter 0", "imgfilter 1", "imgfilter 2", "imgfilter 3", "noise",
)  # fmt: skip
CONSTANT = ("cutout",)
COLUMNS = (*CHOICES, *UNIFORM, *NORMAL, *CONSTANT)
GATES = tuple(dict.fromkeys(COLUMNS))


def normal_quantile(percentile: Tensor) -> Tensor:
    """What stands for a quantile of the standard normal distribution in recorded cases: it is a root of 2 too small."""
    return torch.special.erfinv(2 * percentile - 1)


class Drawer(nn.Module):
    """Draws for a batch, all at once: dozens of small draws would cost more than the transforms.

    Args:
        strengths: factor on p, by gate.
        spreads: factor on what is drawn, by gate: a choice, uniform in (-1, 1), standard normal, or the constant 1.
    """

    strengths: Tensor
    exponents: Tensor
    choices: Tensor
    gates: Tensor
    spreads: Tensor

    def __init__(self, strengths: Mapping[str, float], spreads: Mapping[str, float]) -> None:
        super().__init__()
        factors = [spreads.get(gate, 1.0) for gate in COLUMNS]
        # the center of a cutout is anywhere, whatever its size
        for i, gate in enumerate(UNIFORM):
            if gate == "cutout":
                factors[len(CHOICES) + i] = 0.5
        constants = {
            "strengths": [strengths[gate] for gate in GATES],
            # of two rotations each is left out with the probability sqrt(1 - p), so that P(one or both) = p
            "exponents": [0.5 if gate.startswith("rotate ") else 1.0 for gate in GATES],
            "choices": [float(n) for n in CHOICES.values()],
            "gates": [GATES.index(gate) for gate in COLUMNS],
            "spreads": factors,
        }
        for name, values in constants.items():
            self.register_buffer(name, torch.tensor(values), persistent=False)

    @torch.no_grad()
    def forward(self, n: int, p: Tensor, dtype: torch.dtype, percentile: float | None) -> Draws:
        """Draws for n images; with a percentile every number is that quantile of its distribution."""
        like: dict[str, Any] = {"dtype": dtype, "device": p.device}
        sizes = [len(GATES), len(CHOICES), len(UNIFORM)]
        if percentile is None:
            uniform, normal = torch.rand(n, sum(sizes), **like), torch.randn(n, len(NORMAL), **like)
        else:
            uniform = torch.full((n, sum(sizes)), percentile, **like)
            # of two equal rotations only the first is made
            uniform[:, UNIFORM.index("rotate after") - len(UNIFORM)] = 0.5
            quantiles = torch.full((n, len(NORMAL)), percentile, **like)
            # the noise's deviation has no sign
            quantiles[:, NORMAL.index("noise")] = (1 + percentile) / 2
            normal = normal_quantile(quantiles)
        gate, choice, signed = uniform.split(sizes, 1)
        applied = gate < 1 - (1 - p * self.strengths).clamp(min=0) ** self.exponents
        values = torch.cat([(choice * self.choices).floor(), 2 * signed - 1, normal, torch.ones_like(gate[:, :1])], 1)
        return Draws(*torch.where(applied[:, self.gates], values * self.spreads, 0).split(WIDTHS, 1))
