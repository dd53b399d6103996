"""A picture in the colors of another: plain formulas, gray, constant and one-pixel pictures."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch

import imgops.data.pictures.colors
from imgops.data import (
    KEEP_COLORS,
    keep_colors,
    keep_luma,
    match_covariance,
    match_histogram,
    read_picture,
    resize_picture,
)

LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
#: the rows of BT.601's luma and color differences B - Y, R - Y
YCC = torch.stack([LUMA, torch.eye(3, dtype=torch.float64)[2] - LUMA, torch.eye(3, dtype=torch.float64)[0] - LUMA])


def moments(picture):
    """Mean [3] and covariance [3, 3] of the colors of a picture, by numpy."""
    colors = picture.double().flatten(1).numpy()
    return colors.mean(1), np.cov(colors, bias=True)


def soft(seed, size=(24, 17)):
    """A picture of correlated colors well inside [0, 1], float64."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.rand(3, 3, dtype=torch.float64, generator=generator) - 0.3
    noise = torch.randn(3, *size, dtype=torch.float64, generator=generator)
    return 0.5 + 0.04 * torch.einsum("ij,jhw->ihw", mix, noise)


def test_luma_of_one_and_chroma_of_the_other():
    """Where no color leaves the gamut: Y of the result, B - Y and R - Y of the content."""
    result, content = soft(0), soft(1)
    y = torch.einsum("ij,jhw->ihw", YCC, keep_luma(result, content))
    torch.testing.assert_close(y[0], torch.einsum("j,jhw->hw", LUMA, result))
    torch.testing.assert_close(y[1:], torch.einsum("ij,jhw->ihw", YCC[1:], content))
    torch.testing.assert_close(keep_luma(content, content), content)


def test_what_would_leave_the_gamut_keeps_luma_and_hue():
    result, content = torch.rand(2, 3, 40, 40, dtype=torch.float64)
    kept = keep_luma(result, content)
    assert (kept.min().item(), kept.max().item()) == (0, 1)
    y, wanted = (torch.einsum("ij,jhw->ihw", YCC, x) for x in (kept, content))
    torch.testing.assert_close(y[0], torch.einsum("j,jhw->hw", LUMA, result))
    # chroma is the content's times a factor in [0, 1]: the same direction
    factor = (y[1:] * wanted[1:]).sum(0) / (wanted[1:] ** 2).sum(0)
    torch.testing.assert_close(y[1:], factor * wanted[1:])
    assert factor.min() >= 0
    assert factor.max() <= 1 + 1e-12
    # and 1 wherever the sum is a color as it is
    plain = content + torch.einsum("j,jhw->hw", LUMA, result - content)
    inside = ((plain >= 0) & (plain <= 1)).all(0)
    assert inside.any()
    torch.testing.assert_close(kept[:, inside], plain[:, inside])
    assert (factor[~inside] < 1).all()


