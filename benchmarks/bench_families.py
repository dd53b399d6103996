"""The generators of other families than StyleGAN2, and their training steps, at 64 pixels on the CPU.

Sides: imgops, and the same networks on the fastest forms of their ops in plain PyTorch. DCGAN has no rows: it is plain
PyTorch, whose convolutions and batch norm are the fastest forms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from imgops import _eager
from imgops.reference.modulated_conv2d import resample_padding
from imgops.training import Trainer
from imgops.training.recipes import config_class

from .bench_iteration import biased, gradients_of
from .bench_training import bias_act, eager_layers
from .comparison import Comparison, names, time_side

BATCH, SIDE = 4, 64
#: by recipe: settings of the networks, and the least ratio
FAMILIES: dict[str, tuple[dict[str, Any], float]] = {
    "stylegan3-t": ({"channel_base": 4096}, 8.0),
    "stylegan3-r": ({"channel_base": 4096}, 8.0),
    "r3gan": ({"channel_base": 8192, "channel_max": 256}, 1.5),
}


def _modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    bias: Tensor | None = None,
    clamp: float | None = None,
    padding: int = 0,
    demodulate: bool = True,
    input_gain: Tensor | None = None,
) -> Tensor:
    """Scale, convolve, scale; the last layer's bias and clamp."""
    y = F.conv2d(x * styles[:, :, None, None], weight, padding=padding)
    if demodulate:
        demod = torch.rsqrt(styles.square() @ weight.square().sum([2, 3]).t() + 1e-8)
        return y * (demod if input_gain is None else demod * input_gain)[:, :, None, None]
    y = y if bias is None else y + bias[:, None, None]
    return y if clamp is None else y.clamp(-clamp, clamp)


def _filtered_lrelu(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    b: Tensor,
    up: int,
    down: int,
    padding: list[int],
    *,
    clamp: float | None,
) -> Tensor:
    """Each step with the fastest known filter, by strides."""
    x = x + b[:, None, None]
    x = F.pad(x, padding) if fu is None else _eager.upfirdn2d(x, fu, up, 1, padding, float(up**2))
    x = _eager.lrelu(x)
    x = x if clamp is None else x.clamp(-clamp, clamp)
    return x if fd is None else _eager.upfirdn2d(x, fd, 1, down, [0] * 4, 1.0)


def _plain_conv2d(
    op: str, x: Tensor, weight: Tensor, *, bias: Tensor | None, act: str, gain: float, **more: Any
) -> Tensor:
    return bias_act(F.conv2d(x, weight, padding=more["padding"]), bias, act=act, gain=gain)


def _resample(x: Tensor, f: Tensor, up: int, down: int) -> Tensor:
    pads = resample_padding((0, 0, 0, 0), (f.shape[-1], f.shape[0]), up, down)
    return _eager.upfirdn2d(x, f, up, down, list(pads), float(up**2))


@contextmanager
def eager_families() -> Iterator[None]:
    """A context in which networks call the fastest forms in plain PyTorch, not the fused ops."""
    with (
        eager_layers(),
        mock.patch("imgops.models.stylegan3.layers.modulated_conv2d", _modulated_conv2d),
        mock.patch("imgops.models.stylegan3.layers.filtered_lrelu", _filtered_lrelu),
        mock.patch("imgops.nn.plain_conv.resampled_conv2d", _plain_conv2d),
        mock.patch("imgops.nn.plain_conv.bias_act", bias_act),
        mock.patch("imgops.models.r3gan.blocks.upsample2d", lambda x, f: _resample(x, f, 2, 1)),
        mock.patch("imgops.models.r3gan.blocks.downsample2d", lambda x, f: _resample(x, f, 1, 2)),
    ):
        yield


SIDES: dict[str, Callable[[], AbstractContextManager[Any]]] = {"imgops": nullcontext, "eager": eager_families}


@cache
def trainer(recipe: str) -> Trainer:
    """All sides train the same networks, by next to nothing, so that they stay comparable from step to step."""
    settings = {"augment": "none", "batch": BATCH, "resolution": SIDE, "device": "cpu", **FAMILIES[recipe][0]}
    # a rate that falls to another one must stay as small
    slow = dict.fromkeys(["g_lr", "d_lr", *(["lr_end"] if recipe == "r3gan" else [])], 1e-12)
    made: Any = config_class(recipe)(data="", out="", **settings, **slow)
    return biased(Trainer(made.resolve()))


def forward(recipe: str, side: str) -> Tensor:
    """Images of fixed latents."""
    G = trainer(recipe).G_ema
    z = torch.randn(BATCH, G.z_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), SIDES[side]():
        return G(z)  # type: ignore[no-any-return]


def step(recipe: str, side: str) -> dict[str, Tensor]:
    """A step on fixed images, with the penalty of the loss."""
    made = trainer(recipe)
    real = torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    made.steps = made.seen = 0
    with SIDES[side]():
        return made.step(real, torch.zeros(BATCH, dtype=torch.int64))


def comparisons() -> list[Comparison]:
    """Of each family the generator, and a step with the penalty of its loss."""
    rows = []
    for recipe, (_, goal) in FAMILIES.items():
        shape = f"{recipe}, {BATCH}x3x{SIDE}x{SIDE}"
        sides = {side: lambda side=side, recipe=recipe: forward(recipe, side) for side in SIDES}
        rows.append(Comparison("generator", shape, sides, goal, tolerance=1e-3))
        steps = {
            side: lambda side=side, recipe=recipe: gradients_of(trainer(recipe), lambda: step(recipe, side))
            for side in SIDES
        }
        rows.append(Comparison("training step with R1", shape, steps, goal, tolerance=5e-2))
    return rows


@pytest.mark.parametrize(("problem", "side"), names(comparisons))
def test_family(benchmark, problem, side):
    time_side(benchmark, comparisons, problem, side)
