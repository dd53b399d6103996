"""Random numbers of images: each image's own, whoever computes it and with which others."""

from __future__ import annotations

import torch

from imgops.training._draws import Draws, seed_of


def test_an_image_has_the_same_numbers_in_any_company():
    cpu = torch.device("cpu")
    seeds = [seed_of(3, 7, "generator", image) for image in range(6)]
    whole, part = Draws(seeds, cpu), Draws(seeds[4:1:-2], cpu)
    for kind in "normal", "uniform", "normal":
        assert torch.equal(getattr(whole, kind)(100)[[4, 2]], getattr(part, kind)(100))


def test_no_two_images_phases_or_steps_share_their_numbers():
    seeds = {seed_of(s, step, phase, i) for s in (0, 1) for step in range(20) for phase in "gd" for i in range(20)}
    assert len(seeds) == 2 * 20 * 2 * 20
    assert all(0 <= seed < 2**63 for seed in seeds)
    numbers = Draws(sorted(seeds), torch.device("cpu")).uniform(4)
    assert len(numbers.unique(dim=0)) == len(seeds)
    # the parts are kept apart
    assert seed_of(1, 23) != seed_of(12, 3)


def test_the_numbers_have_the_distributions_they_should():
    draws = Draws([seed_of(0, i) for i in range(50)], torch.device("cpu"))
    normal, uniform = draws.normal(4000), draws.uniform(4000)
    assert abs(float(normal.mean())) < 0.01
    assert abs(float(normal.var()) - 1) < 0.02
    assert 0 <= float(uniform.min()) < float(uniform.max()) < 1
    assert abs(float(uniform.mean()) - 0.5) < 0.005
    # of one column, across the images
    assert abs(float(Draws(range(5000), torch.device("cpu")).normal(1).var()) - 1) < 0.1
