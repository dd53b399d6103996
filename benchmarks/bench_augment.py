"""The augmentation pipe, forward and backward, against the same transforms as one writes them in plain PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from imgops import _eager
from imgops.training import AugmentPipe
from imgops.training.augment.draws import Draws
from imgops.training.augment.geometry import SYM6

from .comparison import Comparison, names, time_side

#: (images, pixels)
PROBLEMS = ((16, 32), (32, 32), (16, 64), (32, 64))
#: draws for which one reflection beyond each edge is enough, so that both sides agree
SEED = 1
TAPS = torch.tensor(SYM6) / 2**0.5


def matrices(rows: Sequence[Sequence[Tensor | float]], like: Tensor) -> Tensor:
    """[N, n, n] of elements that are [N] each, or the same for all."""
    return torch.stack([torch.stack([torch.as_tensor(e).to(like).expand_as(like) for e in r], -1) for r in rows], -2)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    return matrices([[x, 0, 0], [0, y, 0], [0, 0, 1]], x)


def rotation(angle: Tensor) -> Tensor:
    c, s = angle.cos(), angle.sin()
    return matrices([[c, -s, 0], [s, c, 0], [0, 0, 1]], angle)


def translation(x: Tensor, y: Tensor) -> Tensor:
    return matrices([[1, 0, x], [0, 1, y], [0, 0, 1]], x)


def up_by_strides(images: Tensor, x: int, y: int) -> Tensor:
    """Twice the size, with margins of x and y pixels; the center is that of the image."""
    return _eager.upfirdn2d(F.pad(images, [x, x, y, y], mode="reflect"), TAPS, 2, 1, [6, 4, 6, 4], 4.0)


@cache
def matrix(side: int, margin: int) -> Tensor:
    """:func:`up_by_strides` along one axis, as a matrix."""
    wide = up_by_strides(torch.eye(side).reshape(side, 1, 1, side).expand(-1, -1, side, -1), margin, 0)
    # every row of an image whose rows are alike is the filtered one
    return wide[:, 0, side].T


def up_by_products(images: Tensor, x: int, y: int) -> Tensor:
    height, width = images.shape[2:]
    return matrix(height, y) @ (images @ matrix(width, x).T)


def sampled(images: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(images, grid, align_corners=False)


def moved(
    images: Tensor, draws: Draws, up: Callable[..., Tensor], sample: Callable[[Tensor, Tensor], Tensor] = sampled
) -> Tensor:
    """Blitting and geometry, with a margin by the farthest corner of the batch."""
    height, width = images.shape[2:]
    (xflip, turns, scale, aniso), one = (d[:, 0] for d in (draws.xflip, draws.rotate90, draws.scale, draws.aniso)), 1.0
    inverse = torch.eye(3).expand(len(images), 3, 3)
    inverse = inverse @ scaling(1 - 2 * xflip, torch.ones_like(xflip))
    inverse = inverse @ rotation(turns * (math.pi / 2))
    inverse = inverse @ translation(-(draws.xint[:, 0] * width).round(), -(draws.xint[:, 1] * height).round())
    inverse = inverse @ scaling(torch.exp2(-scale), torch.exp2(-scale))
    inverse = inverse @ rotation(draws.rotate[:, 0])
    inverse = inverse @ scaling(torch.exp2(-aniso), torch.exp2(aniso))
    inverse = inverse @ rotation(draws.rotate[:, 1])
    inverse = inverse @ translation(-draws.xfrac[:, 0] * width, -draws.xfrac[:, 1] * height)

    corners = torch.tensor([[sx * (width - 1) / 2, sy * (height - 1) / 2, one] for sx in (-1, 1) for sy in (-1, 1)])
    beyond = (inverse @ corners.T)[:, :2].abs().amax((0, 2)) - torch.tensor([width - 1, height - 1]) / 2
    x, y = (min(max(math.ceil(float(b)) + 6, 6), n - 1) for b, n in zip(beyond, (width, height), strict=True))
    whole = up(images, x, y)

    size = [2 * height + 10, 2 * width + 10]
    quarter = torch.tensor([0.25])
    grid_to_pixels = translation(quarter, quarter) @ scaling(quarter * size[1], quarter * size[0])
    pixels_to_grid = scaling(torch.tensor([4 / whole.shape[3]]), torch.tensor([4 / whole.shape[2]]))
    theta = (pixels_to_grid @ inverse @ grid_to_pixels)[:, :2]
    grid = F.affine_grid(theta, [len(images), 1, *size], align_corners=False)
    return _eager.upfirdn2d(sample(whole, grid), TAPS.flip(0), 1, 2, [0] * 4, 1.0)


def colored(images: Tensor, draws: Draws) -> Tensor:
    """The color transforms, each a matrix."""
    n, zero = len(images), torch.zeros(len(images))
    brightness, contrast, flip, hue, saturation = (
        d[:, 0] for d in (draws.brightness, draws.contrast, draws.lumaflip, draws.hue, draws.saturation)
    )
    axis = torch.tensor([1.0, 1.0, 1.0, 0.0]) / 3**0.5
    luma, identity = axis.outer(axis), torch.eye(4)
    color = matrices([[1, 0, 0, brightness], [0, 1, 0, brightness], [0, 0, 1, brightness], [0, 0, 0, 1]], zero)
    c = torch.exp2(contrast)
    color = matrices([[c, 0, 0, 0], [0, c, 0, 0], [0, 0, c, 0], [0, 0, 0, 1]], zero) @ color
    color = (identity - 2 * luma * flip[:, None, None]) @ color
    c, s, third = hue.cos(), hue.sin() / 3**0.5, (1 - hue.cos()) / 3
    turned = [[c + third, third - s, third + s, 0], [third + s, c + third, third - s, 0]]
    color = matrices([*turned, [third - s, third + s, c + third, 0], [0, 0, 0, 1]], zero) @ color
    color = (luma + (identity - luma) * torch.exp2(saturation)[:, None, None]) @ color
    pixels = images.reshape(n, 3, -1)
    return (color[:, :3, :3] @ pixels + color[:, :3, 3:]).reshape(images.shape)


def comparison(batch: int, pixels: int) -> Comparison:
    """The augmented images and the gradient of a weighted sum of them."""
    pipe = AugmentPipe.preset("bgc")
    images, weights = (torch.randn(batch, 3, pixels, pixels) for _ in range(2))

    def with_gradient(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return y, torch.autograd.grad(y, x, weights)[0]

    def ours() -> tuple[Tensor, Tensor]:
        torch.manual_seed(SEED)
        x = images.detach().requires_grad_()
        return with_gradient(x, pipe(x))

    def eager(up: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
        torch.manual_seed(SEED)
        x = images.detach().requires_grad_()
        draws = pipe.drawer(torch.rand(batch, pipe.draws), pipe.p)
        return with_gradient(x, colored(moved(x, draws, up), draws))

    sides = {
        "imgops": ours,
        "eager": lambda: eager(up_by_strides),
        # on small images the products that a filter's matrix takes are fewer than the cost of its convolution
        "eager products": lambda: eager(up_by_products),
    }
    return Comparison("augment bgc", f"{batch}x3x{pixels}x{pixels} forward+backward", sides, tolerance=1e-3)


def comparisons() -> list[Comparison]:
    """One comparison for each batch and size."""
    return [comparison(*problem) for problem in PROBLEMS]


@pytest.mark.parametrize(("problem", "side"), names(comparisons))
def test_augmentation(benchmark, problem, side):
    time_side(benchmark, comparisons, problem, side)
