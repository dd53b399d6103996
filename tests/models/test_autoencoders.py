"""Autoencoders and variational ones: shapes, labels, samples as the codes are spread, and losses by their formulas."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F

from imgops.models.autoencoder import Autoencoder, ResidualBlock
from imgops.models.vae import VAE
from tests.training.test_families import settings, trainer_of

SMALL = {"channels": 4, "channel_max": 8}


@pytest.mark.parametrize("family", [Autoencoder, VAE])
@pytest.mark.parametrize("c_dim", [0, 3])
@pytest.mark.parametrize(("resolution", "channels"), [(28, 1), (32, 3), ((48, 32), 4)])
def test_any_shape_and_number_of_channels(family, c_dim, resolution, channels):
    network = family(6, c_dim, resolution, channels, **SMALL)
    height, width = resolution if isinstance(resolution, tuple) else (resolution, resolution)
    img, c = torch.randn(3, channels, height, width), torch.eye(3) if c_dim else None
    code = network.encode(img, c)
    assert code.shape == (3, 6)
    assert network.decode(code, c).shape == network.reconstruct(img, c).shape == img.shape
    torch.testing.assert_close(network.reconstruct(img, c), network.decode(code, c))
    if c is not None:
        assert not torch.allclose(network(code, c), network(code, c.roll(1, 1)))
        assert not torch.allclose(network.encode(img, c), network.encode(img, c.roll(1, 1)))


def test_logits_become_pictures():
    network = Autoencoder(6, 0, 16, 1, output="logits", **SMALL)
    code = 100 * torch.randn(2, 6)
    torch.testing.assert_close(network.decode(code), 2 * network.decode_raw(code).sigmoid() - 1)
    assert float(network.decode(code).detach().abs().max()) <= 1


def test_samples_are_spread_as_the_codes_are():
    torch.manual_seed(0)
    codes = torch.randn(5000, 6) @ torch.randn(6, 6) + torch.randn(6)
    network = Autoencoder(6, 0, 16, 1, **SMALL)
    network.set_codes(codes.mean(0), torch.cov(codes.t()))
    drawn: list[torch.Tensor] = []
    network.decode = lambda code, c: drawn.append(code)  # type: ignore[assignment, method-assign]
    network(torch.randn(20_000, 6))
    torch.testing.assert_close(drawn[0].mean(0), codes.mean(0), atol=0.1, rtol=0.1)
    torch.testing.assert_close(torch.cov(drawn[0].t()), torch.cov(codes.t()), atol=0.3, rtol=0.05)


def test_a_block_begins_as_the_identity():
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(ResidualBlock(8)(x), x)


def test_wrong_arguments_are_told():
    with pytest.raises(ValueError, match="output must be one of linear, logits; got 'tanh'"):
        Autoencoder(output="tanh")
    with pytest.raises(ValueError, match="img_resolution must be sides that halve"):
        VAE(img_resolution=30)
    with pytest.raises(ValueError, match=r"code must have shape \[N, 128\]"):
        VAE(img_resolution=16, **SMALL).decode(torch.randn(2, 3))


class Seen(NamedTuple):
    """A part of a batch, half of a warm-up of 1,000 images after the beginning, with noise that is known."""

    real: torch.Tensor
    c: torch.Tensor
    noise: torch.Tensor
    moment: Any = SimpleNamespace(seen=500)

    def draws(self, phase: str) -> Any:
        return SimpleNamespace(normal=lambda count: self.noise[:, :count])


@pytest.mark.parametrize(
    ("reconstruction", "cost"),
    [
        ("mse", lambda raw, x: (raw - x).square().mean() / (2 * 0.2**2)),
        ("l1", lambda raw, x: (raw - x).abs().mean() / 0.2),
        ("cross-entropy", lambda raw, x: F.binary_cross_entropy(raw.sigmoid(), (x + 1) / 2)),
    ],
)
def test_the_bound_of_a_variational_autoencoder(tmp_path, reconstruction, cost):
    given = {"beta": 3.0, "kl_warmup_kimg": 1.0, "free_bits": 0.5, "pixel_deviation": 0.2}
    trainer = trainer_of(settings("vae", tmp_path, reconstruction=reconstruction, **given))
    seen = Seen(torch.rand(4, 3, 16, 16) * 2 - 1, torch.eye(4), torch.randn(4, trainer.net.z_dim))
    losses = trainer.recipe.losses(seen)
    mean, log_variance = trainer.net.distribution(seen.real, seen.c)
    raw = trainer.net.decode_raw(mean + seen.noise * torch.exp(log_variance / 2), seen.c)
    torch.testing.assert_close(losses.parts["reconstruction"], cost(raw, seen.real))
    posterior = torch.distributions.Normal(mean, torch.exp(log_variance / 2))
    each = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).mean(0)
    torch.testing.assert_close(losses.measured["kl"], each.sum())
    charged = each.clamp(min=0.5 * math.log(2)).sum() * 3 / 2
    torch.testing.assert_close(losses.parts["kl"], charged / seen.real[0].numel())


@pytest.mark.parametrize("reconstruction", ["mse", "l1", "cross-entropy", "perceptual"])
@pytest.mark.parametrize("channels", [1, 4])
def test_reconstructions_of_any_channels(tmp_path, reconstruction, channels):
    config = settings("autoencoder", tmp_path, reconstruction=reconstruction, channels=channels)
    trainer = trainer_of(config)
    real = torch.randint(0, 256, (4, channels, 16, 16), dtype=torch.uint8)
    measured = trainer.step(real, torch.zeros(4, dtype=torch.int64))
    assert all(value.isfinite() for value in measured.values())
    assert {"loss_total", "loss_reconstruction", "psnr"} <= measured.keys()


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_both_optimizers_learn(tmp_path, optimizer):
    trainer = trainer_of(settings("autoencoder", tmp_path, optimizer=optimizer))
    real = torch.randint(0, 256, (4, 3, 1, 1), dtype=torch.uint8).expand(4, 3, 16, 16)
    first, *_, last = [float(trainer.step(real, torch.arange(4))["loss_total"]) for _ in range(60)]
    assert last < 0.8 * first


def test_the_network_knows_how_codes_are_spread(tmp_path):
    trainer = trainer_of(settings("autoencoder", tmp_path, lr=1e-12, code_share=0.5))
    real = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    for _ in range(3):
        trainer.step(real, torch.arange(4))
    trainer.recipe.before_saving()
    with torch.no_grad():
        codes = trainer.net.encode(real.float() / 127.5 - 1, torch.eye(4))
    torch.testing.assert_close(trainer.net_ema.code_mean, codes.mean(0), rtol=1e-3, atol=1e-4)
    factor = trainer.net_ema.code_factor
    torch.testing.assert_close(factor @ factor.t(), torch.cov(codes.t(), correction=0), rtol=1e-3, atol=1e-4)
