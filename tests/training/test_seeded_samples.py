"""Samples by their seeds: latent, noise and class are each seed's own, whatever is sampled beside it."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from torch import Tensor

from imgops.models.stylegan2 import Generator
from imgops.training.grid import Between, seeded_classes, seeded_latents, seeded_samples, spherical, to_uint8

SEEDS = [3, 1, 4, 159, 26, 5, 35]


def generator(c_dim: int = 0, **more: object) -> Generator:
    network = Generator(8, c_dim, 8, 16, 3, channel_base=128, mapping_layers=1, **more)
    for name, p in network.named_parameters():
        if name.endswith("noise_strength"):
            p.data.fill_(1.0)
    return network.eval().requires_grad_(False)


def distance(x: Tensor, y: Tensor) -> int:
    """The largest difference of two pictures, in levels."""
    return int((x.int() - y.int()).abs().max())


def test_each_seed_draws_its_noise_as_torch_with_that_seed_does():
    network = generator()
    made = seeded_samples(network, SEEDS, batch=3)
    for seed, picture in zip(SEEDS, made, strict=True):
        torch.manual_seed(seed)
        assert torch.equal(seeded_samples(network, [seed])[0], to_uint8(network(seeded_latents([seed], 8)))[0])
        assert distance(seeded_samples(network, [seed])[0], picture) <= 1
    assert distance(made[0], made[1]) > 20


@pytest.mark.parametrize("noise_mode", ["random", "const", "none"])
def test_the_batch_changes_rounding_at_most(noise_mode):
    network = generator()
    before = torch.get_rng_state()
    one, three, all_at_once = (seeded_samples(network, SEEDS, noise_mode=noise_mode, batch=n) for n in (1, 3, 7))
    assert distance(one, three) <= 1
    assert distance(one, all_at_once) <= 1
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("use_noise", [True, False])
def test_what_lies_between_two_seeds(use_noise):
    network = generator(use_noise=use_noise)
    shares = [0.0, 0.25, 0.5, 0.75, 1.0]
    made = seeded_samples(network, [Between(3, 4, share) for share in shares], batch=2)
    assert distance(made[[0, 4]], seeded_samples(network, [3, 4])) <= 1
    turned = seeded_samples(network, [Between(4, 3, share) for share in shares])
    assert distance(made, turned.flip(0)) <= 1
    steps = [float((a.float() - b.float()).norm()) for a, b in itertools.pairwise(made)]
    whole = float((made[0].float() - made[4].float()).norm())
    assert all(0 < step < whole for step in steps)


def test_great_circles():
    a, b = torch.randn(2, 5, 3, 400)
    half = spherical(a, b, torch.full([5], 0.5, dtype=torch.float64))
    assert half.std() == pytest.approx(1, abs=0.05)
    for share in 0.0, 1.0:
        assert torch.equal(spherical(a, b, torch.full([5], share, dtype=torch.float64)), b if share else a)
    share = torch.tensor([0.25, 0.5], dtype=torch.float64)
    assert torch.equal(spherical(torch.eye(2), torch.eye(2), share), torch.eye(2))
    line = spherical(torch.ones(2, 1), -torch.ones(2, 1), share)
    torch.testing.assert_close(line, torch.tensor([[0.5], [0.0]]))


def test_a_generator_without_noise():
    network = generator(use_noise=False)
    assert distance(seeded_samples(network, [1, 2], batch=2), seeded_samples(network, [1, 2])) <= 1


def test_each_sample_has_its_class():
    network = generator(c_dim=3)
    mixed = seeded_samples(network, SEEDS, [0, 1, 2, 0, 1, 2, 0], batch=7)
    for k in range(3):
        alone = seeded_samples(network, SEEDS, k)
        assert distance(mixed[k::3], alone[k::3]) <= 1
        assert distance(mixed[(k + 1) % 3 :: 3], alone[(k + 1) % 3 :: 3]) > 1


def test_classes_are_as_frequent_as_in_the_data():
    labels = torch.tensor([0] * 70 + [2] * 30)
    drawn = seeded_classes(range(2000), 3, labels)
    counts = Counter(drawn)
    assert set(counts) == {0, 2}
    assert counts[0] == pytest.approx(1400, abs=70)
    assert seeded_classes([7, 1999, 3], 3, labels) == [drawn[7], drawn[1999], drawn[3]]
    even = Counter(seeded_classes(range(3000), 3))
    assert all(even[k] == pytest.approx(1000, abs=90) for k in range(3))
