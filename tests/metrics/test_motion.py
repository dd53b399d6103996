"""EQ-T and EQ-R of waves that move and turn exactly, and of networks that do not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from imgops.metrics import equivariance
from imgops.models.stylegan2 import Generator as StyleGAN2
from imgops.models.stylegan3 import Generator, SynthesisInput


class Waves(nn.Module):
    """StyleGAN3's Fourier features alone, which a transform moves and turns exactly; ``fixed`` adds a picture that
    stays."""

    def __init__(self, fixed: float = 0.0, finest: float = 6.0, c_dim: int = 0) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.img_width, self.img_height = 4, c_dim, 64, 64
        self.synthesis = nn.Module()
        self.synthesis.input = SynthesisInput(4, 8, (64, 64), 64, finest)
        self.synthesis.forward = lambda w: self.synthesis.input(w) / 4 + fixed * self.still
        self.still = torch.randn(8, 64, 64).sign()

    def mapping(self, z: Tensor, c: Tensor) -> Tensor:
        return z


@pytest.mark.parametrize(("kind", "ceiling"), [("eqt_int", 100), ("eqt_frac", 60), ("eqr", 55)])
def test_what_moves_exactly_has_a_high_ratio(kind, ceiling):
    torch.manual_seed(0)
    assert equivariance(Waves().double(), kind, samples=16) > ceiling


@pytest.mark.parametrize("kind", ["eqt_int", "eqt_frac", "eqr"])
def test_a_network_that_is_turned_already(kind):
    waves = Waves().double()
    turned = torch.tensor([[0.8, 0.6, 0.25], [-0.6, 0.8, -0.1], [0.0, 0.0, 1.0]], dtype=torch.float64)
    waves.synthesis.input.transform.copy_(turned)
    assert equivariance(waves, kind, samples=8) > 55


def test_fine_waves_are_compared_as_far_as_they_are_shown_in_all_directions():
    """Up to nearly the finest that the pixels show."""
    torch.manual_seed(0)
    assert equivariance(Waves(finest=26.0).double(), "eqr", samples=8) > 45


def test_what_stays_is_measured():
    """Half of random signs differ from those that move to their place, by twice their size."""
    torch.manual_seed(0)
    measured = equivariance(Waves(fixed=0.1).double(), "eqt_int", samples=64)
    assert measured == pytest.approx(10 * math.log10(4 / (0.1**2 * 2)), abs=0.5)


def test_a_network_is_left_as_it_was():
    waves = Waves().double()
    waves.synthesis.input.transform[0, 2] = 0.25
    before = waves.synthesis.input.transform.clone()
    first, again = (equivariance(waves, "eqr", samples=3, batch=2) for _ in range(2))
    assert first == again != equivariance(waves, "eqr", samples=3, batch=2, seed=1)
    assert torch.equal(waves.synthesis.input.transform, before)


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="kind must be one of eqt_int, eqt_frac, eqr; got 'eqs'"):
        equivariance(Waves(), "eqs")
    with pytest.raises(ValueError, match="samples must be >= 1; got 0"):
        equivariance(Waves(), samples=0)
    with pytest.raises(TypeError, match=r"must have synthesis\.input\.transform"):
        equivariance(StyleGAN2(8, 0, 8, 16, 3, channel_base=64))
    small = Generator(8, 0, 8, 32, 3, channel_base=64, num_layers=6, margin_size=4)
    with pytest.raises(ValueError, match="more than 32 pixels for eqr; got 32"):
        equivariance(small, "eqr")
    wide = Generator(8, 0, 8, (16, 32), 3, channel_base=64, num_layers=6, margin_size=4)
    with pytest.raises(ValueError, match="square pictures; got 32 x 16"):
        equivariance(wide)
