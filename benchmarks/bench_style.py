"""A step of style transfer by optimization: the losses' gradient and Adam's step, with the default encoder's
shape and that of VGG-19."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgops.models.encoders.vgg import VGG
from imgops.nn.joined import split
from imgops.style.objective import VGG_CONTENT, VGG_STYLE, Objective
from imgops.style.settings import OptimizeSettings

from .comparison import Comparison, names, time_side

#: the shapes of the encoders
ENCODERS: dict[str, dict[str, Any]] = {
    "default encoder": {"depth": (2, 2, 2, 2, 2), "widths": (24, 48, 96, 192, 256)},
    "VGG-19": {"depth": 19},
}
SIZES = ((171, 256), (384, 512))
SETTINGS = OptimizeSettings(normalization="chw")


def plain_copy(network: nn.Sequential) -> nn.Sequential:
    """The network with PyTorch's layers, one by one."""
    plain = copy.deepcopy(network)
    split(plain, built_in=True)
    return plain


def eager_gradient(network: nn.Sequential, content: Tensor, style: Tensor) -> Callable[[Tensor], Tensor]:
    """The same losses as one writes them: features one by one, ``bmm`` for Gram matrices, ``mse_loss``."""

    def features(x: Tensor) -> dict[str, Tensor]:
        found, wanted = {}, {*VGG_CONTENT, *VGG_STYLE}
        for name, layer in network.named_children():
            x = layer(x)
            if name in wanted:
                found[name] = x
                wanted.remove(name)
            if not wanted:
                break
        return found

    def gram(x: Tensor) -> Tensor:
        y = x.flatten(2)
        return torch.bmm(y, y.mT) / (x.shape[1] * x.shape[2] * x.shape[3])

    with torch.no_grad():
        contents, grams = features(content), {name: gram(x) for name, x in features(style).items()}
    whole = sum(VGG_STYLE.values())

    def gradient(picture: Tensor) -> Tensor:
        x = picture.detach().requires_grad_()
        found = features(x)
        loss = sum(weight / whole * F.mse_loss(gram(found[name]), grams[name]) for name, weight in VGG_STYLE.items())
        loss = loss + SETTINGS.content_weight * sum(F.mse_loss(found[name], contents[name]) for name in VGG_CONTENT)
        smooth = (x[..., 1:] - x[..., :-1]).square().mean() + (x[..., 1:, :] - x[..., :-1, :]).square().mean()
        return torch.autograd.grad(loss + SETTINGS.tv_weight * smooth, x)[0]

    return gradient


def comparison(name: str, shape: Mapping[str, Any], size: tuple[int, int], device: str = "cpu") -> Comparison:
    """Steps from one picture; a side returns the gradient, on which all agree, and then the picture moves."""
    made = cache(partial(_sides, shape, size, device))
    # the network and the features of its targets wait for the first call: whoever asks for the name needs neither
    sides = {side: lambda side=side: made()[side]() for side in ("imgops", "eager", "eager channels-last")}
    return Comparison("style step", f"{name}, {size[1]}x{size[0]}", sides, tolerance=1e-3)


def _sides(shape: Mapping[str, Any], size: tuple[int, int], device: str) -> dict[str, Callable[[], Tensor]]:
    network = VGG(**shape).to(device).eval().requires_grad_(False)
    content, style, start = (torch.rand(3, *size, device=device) for _ in range(3))
    objective = Objective(network, SETTINGS, content)
    objective.set_styles([style], [1.0])

    def stepper(gradient: Callable[[Tensor], Tensor], fused: bool, batched: bool) -> Callable[[], Tensor]:
        x = (start[None] if batched else start).clone()
        optimizer = torch.optim.Adam([x], 1e-9, fused=fused)

        def step() -> Tensor:
            found = gradient(x).contiguous()
            x.grad = found
            optimizer.step()
            x.clamp_(0, 1)
            return found.reshape(start.shape)

        return step

    layers = plain_copy(network)
    plain = eager_gradient(layers, content[None], style[None])
    last = eager_gradient(layers, *(y[None].contiguous(memory_format=torch.channels_last) for y in (content, style)))
    return {
        "imgops": stepper(lambda x: objective.gradient(x)[1], True, False),
        "eager": stepper(plain, False, True),
        "eager channels-last": stepper(lambda x: last(x.contiguous(memory_format=torch.channels_last)), True, True),
    }


def comparisons() -> list[Comparison]:
    """Both encoders at both sizes."""
    torch.manual_seed(0)
    return [comparison(name, shape, size) for name, shape in ENCODERS.items() for size in SIZES]


@pytest.mark.parametrize(("problem", "side"), names(comparisons))
def test_style_step(benchmark, problem, side):
    time_side(benchmark, comparisons, problem, side)
