"""DiffAugment against its formulas, image by image; gradients, dtypes, wrong input."""

from __future__ import annotations

import pytest
import torch
from errors import raises_in_one_line

from imgops.training import DiffAugment


def draws(n: int, numbers: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What a pass draws after ``torch.manual_seed(7)``."""
    torch.manual_seed(7)
    return torch.rand(n, numbers, dtype=dtype)


def augmented(x: torch.Tensor, policy: str) -> torch.Tensor:
    torch.manual_seed(7)
    return DiffAugment(policy)(x)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_color(channels):
    """Zhao et al.: brightness, then saturation around the mean of a pixel, then contrast around that of the image."""
    x = torch.rand(6, channels, 10, 12) * 2 - 1
    y = augmented(x, "color")
    for image, result, (b, s, c) in zip(x[:, :3], y, draws(6, 3), strict=True):
        image = image + (b - 0.5)
        image = (image - image.mean(0)) * (2 * s) + image.mean(0)
        image = (image - image.mean()) * (c + 0.5) + image.mean()
        assert torch.allclose(result[:3], image, atol=1e-5)
    assert torch.equal(y[:, 3:], x[:, 3:])


def test_translation():
    """By up to an eighth of the sides, rounded; zeros move in."""
    x = torch.rand(200, 3, 10, 28) + 1
    shifts = set()
    for image, result, (u, v) in zip(x, augmented(x, "translation"), draws(200, 2), strict=True):
        # 28 / 8 and 10 / 8, rounded half up
        dx, dy = int(u * 9) - 4, int(v * 3) - 1
        padded = torch.nn.functional.pad(image, (4, 4, 1, 1))
        assert torch.equal(result, padded[:, 1 + dy : 11 + dy, 4 + dx : 32 + dx])
        shifts.add((dx, dy))
    assert len(shifts) == 27


@pytest.mark.parametrize(("height", "width"), [(10, 12), (7, 9), (2, 1)])
def test_cutout(height, width):
    x = torch.ones(100, 2 + 1, height, width)
    cut_h, cut_w = int(height / 2 + 0.5), int(width / 2 + 0.5)
    for result, (u, v) in zip(augmented(x, "cutout"), draws(100, 2), strict=True):
        left = int(u * (width + 1 - cut_w % 2)) - cut_w // 2
        top = int(v * (height + 1 - cut_h % 2)) - cut_h // 2
        expected = torch.ones(height, width)
        expected[max(top, 0) : top + cut_h, max(left, 0) : left + cut_w] = 0
        assert torch.equal(result, expected.expand(3, -1, -1))


def test_policies_are_applied_in_their_order():
    x = torch.rand(4, 3, 8, 8)
    torch.manual_seed(7)
    both = DiffAugment("cutout,color")(x)
    torch.manual_seed(7)
    u = torch.rand(4, 5)
    cut = DiffAugment("cutout")(x, uniforms=u[:, :2])
    assert torch.equal(both, DiffAugment("color")(cut, uniforms=u[:, 2:]))
    assert DiffAugment().draws == 7
    assert DiffAugment().policy == ("color", "translation", "cutout")


@pytest.mark.parametrize("percentile", [0.0, 0.4, 1.0])
def test_a_percentile_stands_for_all_that_is_drawn(percentile):
    x, augment = torch.rand(3, 3, 8, 8) + 1, DiffAugment()
    uniforms = torch.full((3, 7), percentile).clamp(max=1 - 1e-7)
    assert torch.allclose(augment(x, percentile), augment(x, uniforms=uniforms))


def test_gradients_of_first_and_second_order():
    x = torch.rand(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)

    def function(images):
        return augmented(images, "color,translation,cutout")

    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype):
    x = torch.rand(2, 3, 8, 8).to(dtype)
    y = augmented(x, "color,translation,cutout")
    assert y.dtype == dtype
    assert torch.equal(y, augmented(x.float(), "color,translation,cutout").to(dtype))


def test_autocast_leaves_it_alone():
    x = torch.rand(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = augmented(x, "color,translation,cutout")
    assert torch.equal(y, augmented(x, "color,translation,cutout"))


def test_compiles_whole():
    x = torch.rand(2, 3, 8, 8)
    assert torch.compile(DiffAugment(), fullgraph=True, backend="aot_eager")(x).shape == x.shape


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (ValueError, "policy names some of color, .* got 'colour'", lambda: DiffAugment("colour")),
        (ValueError, "each once", lambda: DiffAugment("color,color")),
        (ValueError, "policy names some of", lambda: DiffAugment("")),
        (TypeError, "policy must be a text; got list", lambda: DiffAugment(["color"])),
        (ValueError, "one of 1, 3, 4 channels", lambda: DiffAugment()(torch.zeros(1, 2, 8, 8))),
        (TypeError, "images must be a torch.Tensor; got list", lambda: DiffAugment()([0])),
        (ValueError, "debug_percentile must be in", lambda: DiffAugment()(torch.zeros(1, 3, 8, 8), 2)),
        (
            ValueError,
            "uniforms must have shape",
            lambda: DiffAugment()(torch.zeros(1, 3, 8, 8), uniforms=torch.zeros(1, 3)),
        ),
    ],
)
def test_wrong_input_is_told_in_one_line(error, match, call):
    raises_in_one_line(error, match, call)
