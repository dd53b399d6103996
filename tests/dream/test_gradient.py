"""The objectives of a dream, their gradients whole and in tiles, and what is done to them before a step."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from imgops.dream import ClassObjective, GuidedObjective, Objective, parse_class, parse_objective
from imgops.dream.gradient import Gradient
from imgops.dream.normalize import laplacian_normalized, normalized
from imgops.dream.objectives import guided_density
from imgops.dream.parametrize import fourier_picture, fourier_spectrum, noise_picture
from imgops.models.encoders.vgg import VGG


def small_vgg(**options):
    torch.manual_seed(0)
    return VGG((2, 1, 1), widths=(4, 6, 8), **options).double().eval()


class Wrapped(nn.Module):
    """A network that is no sequence; ``twice`` is computed in between."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Conv2d(3, 5, 3, padding=1)
        self.second = nn.Conv2d(5, 7, 3, stride=2, padding=1)

    def forward(self, x):
        return self.second(2 * self.first(x).relu())


def test_objectives_are_half_the_mean_square_summed_by_weight():
    network = small_vgg()
    x = torch.rand(1, 3, 20, 28, dtype=torch.float64, requires_grad=True)
    first = network.relu1_1(network.conv1_1(network.input(x)))
    second = network.relu1_2(network.conv1_2(first))
    expected = 0.25 * (first**2).mean() / 2 - 3 * (second[:, 2] ** 2).mean() / 2
    objectives = [Objective("relu1_1", weight=0.25), Objective("relu1_2", 2, -3.0)]
    value, gradient = Gradient(network, objectives)(x.detach())
    assert value == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, x)[0], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
@pytest.mark.parametrize("size", [(96, 128), (101, 75)])
def test_the_gradient_in_tiles_is_that_of_the_whole(padding_mode, size):
    network = small_vgg(padding_mode=padding_mode)
    guide = torch.rand(3, 24, 24, dtype=torch.float64)
    objectives = [Objective("relu3_1", 3), Objective("relu1_2", weight=2.0), GuidedObjective("relu2_1", guide, 0.5)]
    x = torch.rand(1, 3, *size, dtype=torch.float64)
    value, gradient = Gradient(network, objectives)(x)
    in_tiles, tiled = Gradient(network, objectives, tile=32)(x)
    assert in_tiles == pytest.approx(value, rel=1e-12)
    assert (tiled - gradient).abs().max() < 1e-10 * gradient.abs().max()


def test_a_network_of_unknown_fields_is_tiled_with_a_halo():
    """Here the halo of 128 pixels is more than the layers see, so that even this gradient is exact."""
    network = Wrapped().double()
    x = torch.rand(1, 3, 200, 420, dtype=torch.float64)
    (value, gradient), (in_tiles, tiled) = (Gradient(network, [Objective("second")], tile)(x) for tile in (None, 64))
    assert in_tiles == pytest.approx(value, rel=1e-12)
    torch.testing.assert_close(tiled, gradient, rtol=1e-9, atol=1e-15)


def test_the_guide_is_the_feature_with_the_largest_dot_product(monkeypatch):
    y, guide = torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True), torch.randn(5, 11, dtype=torch.float64)
    expected = torch.zeros_like(y)
    for n in range(2):
        for i in range(3):
            for j in range(4):
                products = [float(y[n, :, i, j].detach() @ guide[:, q]) for q in range(11)]
                expected[n, :, i, j] = guide[:, products.index(max(products))]
    # a few rows at a time, as for a large picture
    monkeypatch.setattr("imgops.dream.objectives._PRODUCTS", 40)
    density = guided_density(y, guide)
    torch.testing.assert_close(density, y * expected)
    torch.testing.assert_close(torch.autograd.grad(density.sum(), y)[0], expected)


@pytest.mark.parametrize("size", [(64, 80), (37, 50), (5, 3)])
def test_the_laplacian_normalization_is_that_of_its_formula(size):
    g = torch.randn(1, 3, *size, dtype=torch.float64) + 0.2
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=torch.float64)
    kernel = (taps[:, None] * taps / 256).expand(3, 1, 5, 5)

    def up(low, like):
        odd = [1 - side % 2 for side in like.shape[2:]]
        return F.conv_transpose2d(low, 4 * kernel, stride=2, padding=2, output_padding=odd, groups=3)

    def unit(x):
        return x / max(math.sqrt(float((x**2).mean())), 1e-10)

    levels = [g]
    for _ in range(4):
        levels.append(F.conv2d(levels[-1], kernel, stride=2, padding=2, groups=3))
    expected = unit(levels[-1])
    for level, lower in zip(levels[-2::-1], levels[:0:-1], strict=True):
        expected = up(expected, level) + unit(level - up(lower, level))
    torch.testing.assert_close(laplacian_normalized(g), expected, rtol=1e-10, atol=1e-12)
    assert laplacian_normalized(torch.zeros(1, 3, *size)).count_nonzero() == 0


