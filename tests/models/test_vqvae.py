"""VQ-VAE: codes and pictures, a prior that sees only what stands before, and samples that follow it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from imgops.models.vqvae import VQVAE, CodePrior
from tests.training.test_families import settings, trainer_of

SMALL = {"channels": 4, "channel_max": 8, "num_codes": 8, "code_dim": 4, "prior_channels": 8, "prior_layers": 2}


@pytest.mark.parametrize("two_levels", [False, True])
@pytest.mark.parametrize(("resolution", "channels"), [(16, 1), ((24, 16), 3), (32, 4)])
@pytest.mark.parametrize("c_dim", [0, 3])
def test_any_shape_and_number_of_channels(two_levels, resolution, channels, c_dim):
    network = VQVAE(c_dim, resolution, channels, two_levels=two_levels, **SMALL)
    height, width = resolution if isinstance(resolution, tuple) else (resolution, resolution)
    img, c = torch.randn(3, channels, height, width), torch.eye(3) if c_dim else None
    indices = network.encode(img)
    assert [index.shape[1:] for index in indices] == [(height // 8, width // 8)] * two_levels + [
        (height // 4, width // 4)
    ]
    torch.testing.assert_close(network.decode(indices), network.reconstruct(img))
    assert network.z_dim == sum(index[0].numel() for index in indices)
    assert network(torch.randn(3, network.z_dim), c).shape == img.shape
    made, vectors, indices = network.quantize(img)
    loss = made.square().mean() + sum(x.square().mean() for x in vectors)
    loss = loss + sum(map(F.cross_entropy, network.likelihoods(indices, c), indices))
    loss.backward()
    assert not {name for name, p in network.named_parameters() if p.grad is None}


@pytest.mark.parametrize("coarser", [False, True])
def test_the_prior_sees_what_stands_before_and_nothing_else(coarser):
    prior = CodePrior(8, 8, 2, 3, coarser=coarser)
    index, c = torch.randint(0, 8, (1, 4, 6)), torch.eye(1, 3)
    top = torch.randint(0, 8, (1, 2, 3)) if coarser else None
    logits = prior(index, c, top)
    for place in range(24):
        other = index.clone().flatten()
        other[place] = (other[place] + 1) % 8
        changed = (prior(other.reshape(1, 4, 6), c, top) - logits).abs().amax(1).flatten() > 0
        assert not changed[: place + 1].any()
        assert place == 23 or changed[place + 1 :].any()
    assert not torch.allclose(prior(index, c.roll(1, 1), top), logits)
    if top is not None:
        assert not torch.allclose(prior(index, c, (top + 1) % 8), logits)


def test_codes_are_drawn_as_the_prior_says():
    torch.manual_seed(0)
    prior = CodePrior(3, 8, 2)
    with torch.no_grad():
        prior.out.weight.mul_(5)
    drawn = prior.draw(torch.rand(4000, 1, 2))
    first = prior(torch.zeros(1, 1, 2, dtype=torch.int64))[0, :, 0, 0].softmax(0)
    share = torch.bincount(drawn[:, 0, 0], minlength=3) / 4000
    torch.testing.assert_close(share, first.detach(), atol=0.03, rtol=0)
    for code in range(3):
        after = prior(torch.tensor([[[code, 0]]]))[0, :, 0, 1].softmax(0)
        mine = drawn[drawn[:, 0, 0] == code][:, 0, 1]
        share = torch.bincount(mine, minlength=3) / len(mine)
        torch.testing.assert_close(share, after.detach(), atol=0.06, rtol=0)


def test_a_step_moves_the_codes_and_restarts_dead_ones(tmp_path):
    trainer = trainer_of(settings("vqvae", tmp_path, num_codes=64, codebook_decay=0.5, two_levels=False))
    real = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    before = trainer.net.quantizer.codebook.clone()
    found = [trainer.step(real, torch.arange(4)) for _ in range(30)]
    assert not torch.equal(trainer.net.quantizer.codebook, before)
    assert float(found[-1]["perplexity"]) > float(found[0]["perplexity"])
    assert {"loss_reconstruction", "loss_commitment", "loss_prior", "psnr"} <= found[0].keys()


def test_wrong_arguments_are_told(tmp_path):
    with pytest.raises(ValueError, match="img_resolution must be divisible by 8; got 20 x 20"):
        VQVAE(0, 20, two_levels=True)
    with pytest.raises(ValueError, match="reconstruction must be mse, l1 or perceptual"):
        settings("vqvae", tmp_path, reconstruction="cross-entropy")