def test_covariance_and_mean_are_those_of_the_target():
    target = soft(1, (9, 30))
    matched = match_covariance(soft(0), target)
    for ours, theirs in zip(moments(matched), moments(target), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_the_map_is_made_of_symmetric_roots():
    """By scipy's matrix square root, on colors that whitening does not leave alone."""
    scipy = pytest.importorskip("scipy.linalg")
    picture, target = soft(2), soft(3)
    (mean, covariance), (to_mean, to_covariance) = moments(picture), moments(target)
    matrix = scipy.sqrtm(to_covariance) @ np.linalg.inv(scipy.sqrtm(covariance))
    wanted = matrix @ (picture.flatten(1).numpy() - mean[:, None]) + to_mean[:, None]
    np.testing.assert_allclose(match_covariance(picture, target).flatten(1).numpy(), wanted, atol=1e-10)


def test_real_pictures_match():
    """8-bit photographs, where some colors are clipped: mean and deviations are the target's within 0.03."""
    picture, target = (resize_picture(read_picture(f"samples:{n}").pixels, 96) for n in ("chelsea", "coffee"))
    for match in (match_covariance, match_histogram):
        ours, theirs = match(picture, target), target
        assert (ours.mean((1, 2)) - theirs.mean((1, 2))).abs().max() < 0.03
        assert (ours.std((1, 2)) - theirs.std((1, 2))).abs().max() < 0.03
        # they were not so before
        assert (picture.mean((1, 2)) - theirs.mean((1, 2))).abs().max() > 0.1


def test_histograms():
    picture, target = torch.rand(3, 30, 20, dtype=torch.float64), torch.rand(3, 25, 24, dtype=torch.float64) ** 2
    matched = match_histogram(picture, target)
    # as many pixels in both: the sorted values are those of the target, in the picture's order
    torch.testing.assert_close(matched.flatten(1).sort(1)[0], target.flatten(1).sort(1)[0])
    assert torch.equal(matched.flatten(1).argsort(1), picture.flatten(1).argsort(1))


GRAY = torch.rand(1, 6, 7).expand(3, -1, -1)
FLAT, PIXEL = torch.full((3, 6, 7), 0.3), torch.tensor([0.2, 0.9, 0.4])[:, None, None]
BLACK, WHITE = torch.zeros(3, 6, 7), torch.ones(3, 6, 7)
ODD = {"gray": GRAY, "flat": FLAT, "pixel": PIXEL, "black": BLACK, "white": WHITE}


@pytest.mark.parametrize("method", KEEP_COLORS)
@pytest.mark.parametrize("ours", [*ODD, "colors"])
@pytest.mark.parametrize("theirs", [*ODD, "colors"])
def test_pictures_without_colors_or_size(method, ours, theirs):
    pictures = {**ODD, "colors": torch.rand(3, 6, 7)}
    picture, target = pictures[ours], pictures[theirs]
    if method == "luma" and picture.shape != target.shape:
        with pytest.raises(ValueError, match=r"keep_luma: result is \(.*\), content \("):
            keep_colors(picture, target, method)
        return
    kept = keep_colors(picture, target, method)
    assert kept.shape == picture.shape
    assert kept.dtype == picture.dtype
    assert kept.min() >= 0
    assert kept.max() <= 1
    if theirs in ("flat", "pixel", "black", "white") and method != "luma":
        # a target of one color gives that color
        torch.testing.assert_close(kept, target[:, :1, :1].expand_as(kept))
    if theirs == "gray" and method != "histogram":
        torch.testing.assert_close(kept, kept[:1].expand_as(kept))


def test_a_gray_picture_takes_no_color_from_rounding():
    """Rounding to 8 bits per channel becomes no colored noise: 0.31 of the target, 0.85 without the floor."""
    gray = torch.rand(1, 32, 32, dtype=torch.float64).expand(3, -1, -1)
    noisy = gray + (torch.rand(3, 32, 32, dtype=torch.float64) - 0.5) / 255
    target = soft(1)
    difference = match_covariance(noisy, target) - match_covariance(gray, target)
    assert difference.std() < 0.4 * target.std()


def test_dtypes_and_bad_input():
    x = torch.rand(3, 4, 5)
    for method in KEEP_COLORS:
        assert keep_colors(x.half(), x.double(), method).dtype == torch.float16
        for bad in (torch.rand(1, 3, 4, 5), torch.rand(4, 4, 5), torch.zeros(3, 0, 5), torch.zeros(3, 4, 5).byte()):
            with pytest.raises(ValueError, match=r"must be a floating-point \[3, H, W\]; got \("):
                keep_colors(bad, x, method)
            with pytest.raises(ValueError, match=r"must be a floating-point \[3, H, W\]; got \("):
                keep_colors(x, bad, method)
    with pytest.raises(ValueError, match="method must be one of luma, coral, histogram; got 'lumma'"):
        keep_colors(x, x, "lumma")


def test_examples_run():
    failed, tried = doctest.testmod(imgops.data.pictures.colors, extraglobs={"torch": torch})
    assert tried
    assert failed == 0