def test_other_normalizations():
    g = torch.randn(1, 3, 9, 7) * 1e-4
    assert normalized(g, "mean").abs().mean().item() == pytest.approx(1, rel=1e-5)
    assert normalized(g, "std").std().item() == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(normalized(g, "none"), g * 189)


@pytest.mark.parametrize("width", [6, 7])
def test_fourier_pictures_are_real_and_have_a_gradient(width):
    spectrum = torch.randn(3, 5, width // 2 + 1, 2, dtype=torch.float64, requires_grad=True)
    picture = fourier_picture(spectrum, width)
    assert picture.shape == (3, 5, width)
    assert picture.dtype == torch.float64
    assert ((picture > 0) & (picture < 1)).all()
    assert torch.autograd.gradcheck(lambda s: fourier_picture(s, width), spectrum)


@pytest.mark.parametrize("size", [(16, 20), (15, 21)])
def test_a_spectrum_gives_its_picture_back(size):
    picture = torch.rand(3, *size, dtype=torch.float64) * 0.98 + 0.01
    torch.testing.assert_close(fourier_picture(fourier_spectrum(picture), size[1]), picture)


def test_noise_has_the_power_of_photographs():
    """The amplitude of a wave falls as 1/f: four times the frequency, a quarter of it."""
    gray = torch.stack([noise_picture(128, 128, seed).mean(0) for seed in range(8)])
    amplitude = torch.fft.rfft(gray - gray.mean(), dim=2).abs().square().mean((0, 1)).sqrt()
    # of the rows the waves along y add up, and the power along x falls as 1/f alone
    assert amplitude[4:8].mean() / amplitude[16:32].mean() == pytest.approx(2, rel=0.25)
    assert torch.equal(noise_picture(9, 14, 3), noise_picture(9, 14, 3))
    assert not torch.equal(noise_picture(9, 14, 3), noise_picture(9, 14, 4))


@pytest.mark.parametrize(
    ("text", "objective"),
    [
        ("inception_4c", Objective("inception_4c")),
        ("inception_4c/output", Objective("inception_4c/output")),
        (" relu4_2:17 ", Objective("relu4_2", 17)),
        ("relu4_2:17=0.5", Objective("relu4_2", 17, 0.5)),
        ("block.3=-2e-1", Objective("block.3", None, -0.2)),
    ],
)
def test_objectives_as_the_command_line_has_them(text, objective):
    assert parse_objective(text) == objective


@pytest.mark.parametrize("text", ["", ":3", "relu4_2:", "relu4_2:a", "relu4_2:1:2", "relu4_2=", "relu4_2=much", "a b"])
def test_what_is_no_objective(text):
    with pytest.raises(ValueError, match="is no objective; write a layer"):
        parse_objective(text)


def test_the_objective_of_a_class_is_its_logit():
    network = VGG((1, 1), widths=(4, 6), classes=5).double().eval()
    x = torch.rand(1, 3, 20, 28, dtype=torch.float64, requires_grad=True)
    objectives = [ClassObjective(3), ClassObjective(1, -0.5), Objective("relu1_1", weight=2.0)]
    first = network.relu1_1(network.conv1_1(network.input(x)))
    found = network(x)[0, 3] - 0.5 * network(x)[0, 1] + first.square().mean()
    value, gradient = Gradient(network, objectives)(x.detach())
    assert value == pytest.approx(found.item(), rel=1e-12)
    torch.testing.assert_close(gradient, torch.autograd.grad(found, x)[0], rtol=1e-10, atol=1e-14)


def test_the_gradients_of_classes_and_of_layers_are_told_apart():
    network = VGG((1, 1), widths=(4, 6), classes=5).double().eval()
    x = torch.rand(1, 3, 20, 28, dtype=torch.float64)
    layers, classes = [Objective("relu1_1", weight=-2.0), Objective("relu2_1")], [ClassObjective(3, 0.5)]
    both = Gradient(network, [layers[0], *classes, layers[1]])
    assert both.kinds == {False: 3.0, True: 0.5}
    value, (of_layers, of_classes) = both.apart(x)
    expected = Gradient(network, layers)(x), Gradient(network, classes)(x)
    assert value == pytest.approx(expected[0][0] + expected[1][0], rel=1e-12)
    torch.testing.assert_close(of_layers, expected[0][1])
    torch.testing.assert_close(of_classes, expected[1][1])
    torch.testing.assert_close(both(x)[1], of_layers + of_classes)
    assert len(Gradient(network, layers).apart(x)[1]) == 1


def test_classes_as_the_command_line_has_them():
    assert parse_class("tabby") == ClassObjective(281)
    assert parse_class("Tabby cat=-0.5") == ClassObjective(281, -0.5)
    assert parse_class("7=2") == ClassObjective(7, 2.0)
    for text, words in (
        ("tabby=much", "'tabby=much' is no class; write a name or a number"),
        ("tabby=0", "weight must be finite and other than 0"),
        ("taby", "no class is called 'taby'; close names are tabby"),
    ):
        with pytest.raises(ValueError, match=words):
            parse_class(text)


def test_classes_out_of_range():
    network = VGG((1, 1), widths=(4, 6), classes=5).eval()
    with pytest.raises(ValueError, match=r"ClassObjective: number must be 0 to 4; got 5"):
        Gradient(network, [ClassObjective(5)]).first_fitting([(16, 16)])
    with pytest.raises(ValueError, match=r"layer relu2_1 must give \[N, classes\]; it gives \(1, 6, 8, 8\)"):
        Gradient(network, [ClassObjective(1, layer="relu2_1")]).first_fitting([(16, 16)])
    with pytest.raises(ValueError, match=r"classifier gives \(1, 5\), of the picture as a whole; leave out tile"):
        Gradient(network, [ClassObjective(1)], tile=64)
    with pytest.raises(ValueError, match="has no layer 'classifier'"):
        Gradient(small_vgg(), [ClassObjective(1)])
    with pytest.raises(ValueError, match="ClassObjective: number must be >= 0; got -1"):
        ClassObjective(-1)
    for number in (True, "tabby", 1.0):
        with pytest.raises(TypeError, match="ClassObjective: number must be an int"):
            ClassObjective(number)


def test_objectives_out_of_range():
    for call, words in (
        (lambda: Objective("a", -1), "channel must be >= 0; got -1"),
        (lambda: parse_objective("a=0"), "weight must be finite and other than 0"),
        (lambda: parse_objective("a=nan"), "weight must be finite"),
        (lambda: GuidedObjective("a", torch.rand(1, 8, 8)), r"guide must be RGB \[3, H, W\]; got shape \[1, 8, 8\]"),
        (lambda: parse_objective("a:3", torch.rand(3, 8, 8)), "takes a whole layer; leave out :3"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    for call in (lambda: Objective(3), lambda: Objective("a", 1.0), lambda: Objective("a", 1, "b")):
        with pytest.raises(TypeError, match="must be"):
            call()
    guided = parse_objective("relu1_1=2", torch.rand(3, 8, 8))
    assert isinstance(guided, GuidedObjective)
    assert guided.weight == 2


def test_what_has_no_gradient_is_named():
    network, x = small_vgg(), torch.rand(1, 3, 32, 32, dtype=torch.float64)
    network.conv2_1.weight.data[1].zero_()
    network.conv2_1.bias.data[1] = -1
    with pytest.raises(ValueError, match=r"nothing in the picture excites channel 1 of relu2_1.*before the ReLU"):
        Gradient(network, [Objective("relu2_1", 1)])(x)
    network.conv3_1.bias.data[0] = math.inf
    with pytest.raises(ValueError, match="activations of layer conv3_1 are not finite"):
        Gradient(network, [Objective("relu1_1"), Objective("conv3_1")])(x)
    # the root of 0 is finite, its slope is not
    steep = nn.Sequential(nn.Identity(), Root())
    with pytest.raises(ValueError, match="gradient of layer 1 is not finite"):
        Gradient(steep, [Objective("1")])(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="layer 0 passes no gradient"):
        Gradient(nn.Sequential(Cut()), [Objective("0")])(x)
    with pytest.raises(ValueError, match="tile must be >= 4, the stride of the deepest layer; got "):
        Gradient(network, [Objective("relu3_1")], tile=3)
    with pytest.raises(ValueError, match=r"tiles need layers of \[N, C, H, W\]; 1 gives"):
        Gradient(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten()), [Objective("1")], tile=64)


class Root(nn.Module):
    def forward(self, x):
        return (x.sqrt() + 1) * 2


class Cut(nn.Module):
    def forward(self, x):
        return x.detach()
