"""The sliced Wasserstein loss: its formula, its gradients, its directions, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import imgops
from imgops.nn import SlicedWassersteinLoss

STYLE = torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_published_formula():
    """Pictures of one size: sort, subtract, square, mean (Heitz et al. 2021, eq. 5)."""
    x, loss = torch.randn(3, 4, 6, 5, dtype=torch.float64), SlicedWassersteinLoss(STYLE, 7, seed=1, reduction="none")
    assert loss.fixed.shape == (7, 4)
    ours, theirs = ((loss.fixed @ t.flatten(2)).sort(-1).values for t in (x, STYLE))
    torch.testing.assert_close(loss(x), (ours - theirs).square().mean((1, 2)))
    for reduction in ("sum", "mean"):
        reduced = SlicedWassersteinLoss(STYLE, 7, seed=1, reduction=reduction)(x)
        torch.testing.assert_close(reduced, getattr(loss(x), reduction)())


def test_a_distribution_has_no_distance_from_itself():
    """Wherever its pixels are, and however often they repeat."""
    loss = SlicedWassersteinLoss(STYLE)
    shuffled = STYLE.flatten(2)[..., torch.randperm(30)].view(1, 4, 6, 5)
    assert loss(shuffled) < 1e-20
    assert loss(shuffled.float()) < 1e-10
    # the same mean and covariance, another distribution
    moved = imgops.adain(torch.rand(1, 4, 5, 6, dtype=torch.float64) ** 8, STYLE)
    assert loss(moved) > 1e-2


def test_directions_are_new_unless_a_seed_fixes_them():
    x = torch.randn(1, 4, 6, 5)
    fixed, new = SlicedWassersteinLoss(STYLE, seed=0), SlicedWassersteinLoss(STYLE)
    assert torch.equal(fixed(x), fixed(x))
    assert not torch.equal(new(x), new(x))
    torch.manual_seed(0)
    first = new(x)
    torch.manual_seed(0)
    assert torch.equal(first, new(x))
    assert "fixed" not in fixed.state_dict()


@pytest.mark.parametrize("size", [(5, 6), (3, 7)])
def test_gradients_of_both_orders(size):
    x = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
    loss = SlicedWassersteinLoss(STYLE, 3, seed=0)
    assert gradcheck(loss, x)
    assert gradgradcheck(loss, x)


def test_half_precision_is_summed_in_float32():
    x, loss = torch.randn(1, 4, 8, 8) * 100, SlicedWassersteinLoss(STYLE, seed=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(x).dtype == torch.float32
        assert torch.equal(loss(x), SlicedWassersteinLoss(STYLE, seed=0)(x))
    torch.testing.assert_close(loss(x.half()), loss(x), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("kind", "message", "call"),
    [
        (TypeError, "style must be a torch.Tensor", lambda: SlicedWassersteinLoss([1.0])),
        (ValueError, "style must have at least one pixel", lambda: SlicedWassersteinLoss(STYLE[:, :, :0])),
        (ValueError, "directions must be", lambda: SlicedWassersteinLoss(STYLE, 0)),
        (ValueError, "reduction must be one of", lambda: SlicedWassersteinLoss(STYLE, reduction="max")),
        (ValueError, r"x must be \[N, 4, H, W\] with pixels; got", lambda: SlicedWassersteinLoss(STYLE)(STYLE[:, :3])),
    ],
)
def test_bad_input(kind, message, call):
    with pytest.raises(kind, match=message):
        call()
