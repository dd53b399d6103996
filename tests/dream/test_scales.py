"""Scales: what halving takes from a picture, mapped to the colors of another."""

from __future__ import annotations

import pytest
import torch

from imgops.data import match_covariance
from imgops.dream.scales import _matched, _scales, match_scales


def picture(seed=0, height=40, width=57):
    """Noise with some of its power at each scale, so that nothing is clipped."""
    generator = torch.Generator().manual_seed(seed)
    waves = [torch.rand(1, 3, max(1, height >> i), max(1, width >> i), generator=generator) for i in range(6)]
    sizes = [torch.nn.functional.interpolate(wave, (height, width), mode="bicubic")[0] for wave in waves]
    return (0.1 * torch.stack(sizes).sum(0) + 0.2).double().clamp(0, 1)


@pytest.mark.parametrize("size", [(40, 57), (1, 1), (3, 100)])
def test_scales_add_up_to_the_picture(size):
    x = picture(0, *size)
    assert all(scale.shape == x.shape for scale in _scales(x))
    torch.testing.assert_close(torch.stack(_scales(x)).sum(0), x)


def test_a_picture_keeps_its_own_colors():
    x = picture()
    torch.testing.assert_close(match_scales(x, x), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("factors", [(0.9, 0.85, 1, 1.5, 1), (0.85, 1, 1, 1, 1), (1, 1, 1.3, 1.3, 1)])
def test_scales_that_were_changed_come_back(factors):
    """As far as scales are apart from each other, and further than by the colors as a whole."""
    x = picture()
    changed = sum(factor * scale for factor, scale in zip(factors, _scales(x), strict=True))
    changed[0] = 0.85 * changed[0] + 0.1
    found = match_scales(changed, x)
    assert (found - x).norm() < 0.5 * (match_covariance(changed, x) - x).norm()
    torch.testing.assert_close(found.mean((1, 2)), x.mean((1, 2)))
    covariance, other = (torch.cov(one.flatten(1)) for one in (found, x))
    torch.testing.assert_close(covariance, other, rtol=1e-6, atol=1e-8)


def test_what_is_not_there_is_not_amplified():
    """Of a scale that has nearly left, little comes back; of a gray picture no rounding becomes colors."""
    x = picture()
    blurred = x - 0.9 * _scales(x)[0]
    whole, left, found = (_scales(one)[0].std() for one in (x, blurred, match_scales(blurred, x)))
    assert left < found < 0.4 * whole
    gray = x.mean(0, keepdim=True).expand(3, -1, -1)
    colored = gray + 1e-9 * torch.rand(x.shape, generator=torch.Generator().manual_seed(3))
    assert (match_scales(colored, x) - match_scales(gray, x)).abs().max() < 1e-3
    assert torch.isfinite(match_scales(torch.full_like(x, 0.5), x)).all()


def test_no_axis_of_colors_is_amplified_further():
    """Faint noise, another deviation along each of three axes that are not the target's, for a target far stronger."""
    generator = torch.Generator().manual_seed(1)
    noise, target = torch.randn(2, 3, 30, 40, dtype=torch.float64, generator=generator)
    axes = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator)).Q
    noise = torch.einsum("ij,jhw->ihw", axes * torch.tensor([0.01, 0.03, 0.05]), noise)
    after = _matched(noise, target * torch.tensor([1.0, 2.0, 3.0])[:, None, None])
    _, own = torch.linalg.eigh(torch.cov(noise.flatten(1)))
    before, after = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (noise, after))
    gain = after @ torch.linalg.pinv(before) @ own
    torch.testing.assert_close(gain.norm(dim=0), torch.full_like(gain[0], 1.25))


def test_single_precision_is_like_double():
    x, target = picture(0), picture(1)
    single = match_scales(x.float(), target.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), match_scales(x, target), rtol=0, atol=1e-4)
