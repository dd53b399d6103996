"""What is drawn per image: for each transform whether it is applied, and by how much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...ops._common import check_number, check_operand


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
#: uniform numbers per image, in this order
SIZES = (len(GATES), len(CHOICES), len(UNIFORM), len(NORMAL))
#: the least step of a float32 below 1
STEP = 2.0**-24


def uniform_draws(
    owner: str, images: Tensor, count: int, percentile: float | None = None, uniforms: Tensor | None = None
) -> Tensor:
    """[N, count] in [0, 1) in the dtype of the images: those given, or the percentile throughout, or random ones.

    Raises:
        TypeError: a percentile that is no number, uniforms that are no tensor of floating dtype.
        ValueError: a percentile beyond [0, 1], uniforms of another shape or on another device, or both given.
    """
    shape = (images.shape[0], count)
    if uniforms is not None:
        if percentile is not None:
            raise ValueError(f"imgops.{owner}: takes debug_percentile or uniforms, not both")
        check_operand(owner, "uniforms", uniforms, images, shape)
        drawn = uniforms.to(images.dtype)
    elif percentile is not None:
        percentile = check_number(owner, "debug_percentile", percentile, 0)
        if percentile > 1:
            raise ValueError(f"imgops.{owner}: debug_percentile must be in [0, 1]; got {percentile:g}")
        drawn = torch.full(shape, percentile, dtype=images.dtype, device=images.device)
    else:
        drawn = torch.rand(shape, dtype=images.dtype, device=images.device)
    return drawn.clamp(max=1 - STEP)


class Drawer(nn.Module):
    """Makes what is drawn per image of uniform numbers, all at once: dozens of small tensors would cost more.

    ``forward(uniforms, p, deviation)``: uniforms [N, sum(SIZES)] in [0, 1), p a scalar, the standard deviation that
    normal numbers have before their spread.

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
    def forward(self, uniforms: Tensor, p: Tensor, deviation: float = 1.0) -> Draws:
        gate, choice, uniform, normal = uniforms.split(SIZES, 1)
        applied = gate < 1 - (1 - p * self.strengths).clamp(min=0) ** self.exponents
        choice = (choice * self.choices).floor()
        # the deviation of noise is half-normal; at -1 the inverse is infinite
        normal = torch.cat([2 * normal[:, :-1] - 1, normal[:, -1:]], 1).clamp(min=STEP - 1)
        normal = torch.special.erfinv(normal) * (2**0.5 * deviation)
        values = torch.cat([choice, 2 * uniform - 1, normal, torch.ones_like(normal[:, :1])], 1)
        return Draws(*torch.where(applied[:, self.gates], values * self.spreads, 0).split(WIDTHS, 1))
