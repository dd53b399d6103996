"""StyleGAN2's training step at 64 pixels on the CPU, with all that training has: ADA's pipe, lazy R1 and path length.

Steps with neither regularizer, with the path length, and with both are timed apart; what training costs is their mean
in the proportion in which they come (:func:`means`). Sides: imgops; the same recipe on the fastest forms of all its ops
in plain PyTorch; the references.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import imgops
from imgops import _eager
from imgops.reference.modulated_conv2d import resample_padding
from imgops.training import AugmentPipe, Trainer, TrainingConfig
from tests.memory_growth import memory_growth

from .bench_augment import colored, moved, up_by_products
from .bench_training import eager_layers
from .comparison import Comparison, names, time_side

#: settings of the networks, and the batch: a quarter of the smaller published widths, these themselves, and the preset
#: for CPUs
NETWORKS: dict[str, dict[str, Any]] = {
    "4x3x64x64, channel_base 4096": {"batch": 4, "channel_base": 4096},
    "2x3x64x64, channel_base 16384": {"batch": 2, "channel_base": 16384},
    "16x3x64x64, preset tiny": {"batch": 16, "preset": "tiny"},
}
#: networks of which a step of the reference takes half a minute: they are compared with the fastest plain form alone
LARGE = {"2x3x64x64, channel_base 16384"}
#: kinds of steps: a number of such a step, and how many of them 16 steps have
KINDS = {"plain": (1, 12), "with path length": (4, 3), "with path length and R1": (0, 1)}
PROBABILITY = 0.5


class _GridSample(torch.autograd.Function):
    """``F.grid_sample`` of images, which PyTorch differentiates once and R1 needs differentiated twice."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(images, grid)
        return F.grid_sample(images, grid, align_corners=False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        images, grid = ctx.saved_tensors
        return _GridSampleBackward.apply(gradients[0], images, grid), None


class _GridSampleBackward(torch.autograd.Function):
    """The gradient for the images, which is linear in that of the samples: its own gradient samples again."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, images: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        wanted = (True, False)
        return torch.ops.aten.grid_sampler_2d_backward(gradient, images, grid, 0, 0, False, wanted)[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _GridSample.apply(gradients[0], grid), None, None


def _modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    noise: Tensor | None,
    demodulate: bool,
    bias: Tensor,
    up: int,
    padding: int,
    resample_filter: Tensor | None,
    **_: Any,
) -> Tensor:
    """A layer of the generator: scale, convolve, scale; leaky ReLU where it demodulates, no activation in ToRGB."""
    x = x * styles[:, :, None, None]
    if up > 1 and resample_filter is not None:
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=up)
        x = _eager.upfirdn2d(x, resample_filter, 1, 1, [padding] * 4, float(up**2))
    else:
        x = F.conv2d(x, weight, padding=padding)
    if not demodulate:
        return x + bias[:, None, None]
    demod = torch.rsqrt(styles.square() @ weight.square().sum([2, 3]).t() + 1e-8)
    return _eager.finish(x, demod, noise, bias)


def _upsample2d(x: Tensor, f: Tensor, up: int = 2) -> Tensor:
    pads = resample_padding((0, 0, 0, 0), (f.shape[-1], f.shape[0]), up, 1)
    return _eager.upfirdn2d(x, f, up, 1, list(pads), float(up**2))


def _augmented(pipe: AugmentPipe, images: Tensor, uniforms: Tensor) -> Tensor:
    draws = pipe.drawer(uniforms, pipe.p)
    return colored(moved(images, draws, up_by_products, _GridSample.apply), draws)


@contextmanager
def eager_training() -> Iterator[None]:
    """A context in which a training step calls the fastest forms in plain PyTorch, not the fused ops."""
    with (
        eager_layers(),
        mock.patch("imgops.nn.synthesis.modulated_conv2d", _modulated_conv2d),
        mock.patch("imgops.models.stylegan2.generator.upsample2d", _upsample2d),
        mock.patch.object(AugmentPipe, "forward", _augmented),
    ):
        yield


SIDES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "imgops": nullcontext,
    "eager strided": eager_training,
    "eager": lambda: imgops.use_impl("reference"),
}


def sides_of(networks: str) -> dict[str, Callable[[], AbstractContextManager[Any]]]:
    """The contexts that a step of some networks is compared in; of large ones the fastest form is the obvious one."""
    return {"imgops": nullcontext, "eager": eager_training} if networks in LARGE else SIDES


@cache
def trainer(networks: str) -> Trainer:
    """All sides train the same networks, by next to nothing, so that they stay comparable from step to step."""
    settings = {"augment": "fixed", "augment_p": PROBABILITY, "g_lr": 1e-12, "d_lr": 1e-12, **NETWORKS[networks]}
    config = TrainingConfig(data="", out="", resolution=64, device="cpu", **settings)
    return biased(Trainer(config.resolve()))


@torch.no_grad()
def biased(made: Trainer) -> Trainer:
    """The trainer, of which no bias, and no weight as a whole, is 0."""
    for trained in made.recipe.optimizers:
        for name, p in made.recipe.networks[trained].named_parameters():
            if name.endswith("bias") or not p.any():
                # where all is 0 a sum lies at the kink of leaky ReLU, and its rounding chooses the slope; and gradients
                # that cancel are nothing but rounding
                p.add_(torch.randn_like(p), alpha=0.01)
    return made


def step(networks: str, kind: str, side: str) -> dict[str, Tensor]:
    """One step on the same images; what the recipe measured."""
    made = trainer(networks)
    batch = made.config.batch
    real = torch.randint(0, 256, (batch, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    made.steps = KINDS[kind][0]
    # the mean of the steps before is part of the penalty
    made.recipe.pl_mean = torch.zeros([])
    with sides_of(networks)[side]():
        return made.step(real, torch.zeros(batch, dtype=torch.int64))


def gradients(networks: str, kind: str, side: str) -> list[Tensor]:
    """One step; what the recipe measured, and the gradients that the optimizers got."""
    return gradients_of(trainer(networks), lambda: step(networks, kind, side))


def gradients_of(made: Trainer, step: Callable[[], dict[str, Tensor]]) -> list[Tensor]:
    """A step of a trainer; what the recipe measured, and the gradients that the optimizers got."""
    found: list[Tensor] = []

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        own = (p.grad for group in optimizer.param_groups for p in group["params"])
        found.extend(gradient for gradient in own if gradient is not None)

    hooks = [optimizer.register_step_pre_hook(note) for optimizer in made.recipe.optimizers.values()]
    measured = step()
    for hook in hooks:
        hook.remove()
    return [*(value for name, value in measured.items() if name != "bad_gradients"), *found]


def peak(networks: str, side: str) -> int:
    """Bytes that a step with both regularizers takes beside the networks and Adam's moments."""
    setup = f"from benchmarks import bench_iteration as b; b.trainer({networks!r})"
    grown = memory_growth(setup, f"b.step({networks!r}, {list(KINDS)[-1]!r}, {side!r})")
    return grown - trainer(networks).recipe.state_bytes()


def comparison(networks: str, kind: str) -> Comparison:
    """One kind of step of some networks."""
    sides = {side: lambda side=side: gradients(networks, kind, side) for side in sides_of(networks)}
    takes = {"peak": lambda side: peak(networks, side)} if kind == list(KINDS)[-1] else {}
    return Comparison("training step", f"{networks}, {kind}", sides, tolerance=5e-2, **takes)


def comparisons() -> list[Comparison]:
    """One comparison for each kind of step of each of the networks."""
    return [comparison(networks, kind) for networks in NETWORKS for kind in KINDS]


def means(rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of what training costs, made of those of its steps, by their problems: the mean time, and the memory."""
    found: list[dict[str, Any]] = []
    for networks in NETWORKS:
        steps = [(rows.get(f"training step: {networks}, {kind}"), count) for kind, (_, count) in KINDS.items()]
        made = [(row, count) for row, count in steps if row is not None]
        if len(made) < len(steps):
            continue
        total = sum(count for _, count in made)
        seconds = {
            side: sum(row["seconds"][side] * count for row, count in made) / total for side in sides_of(networks)
        }
        problem, bytes_taken = f"training iteration: {networks}", made[-1][0]["bytes"]
        obvious = None if networks in LARGE else 5.0
        found.append({"problem": problem, "seconds": seconds, "goal": 2.0, "obvious_goal": obvious})
        found.append({"problem": f"{problem}, peak memory in MB", "bytes": bytes_taken, "goal": 1 / 0.7})
    return found


@pytest.mark.parametrize(("problem", "side"), names(comparisons))
def test_training_step(benchmark, problem, side):
    time_side(benchmark, comparisons, problem, side)
