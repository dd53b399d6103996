"""Style transfer by optimization: losses by their formulas, tiles that change nothing, masks, starts, bad input."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import imgops
from imgops.data.pictures import read_picture
from imgops.models.encoders.vgg import VGG
from imgops.nn import Features
from imgops.style import planning
from imgops.style.objective import Objective
from imgops.style.optimization import extend, optimize
from imgops.style.planning import choose_tile, memory_of
from imgops.style.settings import OptimizeSettings
from imgops.style.statistics import Directions, StyleSums, mix_styles

CONTENT, STYLE = {"relu3_1": 1.0}, {"relu1_1": 4.0, "relu2_1": 2.0, "relu3_1": 1.0}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return VGG((1, 1, 1), widths=(6, 8, 10), padding_mode="replicate").double().eval().requires_grad_(False)


def picture(seed, height, width):
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand(1, 3, height // 4, width // 4, generator=generator, dtype=torch.float64)
    return F.interpolate(rough, (height, width), mode="bicubic", align_corners=False)[0].clamp(0, 1)


def settings(**changes):
    plain = {"size": 64, "first_size": 48, "steps": 4, "later_steps": 3}
    return OptimizeSettings(content_layers=CONTENT, style_layers=STYLE, **plain | changes)


def describe_style(tiles, kind, normalization):
    sums = StyleSums(kind, normalization, Directions(0, fixed=True) if kind == "sliced" else None)
    for x, mask in tiles:
        sums.add(x, mask)
    return sums.style()


FORMULAS = {
    "relative": lambda g, a, n, c: ((g / n - a) ** 2).sum() / (a**2).sum(),
    "chw": lambda g, a, n, c: ((g / (n * c) - a / c) ** 2).mean(),
    "hw": lambda g, a, n, c: ((g / n - a) ** 2).mean(),
    "none": lambda g, a, n, c: ((g - n * a) ** 2).mean(),
    "gatys": lambda g, a, n, c: ((g - n * a) ** 2).sum() / (4 * c**2 * n**2),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_gram_losses_are_those_of_their_names(name):
    x, y = torch.randn(2, 1, 5, 6, 7, dtype=torch.float64)
    style = describe_style([(y, None)], "gram", name)
    n = torch.tensor(42.0, dtype=torch.float64)
    gram, target = (z[0].flatten(1) @ z[0].flatten(1).T for z in (x, y))
    torch.testing.assert_close(style.loss(style.measure(x, None), n), FORMULAS[name](gram, target / 42, 42, 5))


@pytest.mark.parametrize("name", ["chw", "hw", "none"])
def test_gram_losses_are_those_of_the_op(name):
    x, y = torch.randn(2, 1, 5, 6, 7, dtype=torch.float64)
    style = describe_style([(y, None)], "gram", name)
    expected = imgops.style_loss(x, imgops.gram_matrix(y, normalization=name), normalization=name)
    torch.testing.assert_close(style.loss(style.measure(x, None), torch.tensor(42.0)), expected)


@pytest.mark.parametrize("relative", [True, False])
def test_the_gaussian_loss_is_that_of_the_op(relative):
    x, y = torch.randn(2, 1, 5, 6, 7, dtype=torch.float64) + 3
    style = describe_style([(y[..., :3], None), (y[..., 3:], None)], "wasserstein", "relative" if relative else "hw")
    mean, covariance = imgops.feature_statistics(y)
    torch.testing.assert_close(style.mean, mean[0])
    torch.testing.assert_close(style.covariance, covariance[0])
    eps = 1e-4 * float(covariance[0].trace()) / 5
    expected = imgops.wasserstein_loss(x, mean, covariance, eps=eps)
    if relative:
        expected = expected / (mean.square().sum() + covariance[0].trace())
    actual = style.loss(style.measure(x, None), torch.tensor(42.0))
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["gram", "wasserstein", "sliced"])
def test_a_mask_counts_pixels_as_often_as_it_says(kind):
    """A mask of ones and zeros is a crop."""
    x, y = torch.randn(2, 1, 5, 6, 8, dtype=torch.float64)
    mask = torch.zeros(1, 1, 6, 8, dtype=torch.float64)
    mask[..., :5] = 1
    masked, cropped = (
        describe_style([(y, mask)], kind, "relative"),
        describe_style([(y[..., :5], None)], kind, "relative"),
    )
    pixels = torch.tensor(30.0, dtype=torch.float64)
    torch.testing.assert_close(
        masked.loss(masked.measure(x, mask), pixels), cropped.loss(cropped.measure(x[..., :5], None), pixels)
    )


@pytest.mark.parametrize("relative", [True, False])
def test_the_sliced_loss_is_that_of_the_module(relative):
    """Where pixels count differently, sorted copies of them say so, too; a region without pixels has no loss."""
    x, y = torch.randn(2, 1, 5, 6, 8, dtype=torch.float64) + 1
    style = describe_style([(y[..., :7], None)], "sliced", "relative" if relative else "hw")
    divisor = y[..., :7].square().mean() if relative else 1
    module = imgops.nn.SlicedWassersteinLoss(y[..., :7], seed=0)
    torch.testing.assert_close(Directions(0, fixed=True).draw(x[0].flatten(1)), module.fixed)
    count = torch.tensor(48.0)
    torch.testing.assert_close(style.loss(style.measure(x, None), count), module(x) / divisor)
    # the same picture twice, and each pixel for half
    twice = style.loss(style.measure(torch.cat([x, x], 3), None), count)
    alike = style.loss(style.measure(x, torch.full((1, 1, 6, 8), 0.5, dtype=torch.float64)), count)
    torch.testing.assert_close(alike, module(x) / divisor)
    torch.testing.assert_close(twice, alike, rtol=0.1, atol=0)
    assert style.loss(style.measure(x, torch.zeros(1, 1, 6, 8, dtype=torch.float64)), count) == 0


def test_directions_are_new_in_each_step_but_of_one_seed():
    like = torch.zeros(4, 9)
    first, second = Directions(3), Directions(3)
    a, b = first.draw(like), first.draw(like)
    assert not torch.equal(a, b)
    assert torch.equal(a, second.draw(like))
    assert torch.equal(b, second.draw(like))
    fixed = Directions(3, fixed=True)
    assert torch.equal(fixed.draw(like), a)
    assert torch.equal(fixed.draw(like), a)
    torch.testing.assert_close(a.norm(dim=1), torch.ones(4))


def test_a_sliced_mixture_is_a_barycenter():
    """Along a line the quantiles of two uniform distributions mix; the loss of that mixture itself is 0."""
    y = torch.linspace(-1, 1, 81, dtype=torch.float64).view(1, 1, 9, 9)
    styles = [describe_style([(scale * y + shift, None)], "sliced", "hw") for scale, shift in ((1, 0), (3, 4))]
    mixed = mix_styles(styles, [3, 1])
    own = (1.5 * y + 1).flip(2)
    assert mixed.loss(mixed.measure(own, None), torch.tensor(81.0)) < 1e-12
    assert styles[0].loss(styles[0].measure(own, None), torch.tensor(81.0)) > 0.1


def test_sliced_has_no_tiles(network):
    with pytest.raises(ValueError, match="style: tile must be None where style_loss is 'sliced'"):
        settings(style_loss="sliced", tile=64)
    with pytest.raises(ValueError, match=r"style: memory must be .* with the style_loss 'sliced', which has no tiles"):
        choose_tile(network, settings(style_loss="sliced"), 4000, 3000, 1e9)


@pytest.mark.parametrize("kind", ["gram", "wasserstein"])
def test_a_mixture_lies_between(kind):
    a, b = (describe_style([(torch.randn(1, 4, 9, 9), None)], kind, "relative") for _ in range(2))
    mixed = mix_styles([a, b], [3, 1])
    statistic = "energy" if kind == "gram" else "covariance"
    torch.testing.assert_close(getattr(mixed, statistic), 0.75 * getattr(a, statistic) + 0.25 * getattr(b, statistic))
    torch.testing.assert_close(getattr(mix_styles([a, b], [0, 2]), statistic), getattr(b, statistic))


def objective(network, chosen, masks=None, size=(50, 61)):
    result = Objective(network, chosen, picture(1, *size))
    styles = [picture(2, 40, 52), picture(3, 36, 36)]
    style_masks = None if masks is None else [None, masks[0].flip(2)]
    result.set_styles(styles, [2.0, 1.0], masks, style_masks)
    return result


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (kind, more)
        for kind in ("gram", "wasserstein", "sliced")
        for more in ({}, {"tile": 24}, {"smoothing": True})
        if (kind, more) != ("sliced", {"tile": 24})
    ],
)
def test_the_gradient_is_that_of_the_losses(network, kind, more):
    """Against differences of the losses along random directions."""
    made = objective(network, settings(style_loss=kind, optimizer="lbfgs", **more))
    x, step = picture(4, 50, 61), 1e-6
    losses, gradient = made.gradient(x)
    direction = torch.randn(3, 3, 50, 61, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for d in direction:
        above, below = (sum(made.gradient(x + sign * step * d)[0].values()) for sign in (1, -1))
        assert (above - below) / (2 * step) == pytest.approx(float((gradient * d).sum()), rel=1e-4, abs=1e-7)
    assert set(losses) == {"style", "content", "tv"}


def test_smoothing_compares_softmaxes(network):
    options = {"normalization": "hw", "tv_weight": 0.0, "content_weight": 3.0}
    x = picture(7, 50, 61)

    def softmax(z):
        y = Features(network, ["relu3_1"])(z[None])["relu3_1"]
        return y.exp() / y.exp().sum() * y.shape[2] * y.shape[3]

    losses = objective(network, settings(smoothing=True, **options)).gradient(x)[0]
    expected = 3 * (softmax(x) - softmax(picture(1, 50, 61))).square().mean()
    assert losses["content"] == pytest.approx(expected.item(), rel=1e-6)
    assert losses["style"] != pytest.approx(objective(network, settings(**options)).gradient(x)[0]["style"], rel=0.01)
    with pytest.raises(ValueError, match="smoothing looks at whole layers and takes no tile; got tile 64"):
        settings(smoothing=True, tile=64)


@pytest.mark.parametrize("kind", ["gram", "wasserstein"])
@pytest.mark.parametrize("masked", [False, True])
def test_tiles_change_nothing(network, kind, masked):
    """The losses and gradients of 3 x 3 tiles are those of the whole picture, at sizes that no stride divides."""
    left = torch.linspace(1, 0, 61, dtype=torch.float64).expand(1, 50, 61).square()
    masks = [left, 1 - left] if masked else None
    x = picture(4, 50, 61)
    whole, tiled = (objective(network, settings(style_loss=kind, tile=tile), masks) for tile in (None, 20))
    assert (len(whole.tiles), len(tiled.tiles)) == (1, 9)
    (losses, gradient), (tiled_losses, tiled_gradient) = (made.gradient(x) for made in (whole, tiled))
    assert tiled_losses == pytest.approx(losses, rel=1e-10)
    torch.testing.assert_close(tiled_gradient, gradient, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kind", ["gram", "wasserstein"])
def test_twenty_steps_in_tiles_are_those_of_the_whole(network, kind):
    chosen = settings(size=61, first_size=61, steps=20, style_loss=kind)
    arguments = picture(1, 50, 61), [picture(2, 40, 52)], network
    whole = optimize(*arguments, chosen)
    tiled = optimize(*arguments, dataclasses.replace(chosen, tile=20))
    assert (whole - arguments[0]).abs().max() > 0.05
    assert (whole - tiled).abs().max() < 1e-8


def test_the_losses_fall(network):
    for optimizer in ("adam", "lbfgs"):
        seen = []
        optimize(
            picture(1, 48, 64),
            [picture(2, 40, 52)],
            network,
            settings(optimizer=optimizer, first_size=64, steps=25),
            on_step=lambda p, seen=seen: seen.append(sum(p.losses.values())),
        )
        assert seen[-1] < 0.5 * seen[0], optimizer


def test_every_step_of_lbfgs_is_one(network):
    """On pictures with edges, where a line search needs several gradients."""
    seen = []
    content, style = (read_picture(f"samples:{name}").pixels for name in ("chelsea", "coffee"))
    optimize(
        content,
        [style],
        network,
        settings(optimizer="lbfgs", first_size=64, steps=25, average=0.0),
        on_step=seen.append,
    )
    assert all((a.picture - b.picture).abs().max() > 0 for a, b in itertools.pairwise(seen))
    assert sum(seen[-1].losses.values()) < 0.5 * sum(seen[0].losses.values())


def test_any_floating_dtype_is_taken(network):
    result = optimize(picture(1, 48, 64).half(), [picture(2, 40, 52).float()], network, settings())
    assert (result.dtype, result.shape) == (torch.float64, (3, 48, 64))
    with pytest.raises(ValueError, match="content has values that are not finite"):
        optimize(picture(1, 48, 64) / 0, [picture(2, 40, 52)], network, settings())


def test_the_layout_of_the_gradient_does_not_matter(network):
    """The fused step of Adam reads memory in order: what it gets must lie like the picture."""
    chosen = settings(first_size=64, steps=1, tv_weight=0.0)
    content, style = picture(1, 48, 64), picture(2, 40, 64)
    made = Objective(network, chosen, extend(content))
    made.set_styles([style], [1.0])
    gradient = made.gradient(extend(content))[1][:, 16:-16, 16:-16]
    expected = (content - 0.02 * gradient / (gradient.abs() + 1e-8)).clamp(0, 1)
    torch.testing.assert_close(optimize(content, [style], network, chosen), expected, rtol=0, atol=1e-7)


def test_rounds_grow_by_the_root_of_two():
    assert OptimizeSettings(size=256).scales() == [(128, 150), (181, 75), (256, 75)]
    assert OptimizeSettings(size=100).scales() == [(100, 150)]
    assert [size for size, _ in OptimizeSettings(size=300).scales()] == [128, 181, 256, 300]
    # a narrow picture begins larger
    assert [size for size, _ in OptimizeSettings(size=400).scales(ratio=8)] == [256, 362, 400]


def test_progress_reaches_the_end(network):
    seen = []
    optimize(picture(1, 48, 64), [picture(2, 40, 52)], network, settings(), on_step=seen.append)
    assert [(p.size, p.step) for p in seen] == [(48, 1), (48, 2), (48, 3), (48, 4), (64, 1), (64, 2), (64, 3)]
    assert seen[-1].share == pytest.approx(1)
    assert seen[-1].picture.shape == (3, 48, 64)
    assert all(a.share < b.share for a, b in itertools.pairwise(seen))


def test_a_seed_gives_the_same_picture(network):
    arguments = picture(1, 48, 64), [picture(2, 40, 52)], network
    first, again, other = (optimize(*arguments, settings(init="noise", seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 0.01


def test_starts(network):
    content, style = picture(1, 48, 64), picture(2, 40, 52)
    still = settings(first_size=64, steps=1, lr=1e-12)
    torch.testing.assert_close(optimize(content, [style], network, still), content)
    noise = optimize(content, [style], network, dataclasses.replace(still, init="noise"))
    assert (noise - content).abs().mean() > 0.1
    from_style = optimize(content, [style], network, dataclasses.replace(still, init="style"))
    resized = F.interpolate(style[None], (48, 64), mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)
    torch.testing.assert_close(from_style, resized)
    given = optimize(content, [style], network, dataclasses.replace(still, frame_steps=1), init=picture(5, 48, 64))
    torch.testing.assert_close(given, picture(5, 48, 64))


def test_what_the_masks_leave_stays(network):
    content = picture(1, 48, 64)
    mask = torch.zeros(1, 48, 64)
    mask[..., 32:] = 1
    result = optimize(content, [picture(2, 40, 52)], network, settings(), masks=[mask])
    torch.testing.assert_close(result[..., :32], content[..., :32])
    assert (result[..., 32:] - content[..., 32:]).abs().mean() > 0.005


def test_each_mask_gets_its_style(network):
    """The halves of the picture go to the colors of a red and of a blue style."""
    red, blue = (torch.zeros(3, 40, 40, dtype=torch.float64) for _ in range(2))
    red[0], blue[2] = 1, 1
    left = (torch.arange(64) < 32).double().expand(1, 48, 64)
    result = optimize(
        picture(1, 48, 64),
        [red, blue],
        network,
        settings(first_size=64, steps=40, content_weight=0.0),
        masks=[left, 1 - left],
    )
    assert result[0, :, :28].mean() > result[2, :, :28].mean() + 0.1
    assert result[2, :, 36:].mean() > result[0, :, 36:].mean() + 0.1


def test_memory_chooses_the_tile(network, monkeypatch):
    """Less memory, smaller tiles; too little is refused with what it would take."""
    monkeypatch.setattr(planning, "program_memory", lambda device: 450e6)
    chosen = settings()
    whole = memory_of(network, chosen, 3000, 4000)
    assert choose_tile(network, chosen, 3000, 4000, whole) is None
    tile = choose_tile(network, chosen, 3000, 4000, 0.8 * whole)
    smaller = choose_tile(network, chosen, 3000, 4000, 0.6 * whole)
    assert smaller is not None
    assert tile is not None
    assert smaller <= tile
    assert memory_of(network, dataclasses.replace(chosen, tile=smaller), 3000, 4000) <= 0.6 * whole
    with pytest.raises(
        ValueError,
        match=r"memory must be at least \d+\.\d\d GB for 4000 x 3000 pixels, in smallest tiles; got 0.1 GB",
    ):
        choose_tile(network, chosen, 3000, 4000, 1e8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 8}, "size must be 16 or more; got 8"),
        ({"steps": 0}, "steps must be 1 or more"),
        ({"optimizer": "sgd"}, "optimizer must be adam or lbfgs; got 'sgd'"),
        ({"style_loss": "mmd"}, "style_loss must be gram, wasserstein or sliced"),
        ({"normalization": "n"}, "normalization must be relative, chw, hw, none or gatys"),
        ({"init": "black"}, "init must be content, noise or style"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"content_weight": float("nan")}, "content_weight must be 0 or more and finite"),
        ({"average": 1.0}, r"average must be in \[0, 1\); got 1.0"),
        ({"tile": 0}, "tile must be 1 or more"),
    ],
)
def test_settings_out_of_range_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


class Flat(nn.Linear):
    """A network without maps of features."""

    def __init__(self):
        super().__init__(3, 2)

    def forward(self, x):
        return super().forward(x.mean((2, 3)))


def test_bad_arguments_are_named(network):
    content, style, mask = picture(1, 48, 64), picture(2, 40, 52), torch.ones(1, 48, 64)
    for message, arguments, more in [
        ("styles must hold one picture", (content, []), {}),
        (r"content must be \[3, H, W\].*got \(1, 48, 64\)", (mask, [style]), {}),
        (r"styles\[1\] must be \[3, H, W\]", (content, [style, mask]), {}),
        ("weights must have one for each of the 1 styles; got 2", (content, [style]), {"weights": [1, 1]}),
        ("weights must be >= 0 and finite, and not all 0", (content, [style]), {"weights": [0]}),
        ("masks must have one for each", (content, [style]), {"masks": [mask, mask]}),
        (r"masks must be \[1, H, W\] each; got \(48, 64\)", (content, [style]), {"masks": [mask[0]]}),
        ("one of masks has values that are not finite", (content, [style]), {"masks": [torch.nan * mask]}),
        ("one of masks is black", (content, [style]), {"masks": [0 * mask]}),
        ("one of style_masks is black", (content, [style]), {"style_masks": [0 * mask]}),
    ]:
        with pytest.raises(ValueError, match=message):
            optimize(*arguments, network, settings(), **more)
    with pytest.raises(TypeError, match="content must be a floating-point tensor"):
        optimize((255 * content).byte(), [style], network, settings())
    with pytest.raises(ValueError, match="has no layer 'relu9_1'; did you mean"):
        optimize(content, [style], network, dataclasses.replace(settings(), content_layers={"relu9_1": 1.0}))
    with pytest.raises(ValueError, match="content_layers must be named for this network; got Flat"):
        optimize(content, [style], Flat(), OptimizeSettings())
    with pytest.raises(ValueError, match="style_layers must have weights >= 0"):
        optimize(content, [style], network, dataclasses.replace(settings(), style_layers={"relu1_1": -1.0}))
