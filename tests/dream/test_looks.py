"""The settings that were chosen by eye, intensity and colors, and the views of a picture at each step."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from torch import nn

from imgops.dream import ClassObjective, DreamSettings, Objective, default_objectives, dream, resolved_settings
from imgops.dream.gradient import Gradient
from imgops.dream.looks import Resolved
from imgops.dream.parametrize import natural_colors
from imgops.dream.views import random_view
from imgops.models.encoders import VGG, EfficientNetLite

LITE = EfficientNetLite(0).eval()


def small_vgg(**options):
    torch.manual_seed(0)
    return VGG((2, 1, 1), widths=(4, 6, 8), **options).eval()


def picture(height=40, width=56):
    torch.manual_seed(2)
    return torch.rand(3, height, width) * 0.5 + 0.25


def test_the_look_is_that_of_the_network_and_of_what_is_dreamt():
    general = resolved_settings(DreamSettings(), small_vgg(), [Objective("relu2_1")])
    assert dataclasses.asdict(general) == dataclasses.asdict(Resolved(step_size=0.004))
    lite = resolved_settings(DreamSettings(), LITE, default_objectives(LITE))
    assert (lite.steps, lite.step_size, lite.natural_colors) == (20, 0.01, 0.8)
    of_class = resolved_settings(DreamSettings(), LITE, [ClassObjective(281)])
    assert of_class.padding > 0
    assert of_class.random_scale > 0
    assert of_class.random_rotation > 0
    # what has been resolved stays as it is
    assert resolved_settings(lite, small_vgg(), [Objective("relu2_1")]) == lite


def test_what_is_given_counts():
    given = DreamSettings(octaves=2, steps=3, step_size=0.5, natural_colors=0.0, padding=0, intensity=2.0, seed=7)
    found = resolved_settings(given, LITE, [ClassObjective(281)])
    assert all(getattr(found, name) == value for name, value in vars(given).items() if value is not None)
    assert found.resolved_step_size == 1.0
    by_mean = resolved_settings(DreamSettings(normalization="mean", intensity=2.0), LITE, default_objectives(LITE))
    assert by_mean.resolved_step_size == pytest.approx(2 * 2.5 * 0.005)
    fourier = resolved_settings(DreamSettings(parametrization="fourier"), LITE, default_objectives(LITE))
    assert (fourier.resolved_step_size, fourier.natural_colors) == (0.03, 0.0)


def test_more_intensity_dreams_more():
    start, settings = picture(), DreamSettings(octaves=2, steps=3, jitter=4)
    changes = [
        (dream(start, small_vgg(), [Objective("relu2_1")], dataclasses.replace(settings, intensity=value)) - start)
        .abs()
        .mean()
        for value in (0.25, 0.5, 1.0, 2.0)
    ]
    assert all(1.5 * less < more for less, more in itertools.pairwise(changes))
    with pytest.raises(ValueError, match="intensity must be in"):
        DreamSettings(intensity=0.0)


def test_natural_colors_keep_gray_and_shrink_the_rest():
    gray, colored = torch.ones(3, 2, 2, dtype=torch.float64), torch.zeros(3, 2, 2, dtype=torch.float64)
    colored[0], colored[1] = 1, -1
    assert natural_colors(colored, 0.0) is colored
    torch.testing.assert_close(natural_colors(gray, 1.0).mean(), gray.mean())
    assert (natural_colors(gray, 1.0) - gray).abs().max() < 0.1
    assert natural_colors(colored, 1.0).abs().max() < 0.2
    half = natural_colors(colored, 0.5)
    torch.testing.assert_close(half, (colored + natural_colors(colored, 1.0)) / 2)


def test_a_dream_of_natural_colors_is_less_colorful():
    start = torch.full((3, 40, 56), 0.5)
    spread = [
        dream(start, small_vgg(), [Objective("relu2_1")], DreamSettings(octaves=1, natural_colors=share)).std(0).mean()
        for share in (0.0, 0.8)
    ]
    assert spread[1] < 0.6 * spread[0]


def view(x, generator=None, **settings):
    return random_view(x, Resolved(**{"jitter": 0, **settings}), generator or torch.Generator().manual_seed(0))


def test_a_view_without_transformations_is_rolled():
    x = picture()[None].double()
    assert torch.equal(view(x), x)
    down, right = torch.randint(-5, 6, (2,), generator=torch.Generator().manual_seed(0)).tolist()
    assert torch.equal(view(x, jitter=5), x.roll((down, right), (2, 3)))


def test_padding_is_gray_and_moves_within():
    x = picture()[None].double()
    padded = view(x, padding=6)
    torch.testing.assert_close(padded[:, :, 6:-6, 6:-6], x)
    assert (padded.sum() - x.sum()).item() == pytest.approx(0.5 * 3 * (52 * 68 - 40 * 56))
    down, right = torch.randint(-5, 6, (2,), generator=torch.Generator().manual_seed(0)).tolist()
    torch.testing.assert_close(view(x, padding=6, jitter=5), padded.roll((down, right), (2, 3)))


@pytest.mark.parametrize(("name", "value"), [("random_scale", 0.4), ("random_rotation", 30.0)])
def test_views_are_scaled_and_turned_about_the_middle(name, value):
    """A ramp stays one: its slopes tell the map."""
    y, x = torch.meshgrid(torch.arange(33.0) - 16, torch.arange(33.0) - 16, indexing="ij")
    ramp = (torch.stack([x, y, 0 * x]) / 64 + 0.5)[None].double()
    generator = torch.Generator().manual_seed(3)
    found = []
    for _ in range(40):
        seen = view(ramp, generator, **{name: value})[0, :, 14:19, 14:19]
        torch.testing.assert_close(seen[:, 2, 2], torch.full((3,), 0.5).double())
        slope = 64 * torch.stack([seen[:2].diff(dim=2).mean((1, 2)), seen[:2].diff(dim=1).mean((1, 2))])
        near = slope.det().sqrt()
        torch.testing.assert_close(slope @ slope.T, near.square() * torch.eye(2).double(), rtol=1e-5, atol=1e-6)
        found.append((1 / near.item(), math.degrees(torch.atan2(slope[0, 1], slope[0, 0]).item())))
    sizes, angles = zip(*found, strict=True)
    if name == "random_scale":
        assert 1 / 1.4 <= min(sizes) < 0.85
        assert 1.2 < max(sizes) <= 1.4
        assert max(map(abs, angles)) < 1e-3
    else:
        assert -30 <= min(angles) < -15
        assert 15 < max(angles) <= 30
        assert max(abs(size - 1) for size in sizes) < 1e-6


def test_views_pass_their_gradient():
    x = picture(9, 11)[None].double().requires_grad_()

    def seen(x):
        return view(x, padding=2, jitter=2, random_scale=0.2, random_rotation=20.0)

    assert seen(x).shape == (1, 3, 13, 15)
    assert torch.autograd.gradcheck(seen, x)


ROBUST = DreamSettings(octaves=2, steps=3, jitter=4, padding=6, random_scale=0.1, random_rotation=10.0)


@pytest.mark.parametrize("parametrization", ["pixels", "fourier"])
def test_a_dream_with_views_excites_its_class(parametrization):
    network, objectives = small_vgg(classes=5), [ClassObjective(2)]
    settings = dataclasses.replace(ROBUST, parametrization=parametrization)
    first, again, other = (
        dream(picture(), network, objectives, dataclasses.replace(settings, seed=seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert network(first[None])[0, 2] > network(picture()[None])[0, 2]


@pytest.mark.parametrize("normalization", ["mean", "none"])
def test_a_class_and_a_layer_count_by_their_weights(normalization):
    """However much larger the gradient of one is; without a normalization they are summed as they are."""
    network, start = small_vgg(classes=5).double(), picture().double()
    of_class, of_layer = ClassObjective(2), Objective("relu2_1", weight=0.5)
    settings = DreamSettings(
        octaves=1, steps=1, jitter=0, padding=0, random_scale=0.0, random_rotation=0.0, natural_colors=0.0,
        normalization=normalization, step_size=1e-3,
    )  # fmt: skip
    slopes = [Gradient(network, [one])(start[None])[1][0] for one in (of_class, of_layer)]
    if normalization == "mean":
        direction = slopes[0] / slopes[0].abs().mean() + 0.5 * slopes[1] / slopes[1].abs().mean()
    else:
        direction = (slopes[0] + slopes[1]) * start.numel()
    expected = (start + 1e-3 * direction).clamp(0, 1)
    torch.testing.assert_close(dream(start, network, [of_class, of_layer], settings), expected)


def test_views_in_tiles_are_those_of_the_whole():
    # of a maximum of equal pixels rounding decides which gets the gradient, and tiles round otherwise
    settings = dataclasses.replace(ROBUST, normalization="mean")
    whole, tiled = (
        dream(
            picture(64, 72).double(),
            small_vgg(pooling="average").double(),
            [Objective("relu2_1")],
            dataclasses.replace(settings, tile=tile),
        )
        for tile in (None, 16)
    )
    torch.testing.assert_close(whole, tiled, rtol=1e-9, atol=1e-9)


def test_views_of_an_own_module():
    """One that takes pictures of one size alone takes that of the view."""
    own = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 36 * 36, 5))
    sizes = []
    dream(
        picture(24, 24), own, [ClassObjective(1, layer="2")], ROBUST, on_step=lambda done, x: sizes.append(x.shape[1])
    )
    assert sizes == [24] * 3
