"""Modules of every op and layer that works with the sizes of its input, for tests that run a graph at other sizes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import imgops
from imgops.models.style.adain_decoder import AdaINDecoder
from tests.op_specs import SHEETS
from tests.op_specs._sheet import CHANNELS, Called

#: (batch, height, width): no two the same, so that a compiler does not take one size for another
SIZES = [(6, 16, 12), (10, 24, 20), (6, 15, 21), (14, 13, 22), (10, 19, 12), (6, 31, 17)]


class Carried(nn.Module):
    """A level of displacement whose fields come from a level of a third of the resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.level = imgops.nn.ModulatedDisplacement(CHANNELS, 5)
        nn.init.normal_(self.level.weight)

    def forward(self, x: Tensor) -> Tensor:
        fields = x[:, :2, ::3, ::3].contiguous()
        state = imgops.nn.DisplacementState(fields, fields.flip(1))
        return self.level(x, x.new_ones(x.shape[0], 5), state)[1].momentum


class Perceptual(nn.Module):
    """Of a picture and its mirror image."""

    def __init__(self) -> None:
        super().__init__()
        network = nn.Sequential(nn.Conv2d(CHANNELS, 3, 3), nn.ReLU())
        self.loss = imgops.nn.PerceptualLoss(network, {"1": 0.5}, "l1")

    def forward(self, x: Tensor) -> Tensor:
        return self.loss(x, x.flip(3))


def modules() -> dict[str, nn.Module]:
    """Each by its name; all take x [N, 4, H, W] of at least 12 x 12 pixels."""
    c, layers = CHANNELS, imgops.nn
    return {
        **{name: m for sheet in SHEETS.values() for name, m in sheet.pictures().items()},
        "pixel_norm": Called(layers.pixel_norm),
        "GramMatrix": layers.GramMatrix("chw"),
        "StyleLoss": layers.StyleLoss(torch.randn(1, c, 9, 8)),
        "ContentLoss": Called(lambda x: layers.ContentLoss(torch.zeros_like(x), "none")(x)),
        "TotalVariation": layers.TotalVariation(),
        "PerceptualLoss": Perceptual(),
        "MinibatchStdDev": layers.MinibatchStdDev(2),
        "InstanceNorm2d": layers.InstanceNorm2d(c),
        "FIRUpsample2d": layers.FIRUpsample2d(3),
        "FIRDownsample2d": layers.FIRDownsample2d(),
        "FilteredLReLU": layers.FilteredLReLU(c, [1, 3, 3, 1], [1, 2, 1]),
        "EqualizedConv2d": layers.EqualizedConv2d(c, 3, 3, act="lrelu"),
        "EqualizedConv2d up": layers.EqualizedConv2d(c, 3, 3, up=2),
        "EqualizedConv2d down": layers.EqualizedConv2d(c, 3, 1, down=2),
        "ModulatedDisplacement": Carried(),
        "AdaINDecoder": AdaINDecoder((1, 1), widths=(2, 3, c)),
    }  # fmt: skip


def picture(n: int, h: int, w: int) -> Tensor:
    return torch.randn(n, CHANNELS, h, w)
