"""A step of DeepDream against what one writes first, and the normalization of its gradient alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgops.dream import Objective
from imgops.dream.gradient import Gradient
from imgops.dream.normalize import LEVELS, TAPS, laplacian_normalized, normalized
from imgops.models.encoders.vgg import VGG

from .bench_style import plain_copy
from .comparison import Comparison, names, time_side

#: the shape of the encoder that ships with the package, and the layer that it dreams with
BLOCKS, WIDTHS, LAYER = (2, 2, 2, 2, 2), (24, 48, 96, 192, 256), "relu4_2"
STEP_SIZE = 0.004


def eager_laplacian(gradient: Tensor) -> Tensor:
    """The normalization by depthwise convolutions, as the notebooks have it."""
    taps = torch.tensor(TAPS, device=gradient.device)
    kernel = (taps.outer(taps) / 256).expand(3, 1, 5, 5)
    bands, low = [], gradient
    for _ in range(LEVELS):
        lower = F.conv2d(low, kernel, stride=2, padding=2, groups=3)
        bands.append(low - _expanded(lower, kernel, low))
        low = lower
    result = _unit(low)
    for band in reversed(bands):
        result = _expanded(result, kernel, band) + _unit(band)
    return result


def _expanded(low: Tensor, kernel: Tensor, like: Tensor) -> Tensor:
    odd = [1 - side % 2 for side in like.shape[2:]]
    return F.conv_transpose2d(low, kernel * 4, stride=2, padding=2, output_padding=odd, groups=3)


def _unit(x: Tensor) -> Tensor:
    return x / x.square().mean().sqrt().clamp(min=1e-10)


def step(size: int, device: str = "cpu") -> Comparison:
    """Gradient, normalization, step and clamp for one picture."""
    network = VGG(BLOCKS, widths=WIDTHS).to(device).eval()
    plain, truncated = plain_copy(network), nn.Sequential()
    for name, layer in plain.named_children():
        truncated.add_module(name, layer)
        if name == LAYER:
            break
    picture, gradient = torch.rand(1, 3, size, size, device=device), Gradient(network, [Objective(LAYER)])

    def imgops() -> Tensor:
        return (picture + STEP_SIZE * laplacian_normalized(gradient(picture)[1])).clamp(0, 1)

    def moved(x: Tensor) -> Tensor:
        return (picture + STEP_SIZE * eager_laplacian(x.grad)).clamp(0, 1)

    def eager() -> Tensor:
        found: list[Tensor] = []
        hook = plain.get_submodule(LAYER).register_forward_hook(lambda module, inputs, output: found.append(output))
        x = picture.clone().requires_grad_()
        plain(x)
        hook.remove()
        (found[0].square().mean() / 2).backward()
        for parameter in plain.parameters():
            parameter.grad = None
        return moved(x)

    def eager_truncated() -> Tensor:
        x = picture.clone().requires_grad_()
        (x.grad,) = torch.autograd.grad(truncated(x).square().mean() / 2, x)
        return moved(x)

    sides: dict[str, Callable[[], Any]] = {"imgops": imgops, "eager": eager, "eager truncated": eager_truncated}
    return Comparison("dream step", f"{LAYER} of the small VGG, 1x3x{size}x{size}", sides)


def normalization(size: int) -> Comparison:
    """The Laplacian pyramid of a gradient and back, each level divided by its root mean square."""
    gradient = torch.randn(1, 3, size, size)
    sides = {"imgops": lambda: laplacian_normalized(gradient), "eager": lambda: eager_laplacian(gradient)}
    return Comparison("laplacian normalization", f"1x3x{size}x{size}", sides)


def update(size: int) -> Comparison:
    """The part of a step beside the gradient: divide by the mean, move and clamp; too little to be worth fusing."""
    picture, gradient = torch.rand(1, 3, size, size), torch.randn(1, 3, size, size)

    def eager() -> Tensor:
        return torch.clamp(picture + STEP_SIZE * (gradient / (gradient.abs().mean() + 1e-8)), 0, 1)

    sides = {"imgops": lambda: (picture + STEP_SIZE * normalized(gradient, "mean")).clamp(0, 1), "eager": eager}
    return Comparison("dream update", f"1x3x{size}x{size}", sides)


def comparisons() -> list[Comparison]:
    """A step, and its parts except the gradient, for a small picture and for a larger one."""
    return [step(256), step(512), update(256), update(512), normalization(256), normalization(1024)]


@pytest.mark.parametrize(("problem", "side"), names(comparisons))
def test_dream_step(benchmark, problem, side):
    time_side(benchmark, comparisons, problem, side)
