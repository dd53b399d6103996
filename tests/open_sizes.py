"""Modules of every op and layer that works with the sizes of its input, for tests that run a graph at other sizes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import imgops
from imgops.models.adain_decoder import AdaINDecoder

#: (batch, height, width): no two the same, so that a compiler does not take one size for another
SIZES = [(6, 16, 12), (10, 24, 20), (6, 15, 21), (14, 13, 22), (10, 19, 12), (6, 31, 17)]
CHANNELS = 4
#: sizes of weights, which meet none of the above
_TAPS, _LONG = imgops.setup_filter([1, 3, 3, 1]), imgops.setup_filter([1, 2, 4, 6, 8, 6, 4, 2, 1])


class Called(nn.Module):
    """A function of a picture as a module; tensors that it uses are buffers."""

    def __init__(self, function: Callable[..., Tensor], **buffers: Tensor) -> None:
        super().__init__()
        self.function = function
        self.names = list(buffers)
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, **{name: getattr(self, name) for name in self.names})


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
    weight, bias, target = torch.randn(3, c, 3, 3), torch.randn(c), torch.randn(1, c, c)
    conv = {"weight": weight, "f": _TAPS}

    def convolved(**options):
        def call(x: Tensor, weight: Tensor, f: Tensor) -> Tensor:
            return imgops.modulated_conv2d(
                x, weight, x.mean([2, 3]), act="lrelu", padding=1, resample_filter=f, **options
            )

        return call

    return {
        "adain": Called(lambda x: imgops.adain(x, 2 * x[:, :, 1:].contiguous())),
        "adaptive_instance_norm": Called(lambda x, b: imgops.adaptive_instance_norm(x, b[None], b[None]), b=bias),
        "bias_act": Called(lambda x, b: imgops.bias_act(x, b, act="swish"), b=bias),
        "displace": Called(lambda x: imgops.displace(x, 3 * x[:, :2])),
        "displace reflection": Called(lambda x: imgops.displace(x, 9 * x[:, :2], padding_mode="reflection")),
        "feature_statistics": Called(lambda x: imgops.feature_statistics(x)[1]),
        "filtered_lrelu": Called(
            lambda x, fu, fd, b: imgops.filtered_lrelu(x, fu, fd, b, up=2, down=2, padding=5, clamp=1.0),
            fu=_LONG, fd=_TAPS, b=bias,
        ),
        "grid_sample": Called(lambda x: imgops.grid_sample(x, x[:, :2].permute(0, 2, 3, 1).tanh())),
        "modulated_conv2d": Called(convolved(), **conv),
        "modulated_conv2d up": Called(convolved(up=2), **conv),
        "modulated_conv2d down": Called(convolved(down=2), **conv),
        "upfirdn2d": Called(lambda x, f: imgops.upfirdn2d(x, f, up=3, down=2, padding=3), f=_TAPS),
        "style_loss none": Called(lambda x, target: imgops.style_loss(x, target, reduction="none"), target=target),
        "wasserstein_loss": Called(
            lambda x, m, s: imgops.wasserstein_loss(x, m, s), m=torch.randn(1, c), s=torch.eye(c)[None]
        ),
        "pixel_norm": Called(layers.pixel_norm),
        **{f"GramMatrix {name}": layers.GramMatrix(name) for name in ("chw", "hw", "nchw", "none")},
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
