"""The losses and penalties are their formulas, and each of them trains."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from imgops.training import TrainingConfig
from imgops.training.losses import LOSSES, gradient_penalty
from tests.test_training import batch_of, tiny, trainer_of

SIGMOID = torch.sigmoid
#: by loss, of logits of real images r and of generated ones f: what the generator and the discriminator minimize
FORMULAS = {
    "nonsaturating": (lambda r, f: -SIGMOID(f).log(), lambda r, f: -SIGMOID(r).log() - (1 - SIGMOID(f)).log()),
    "minimax": (lambda r, f: (1 - SIGMOID(f)).log(), lambda r, f: -SIGMOID(r).log() - (1 - SIGMOID(f)).log()),
    "hinge": (lambda r, f: -f, lambda r, f: torch.clamp(1 - r, min=0) + torch.clamp(1 + f, min=0)),
    "wgan-gp": (lambda r, f: -f, lambda r, f: f - r),
    "lsgan": (lambda r, f: (f - 1) ** 2 / 2, lambda r, f: (r - 1) ** 2 / 2 + f**2 / 2),
    "relativistic": (lambda r, f: -SIGMOID(f - r).log(), lambda r, f: -SIGMOID(r - f).log()),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_their_formulas(name):
    torch.manual_seed(0)
    real, fake = (3 * torch.randn(7, 1, dtype=torch.float64) for _ in range(2))
    of_generator, of_discriminator = FORMULAS[name]
    loss = LOSSES[name]
    assert torch.allclose(loss.generator(fake, real if loss.paired else None), of_generator(real, fake).mean())
    assert torch.allclose(loss.discriminator(real, fake), of_discriminator(real, fake).mean())
    # logits that a network may well give overflow in none of them
    far = torch.tensor([[200.0], [-200.0]])
    assert math.isfinite(float(loss.generator(far, far.flip(0)) + loss.discriminator(far, far.flip(0))))


def test_the_gradient_penalty_of_a_known_function():
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    a = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)
    penalty = gradient_penalty(x, (x * a).sum((1, 2, 3))[:, None])
    assert torch.allclose(penalty, (a.norm() - 1) ** 2)
    (gradient,) = torch.autograd.grad(penalty, a)
    assert torch.allclose(gradient, 2 * (a.norm() - 1) * a / a.norm())
    flat = torch.zeros(2, 1, 2, 2, requires_grad=True)
    assert math.isfinite(float(gradient_penalty(flat, (flat * 0).sum((1, 2, 3))[:, None])))


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_trains_the_discriminator(tmp_path, name):
    trainer = trainer_of(tiny(tmp_path, loss=name, g_lr=1e-9, d_lr=0.01, pl_weight=0.0))
    assert trainer.config.r1_interval == 2
    batch = batch_of(trainer)
    steps = [trainer.step(*batch) for _ in range(30)]
    assert float(steps[-1]["loss_d"]) < float(steps[0]["loss_d"])
    penalty = {"wgan-gp": {"penalty"}}.get(name, {"r1"})
    assert [set(step) & {"r1", "penalty"} for step in steps[:3]] == [penalty, set(), penalty]


def test_penalties_that_are_published_with_every_step_run_in_every_step(tmp_path):
    for loss, interval, gamma in ("wgan-gp", 1, 0.0), ("relativistic", 1, 0.05 / 16), ("hinge", 16, 0.0002 * 16):
        config = tiny(tmp_path, loss=loss, r1_interval=None)
        assert config.r1_interval == interval
        assert math.isclose(config.r1_gamma, gamma)


@pytest.mark.parametrize(
    ("resolution", "gamma"),
    # those of ../shared/REFERENCE.md, "Training recipes"; between them, and beyond them
    [(32, 0.05), (64, 2.0), (256, 150.0), (128, 300**0.5), (16, 0.0125), ((512, 256), 300.0)],
)
def test_the_relativistic_loss_has_a_weight_of_its_own_in_every_preset(resolution, gamma):
    for preset, batch in ("auto", None), ("tiny", 4), ("stylegan2", None), ("paper256", None):
        config = TrainingConfig("d", "o", loss="relativistic", resolution=resolution, preset=preset, batch=batch)
        assert math.isclose(config.resolve().gamma, gamma)
    assert math.isclose(dataclasses.replace(config, r1_gamma="auto").resolve().gamma, gamma)
    assert dataclasses.replace(config, r1_gamma=3.0).resolve().gamma == 3.0


def test_a_penalty_of_every_step_is_a_part_of_the_loss(tmp_path):
    trainer = trainer_of(tiny(tmp_path, loss="wgan-gp", r1_interval=1, pl_weight=0.0, d_lr=0.01))
    group = trainer.recipe.optimizers["D"].param_groups[0]
    assert (group["lr"], group["betas"]) == (0.01, (0.0, 0.99))
    trainer.step(*batch_of(trainer))
    steps = {float(state["step"]) for state in trainer.recipe.optimizers["D"].state_dict()["state"].values()}
    assert steps == {1.0}
