"""What a step of StyleGAN2 computes, against formulas written out here: penalties and their factors, mixed styles."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from imgops import use_impl
from imgops.training import Trainer
from imgops.training._draws import Draws
from imgops.training.recipes._base import Moment
from imgops.training.recipes._parts import Part, parts_of
from tests.test_training import batch_of, tiny, trainer_of

CPU = torch.device("cpu")


def updates(trainer: Trainer) -> tuple[list[tuple[str, list[Tensor]]], Part]:
    """The gradients of each update of a step that changes no weight, in order, and the part that the step is of."""
    found: list[tuple[str, list[Tensor]]] = []
    recipe = trainer.recipe

    def noted(name: str, network: nn.Module) -> Tensor:
        found.append((name, [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()]))
        network.zero_grad()
        return torch.zeros([])

    recipe._update = noted
    batch = batch_of(trainer)
    moment = Moment(0, 0, trainer.images, trainer.config.seed)
    (part,) = parts_of(recipe, *batch, moment)
    with use_impl("reference"):
        trainer.step(*batch)
    return found, part


def gradients(loss: Tensor, network: nn.Module) -> list[Tensor]:
    parameters = list(network.parameters())
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def assert_alike(found: list[Tensor], wanted: list[Tensor]) -> None:
    found, wanted = (torch.cat([g.flatten() for g in each]) for each in (found, wanted))
    assert float(wanted.abs().max()) > 0
    assert float((found - wanted).norm()) < 1e-3 * float(wanted.norm())


@pytest.mark.parametrize("loss", ["nonsaturating", "wgan-gp", "relativistic"])
def test_the_discriminators_penalty_has_its_weight_and_the_factor_of_its_interval(tmp_path, loss):
    weight = {"r1_gamma": None, "gp_weight": 3.0} if loss == "wgan-gp" else {"r1_gamma": 3.0}
    trainer = trainer_of(tiny(tmp_path, loss=loss, r1_interval=5, augment="none", noise_strength=1.0, **weight))
    found, part = updates(trainer)
    assert [name for name, _ in found] == ["G", "G", "D", "D"]
    D = trainer.D.requires_grad_(True)
    with use_impl("reference"):
        (fake, fake_c), total = trainer.recipe._fakes(part, "penalty"), torch.zeros([])
        places = [(part.real, part.c)]
        if loss == "wgan-gp":
            share = part.draws("mixture").uniform(1)[:, :, None, None]
            places = [((1 - share) * part.real + share * fake, part.c)]
        elif loss == "relativistic":
            places.append((fake, fake_c))
        for images, c in places:
            images = images.clone().requires_grad_(True)
            (slope,) = torch.autograd.grad(D(images, c).sum(), images, create_graph=True)
            squares = slope.square().sum((1, 2, 3))
            total = total + ((squares.sqrt() - 1).square() * 3 if loss == "wgan-gp" else squares * 3 / 2).mean()
        assert_alike(found[3][1], gradients(5 * total, D))


def test_the_path_length_penalty_has_its_weight_and_the_factor_of_its_interval(tmp_path):
    trainer = trainer_of(tiny(tmp_path, pl_weight=3.0, pl_interval=5, pl_decay=0.25, style_mixing=0.9))
    recipe, G = trainer.recipe, trainer.G
    recipe.pl_mean.fill_(0.5)
    found, part = updates(trainer)
    draws = part.draws("path length", 2)
    latents = recipe.latents(draws)
    assert len(latents.z) == len(part.real) // 2
    y = draws.normal(part.real[0].numel()).unflatten(1, part.real.shape[1:]) / 8
    G.requires_grad_(True)
    with use_impl("reference"):
        w = torch.where(latents.mixed, G.mapping(latents.other, latents.c), G.mapping(latents.z, latents.c))
        (slope,) = torch.autograd.grad((G.synthesis(w, noise=latents.noise) * y).sum(), w, create_graph=True)
        lengths = slope.square().sum(2).mean(1).sqrt()
        assert_alike(found[1][1], gradients(3 * 5 * (lengths - 0.5).square().mean(), G))
    assert float(recipe.pl_mean) == pytest.approx(0.75 * 0.5 + 0.25 * float(lengths.detach().mean()), rel=1e-5)


def test_styles_are_mixed_as_often_as_the_settings_say_and_from_any_layer_on_but_the_first(tmp_path):
    recipe = trainer_of(tiny(tmp_path, style_mixing=0.3)).recipe
    latents = recipe.latents(Draws(range(6000), CPU))
    mixed, num_ws = latents.mixed[:, :, 0], recipe.G.num_ws
    first = num_ws - mixed.sum(1)
    # all layers from one on, and none before it
    assert torch.equal(mixed, torch.arange(num_ws) >= first[:, None])
    often = torch.bincount(first, minlength=num_ws + 1) / len(first)
    assert often.tolist() == pytest.approx([0, *[0.3 / (num_ws - 1)] * (num_ws - 1), 0.7], abs=0.02)
    few = type(latents)(
        *(None if t is None else [n[:20] for n in t] if isinstance(t, list) else t[:20] for t in latents)
    )
    w = recipe.make(few).w
    one, other = recipe.G.mapping(few.z, few.c), recipe.G.mapping(few.other, few.c)
    assert torch.equal(w, torch.where(few.mixed, other, one))
    assert not torch.equal(w, one)
