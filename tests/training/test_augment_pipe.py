"""The augmentation pipe: the recorded cases, what each transform does, how often, gradients, compilers, wrong input."""

from __future__ import annotations

import math

import pytest
import torch
from errors import raises_in_one_line
from golden import Case, cases, relative_error

from imgops.training import AugmentPipe
from imgops.training.augment import PIPES
from imgops.training.augment.filtering import POWER, SYM2, BandFilter, band_filters
from imgops.training.augment.geometry import SYM6

TRANSFORMS = PIPES["bgcfnc"]
#: beyond this a pixel is not the same up to the rounding of the filters
ROUNDING = 2e-5


def smooth(batch: int = 2, channels: int = 3, height: int = 40, width: int = 48) -> torch.Tensor:
    """Images of a few low frequencies, which resampling keeps."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    phases = torch.rand(batch, channels, 3, 1, 1) * 2 * math.pi
    waves = [(x * 5 + phases[:, :, 0]).sin(), (y * 7 + phases[:, :, 1]).sin(), ((x + y) * 4 + phases[:, :, 2]).sin()]
    return sum(waves) / 3


def turned(images: torch.Tensor, angle: float) -> torch.Tensor:
    """A quarter of the middle, rotated by an angle around the center, bilinearly."""
    height, width = images.shape[2:]
    c, s = math.cos(angle), math.sin(angle)
    theta = torch.tensor([[c, -s * height / width, 0], [s * width / height, c, 0]])
    grid = torch.nn.functional.affine_grid(theta.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return torch.nn.functional.grid_sample(images, grid, align_corners=False)


def middle(images: torch.Tensor) -> torch.Tensor:
    """What no edge reaches."""
    height, width = images.shape[2:]
    return images[:, :, height // 3 : -(height // 3), width // 3 : -(width // 3)]


@pytest.mark.parametrize("case", cases("ada_augment"))
def test_recorded_case(case: Case):
    strengths = {k: v for k, v in case.params.items() if k not in ("name", "debug_percentile")}
    y = AugmentPipe(**strengths)(case.arrays["x"], debug_percentile=case.params["debug_percentile"])
    assert relative_error(y, case.arrays["y"]) < 1e-5


@pytest.mark.parametrize(("taps", "moments"), [(SYM2, 2), (SYM6, 6)])
def test_taps_are_those_of_an_orthogonal_wavelet(taps, moments):
    """Even shifts are orthogonal and the high-pass filter has moments of 0, which define a symlet but for its phase."""
    h = torch.tensor(taps, dtype=torch.float64)
    for shift in range(0, len(h), 2):
        assert abs(float(h[shift:] @ h[: len(h) - shift]) - (shift == 0)) < 1e-10
    places = torch.arange(len(h), dtype=torch.float64) - len(h) / 2
    for k in range(moments):
        assert abs(float((h * (-1) ** torch.arange(len(h)) * places**k).sum())) < 1e-6


def test_bands_add_up_to_the_image_and_each_passes_its_frequencies():
    bands = band_filters()
    total, delta = bands.sum(0), torch.zeros(43, dtype=torch.float64)
    delta[21] = 1
    assert torch.allclose(total, delta, atol=1e-12)
    frequencies = torch.tensor([1 / 32, 3 / 16, 3 / 8, 7 / 8], dtype=torch.float64) * math.pi
    response = bands @ torch.cos((torch.arange(43, dtype=torch.float64) - 21)[:, None] * frequencies)
    assert (response.diagonal() > 0.65).all()
    assert response.argmax(0).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 16, 16), (1, 6, 9), (4, 31, 20)])
def test_with_p_0_images_come_back(channels, height, width):
    pipe = AugmentPipe.preset("bgcfnc")
    pipe.p.zero_()
    x = torch.rand(5, channels, height, width) * 2 - 1
    assert (pipe(x) - x).abs().max() < ROUNDING


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_transform_is_applied_to_a_share_p_of_the_images(transform):
    """A flip is drawn from two, of which one changes nothing, quarter turns from four, shifts of less than half a pixel
    are none; four bands are drawn apart."""
    x = torch.rand(3000, 3, 8, 8) * 2 - 1
    pipe = AugmentPipe(**{transform: 0.75})
    pipe.p.fill_(0.4)
    share, n = 0.3, len(x)
    kept = {"xflip": 1 / 2, "lumaflip": 1 / 2, "rotate90": 1 / 4, "xint": 1 / 4}.get(transform, 0)
    share = 1 - (1 - share) ** 4 if transform == "imgfilter" else share * (1 - kept)
    changed = float(((pipe(x) - x).abs().amax((1, 2, 3)) > 10 * ROUNDING).float().mean())
    assert abs(changed - share) < 4 * math.sqrt(share * (1 - share) / n) + 1e-3


def test_strengths_scale_p():
    x = torch.rand(2000, 1, 8, 8)
    pipe = AugmentPipe(brightness=0.5)
    pipe.p.fill_(0.5)
    assert abs(float(((pipe(x) - x).abs().amax((1, 2, 3)) > 1e-4).float().mean()) - 0.25) < 0.04


@pytest.mark.parametrize("p", [0.3, 0.9])
def test_one_of_two_rotations_or_both_are_applied_with_p(p):
    pipe = AugmentPipe(rotate=1)
    pipe.p.fill_(p)
    drawn = pipe.drawer(torch.rand(20000, pipe.draws, dtype=torch.float32), pipe.p).rotate
    before, after = (drawn != 0).double().mean(0)
    assert abs(float((drawn != 0).any(1).double().mean()) - p) < 0.02
    assert abs(float(before) - (1 - math.sqrt(1 - p))) < 0.02
    assert abs(float(after) - float(before)) < 0.02
    assert drawn.abs().max() <= math.pi


def test_distributions():
    """Means and standard deviations of what is drawn, against the paper's."""
    pipe = AugmentPipe.preset("bgcfnc")
    d = pipe.drawer(torch.rand(50000, pipe.draws, dtype=torch.float64), pipe.p)
    third = 3**-0.5
    expected = {
        "xflip": (0.5, 0.5), "lumaflip": (0.5, 0.5), "rotate90": (1.5, 1.25**0.5), "xint": (0, 0.125 * third),
        "rotate": (0, math.pi * third), "hue": (0, math.pi * third), "center": (0, 0.5 * third), "scale": (0, 0.2),
        "aniso": (0, 0.2), "xfrac": (0, 0.125), "brightness": (0, 0.2), "contrast": (0, 0.5), "saturation": (0, 1),
        "imgfilter": (0, 1), "noise": (0.1 * (2 / math.pi) ** 0.5, 0.1 * (1 - 2 / math.pi) ** 0.5), "cutout": (0.5, 0),
    }  # fmt: skip
    assert set(expected) == set(d._fields)
    for name, (mean, std) in expected.items():
        drawn = getattr(d, name)
        assert torch.allclose(drawn.mean(0), torch.tensor(mean, dtype=torch.float64), atol=0.02 * (std + 0.01)), name
        assert torch.allclose(drawn.std(0), torch.tensor(std, dtype=torch.float64), atol=0.02 * std + 1e-9), name


def test_flip():
    x = smooth()
    assert (AugmentPipe(xflip=1)(x, 0.75) - x.flip(3)).abs().max() < 0.02
    assert (AugmentPipe(xflip=1)(x, 0.25) - x).abs().max() < ROUNDING


@pytest.mark.parametrize(("percentile", "turns"), [(0.1, 0), (0.3, 1), (0.6, 2), (0.9, 3)])
def test_quarter_turns(percentile, turns):
    x = smooth(height=40, width=40)
    y = AugmentPipe(rotate90=1)(x, percentile)
    assert (y - torch.rot90(x, turns, (2, 3))).abs().max() < 0.02


def test_whole_shifts_move_pixels_and_reflect_at_edges():
    x = torch.rand(2, 3, 16, 24)
    # (0.9 * 2 - 1) / 8 of the sides, rounded
    y = AugmentPipe(xint=1)(x, 0.9)
    padded = torch.nn.functional.pad(x, (2, 0, 2, 0), mode="reflect")
    assert (y - padded[:, :, :16, :24]).abs().max() < ROUNDING


def test_rotations():
    x = smooth(height=60, width=48)
    # with a percentile the second rotation is 0
    y = AugmentPipe(rotate=1, rotate_max=0.1)(x, 0.9)
    assert (middle(y) - middle(turned(x, 0.08 * math.pi))).abs().max() < 0.02


@pytest.mark.parametrize(("transform", "x_factor", "y_factor"), [("scale", 1, 1), ("aniso", 1, -1)])
def test_scales(transform, x_factor, y_factor):
    x, log2 = smooth(height=60, width=48), 0.2 * float(torch.special.erfinv(torch.tensor(0.8)))
    y = AugmentPipe(**{transform: 1})(x, 0.9)
    theta = torch.diag(torch.tensor([2 ** (-log2 * x_factor), 2 ** (-log2 * y_factor)]))
    theta = torch.cat([theta, torch.zeros(2, 1)], 1).expand(2, 2, 3)
    grid = torch.nn.functional.affine_grid(theta, list(x.shape), align_corners=False)
    expected = torch.nn.functional.grid_sample(x, grid, align_corners=False)
    assert (middle(y) - middle(expected)).abs().max() < 0.02


def test_an_image_far_outside_is_reflections_without_end():
    """A shift by two periods is none."""
    x = torch.rand(1, 3, 9, 9)
    pipe = AugmentPipe(xint=1, xint_max=2 * 16 / 9 / 0.8)
    assert (pipe(x, 0.9) - x).abs().max() < 5 * ROUNDING


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_colors(channels):
    """By the paper's matrices, one after another."""
    x, percentile = torch.rand(2, channels, 8, 8) * 2 - 1, 0.7
    q = float(torch.special.erfinv(torch.tensor(2 * percentile - 1, dtype=torch.float64)))
    v = torch.full((3,), 3**-0.5, dtype=torch.float64)
    luma, identity = v.outer(v), torch.eye(3, dtype=torch.float64)
    angle = (2 * percentile - 1) * math.pi
    cross = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=torch.float64) * 3**-0.5
    hue = math.cos(angle) * identity + math.sin(angle) * cross + (1 - math.cos(angle)) * luma
    # 0.7 is the second half of the choices: flipped
    matrix = (luma + (identity - luma) * 2**q) @ hue @ (identity - 2 * luma) * 2 ** (0.5 * q)
    rgb = x[:, :3].double().expand(-1, 3, -1, -1)
    expected = torch.einsum("ij,njhw->nihw", matrix, rgb + 0.2 * q)
    y = AugmentPipe(**dict.fromkeys(PIPES["color"], 1.0))(x, percentile)
    assert torch.allclose(y[:, :3].double(), expected[:, : y.shape[1]], atol=1e-5)
    assert torch.equal(y[:, 3:], x[:, 3:])


@pytest.mark.parametrize("height", [6, 11, 64])
def test_a_filter_is_a_convolution_of_the_reflected_image(height):
    x, amplification = (torch.rand(*shape, dtype=torch.float64) for shape in ((2, 3, height, 40), (2, 4)))
    bands = BandFilter()
    y, gains = bands(x, amplification), bands.gains(amplification)
    padded, reach = x, 21
    for dim, side in ((2, height), (3, 40)):
        places = torch.arange(-reach, side + reach).remainder(2 * (side - 1))
        padded = padded.index_select(dim, torch.minimum(places, 2 * (side - 1) - places))
    for n in range(2):
        taps = (gains[n] @ band_filters()).expand(3, 1, 1, 43)
        expected = torch.nn.functional.conv2d(padded[n], taps, groups=3)
        expected = torch.nn.functional.conv2d(expected, taps.mT, groups=3)
        assert torch.allclose(y[n], expected, atol=1e-6)


def test_gains_keep_the_expected_power():
    """One band after another is amplified, and all are divided by the root of the power that is then expected."""
    amplification = torch.randn(5, 4, dtype=torch.float64)
    power, gains = torch.tensor(POWER, dtype=torch.float64), torch.ones(5, 4, dtype=torch.float64)
    for band in range(4):
        t = torch.ones(5, 4, dtype=torch.float64)
        t[:, band] = torch.exp2(amplification[:, band])
        gains = gains * t / (power * t.square()).sum(1, keepdim=True).sqrt()
    # the constants are in float32
    assert torch.allclose(BandFilter().gains(amplification), gains, rtol=1e-6)
    assert torch.equal(BandFilter().gains(torch.zeros(1, 4)), torch.ones(1, 4))


def test_bands_that_are_off_are_left_alone():
    pipe = AugmentPipe(imgfilter=1, imgfilter_bands=[0, 0, 1, 0])
    drawn = pipe.drawer(torch.rand(50, pipe.draws, dtype=torch.float32), pipe.p).imgfilter
    assert (drawn != 0).all(0).tolist() == [False, False, True, False]
    assert not drawn[:, [0, 1, 3]].any()


def test_noise_has_the_half_normal_deviation_drawn():
    pipe, x = AugmentPipe(noise=1, noise_std=0.3), torch.zeros(400, 3, 32, 32)
    deviations = pipe(x).std((1, 2, 3))
    assert abs(float(deviations.mean()) - 0.3 * math.sqrt(2 / math.pi)) < 0.03
    assert abs(float(deviations.square().mean().sqrt()) - 0.3) < 0.03


def test_a_cutout_is_a_rectangle_of_half_of_the_sides():
    x = torch.ones(200, 1, 16, 24)
    y = AugmentPipe(cutout=1)(x)
    rows, columns = (y == 0).any(3).sum(2), (y == 0).any(2).sum(2)
    assert ((y == 0).sum((2, 3)) == rows * columns).all()
    assert rows.max() == 8
    assert columns.max() == 12
    # a center near an edge cuts less: at least a quarter of the sides
    assert rows.min() >= 3
    assert columns.min() >= 5


GROUPS = {
    name: dict.fromkeys(PIPES[name], 1.0) for name in ("blit", "geom", "color", "filter", "noise", "cutout", "bgcfnc")
}


@pytest.mark.parametrize("group", GROUPS)
def test_gradients_of_first_and_second_order(group):
    pipe = AugmentPipe(**GROUPS[group])
    x = torch.rand(2, 3, 8, 6, dtype=torch.float64, requires_grad=True)

    def function(images):
        torch.manual_seed(3)
        return pipe(images)

    assert torch.autograd.gradcheck(function, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, x, fast_mode=True)
    # the pipe is affine in the images: what tests second order is a function of its gradient
    y = function(x)
    (gradient,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
    assert torch.autograd.grad(gradient.square().sum(), x)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype):
    pipe, x = AugmentPipe.preset("bgcfnc"), smooth().to(dtype)
    y, exact = pipe(x, 0.6), pipe(x.float(), 0.6)
    assert y.dtype == dtype
    assert torch.equal(y, exact.to(dtype))


@pytest.mark.parametrize("percentile", [0, 1])
def test_the_ends_of_the_distributions_are_finite(percentile):
    assert AugmentPipe.preset("bgcfnc")(smooth(), percentile).isfinite().all()
    ends = torch.full([1, AugmentPipe().draws], float(percentile))
    assert AugmentPipe.preset("bgcfnc")(smooth(1), uniforms=ends).isfinite().all()
    x = smooth(height=40, width=40)
    turned = AugmentPipe(rotate90=1)(x, percentile)
    assert (turned - torch.rot90(x, 3 * percentile, (2, 3))).abs().max() < 0.02


def test_an_image_has_its_own_draws_whatever_its_batch():
    pipe, x = AugmentPipe.preset("bgcf"), smooth(5)
    pipe.p.fill_(0.8)
    uniforms = torch.rand(5, pipe.draws)
    y = pipe(x, uniforms=uniforms)
    assert not torch.equal(pipe(x), y)
    for part in (slice(1, 2), slice(0, 5, 2)):
        assert torch.allclose(pipe(x[part], uniforms=uniforms[part]), y[part], atol=1e-5)


def test_autocast_leaves_the_pipe_alone():
    pipe, x = AugmentPipe.preset("bgcfnc"), smooth()
    with torch.autocast("cpu", torch.bfloat16):
        y = pipe(x, 0.6)
    assert torch.equal(y, pipe(x, 0.6))


def test_memory_formats_and_empty_batches():
    pipe, x = AugmentPipe.preset("bgcfnc"), smooth()
    assert torch.equal(pipe(x.contiguous(memory_format=torch.channels_last), 0.6), pipe(x, 0.6))
    assert pipe(x[:0]).shape == x[:0].shape


def test_the_state_is_p_and_draws_come_from_the_generator():
    pipe, x = AugmentPipe.preset("bgcfnc"), torch.rand(3, 3, 16, 16)
    assert list(pipe.state_dict()) == ["p"]
    pipe.p.fill_(0.7)
    again = AugmentPipe.preset("bgcfnc")
    again.load_state_dict(pipe.state_dict())
    state = torch.get_rng_state()
    y = pipe(x)
    assert not torch.equal(pipe(x), y)
    torch.set_rng_state(state)
    assert torch.equal(again(x), y)


def test_presets():
    assert AugmentPipe.preset("bgc").strengths == AugmentPipe(**dict.fromkeys(PIPES["bgc"], 1.0)).strengths
    assert set(PIPES) == {
        "blit", "geom", "color", "filter", "noise", "cutout", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc"
    }  # fmt: skip
    assert len(PIPES["bgcfnc"]) == 15
    pipe = AugmentPipe.preset("blit", rotate90=0, xint=0.5)
    assert {name: s for name, s in pipe.strengths.items() if s} == {"xflip": 1, "xint": 0.5}


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_whole_it_computes_the_same(backend):
    pipe, x = AugmentPipe.preset("bgcfnc"), torch.rand(2, 3, 16, 12, requires_grad=True)
    compiled = torch.compile(pipe, fullgraph=True, backend=backend)
    y, expected = compiled(x, 0.6), pipe(x, 0.6)
    assert torch.allclose(y, expected, atol=1e-4)
    weights = torch.rand_like(y)
    gradients = [torch.autograd.grad(t, x, weights)[0] for t in (y, expected)]
    assert torch.allclose(*gradients, atol=1e-4)
    assert compiled(x).shape == x.shape


@pytest.mark.skipif(
    not hasattr(torch._dynamo.config, "trace_autograd_ops"), reason="this torch does not trace autograd.grad"
)
@torch._dynamo.config.patch(trace_autograd_ops=True)
def test_a_gradient_penalty_through_the_pipe_compiles_whole():
    pipe, weight = AugmentPipe.preset("bgc"), torch.rand(4, 3, 3, 3, requires_grad=True)

    def penalty(real: torch.Tensor) -> torch.Tensor:
        real = real.detach().requires_grad_()
        logits = torch.nn.functional.conv2d(pipe(real, 0.6), weight).square().sum()
        (gradient,) = torch.autograd.grad(logits, real, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), weight)[0]

    x = torch.rand(2, 3, 12, 12)
    assert torch.allclose(torch.compile(penalty, fullgraph=True, backend="aot_eager")(x), penalty(x), rtol=1e-4)


def test_nothing_waits_for_the_device():
    """Fake tensors have no values: a read of one, or a shape that depends on one, raises."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        pipe = AugmentPipe.preset("bgcfnc")
        x = torch.rand(2, 3, 16, 12, requires_grad=True)
        (gradient,) = torch.autograd.grad(pipe(x).square().sum(), x, create_graph=True)
        assert torch.autograd.grad(gradient.sum(), x)[0].shape == x.shape


def noise_of(noise: object, percentile: float | None = None) -> None:
    AugmentPipe(noise=1)(torch.zeros(2, 3, 8, 8), percentile, noise=noise)


def uniforms_of(uniforms: object, percentile: float | None = None) -> None:
    AugmentPipe()(torch.zeros(2, 3, 8, 8), percentile, uniforms)


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, "unexpected keyword argument 'flip'", lambda: AugmentPipe(flip=1)),
        (TypeError, "xflip must be a number; got str", lambda: AugmentPipe(xflip="1")),
        (ValueError, "xflip must be >= 0; got -1", lambda: AugmentPipe(xflip=-1)),
        (ValueError, "scale must be finite", lambda: AugmentPipe(scale=math.inf)),
        (ValueError, "noise_std must be >= 0", lambda: AugmentPipe(noise_std=-0.1)),
        (ValueError, "imgfilter_bands takes 4 numbers", lambda: AugmentPipe(imgfilter_bands=[1, 1])),
        (TypeError, "imgfilter_bands must be a sequence", lambda: AugmentPipe(imgfilter_bands=1)),
        (ValueError, "a preset is one of blit, .*; got 'bcg'", lambda: AugmentPipe.preset("bcg")),
        (ValueError, "one of 1, 3, 4 channels", lambda: AugmentPipe(xflip=1)(torch.zeros(1, 2, 8, 8))),
        (ValueError, "at least 6 pixels", lambda: AugmentPipe(xflip=1)(torch.zeros(1, 3, 5, 8))),
        (ValueError, "must have 4 dimensions", lambda: AugmentPipe(xflip=1)(torch.zeros(3, 8, 8))),
        (TypeError, "must have one of the dtypes", lambda: AugmentPipe(xflip=1)(torch.zeros(1, 3, 8, 8).byte())),
        (ValueError, "on the device cpu of p", lambda: AugmentPipe(xflip=1)(torch.zeros(1, 3, 8, 8, device="meta"))),
        (ValueError, r"debug_percentile must be in \[0, 1\]", lambda: AugmentPipe()(torch.zeros(1, 3, 8, 8), 1.5)),
        (ValueError, "debug_percentile must be >= 0", lambda: AugmentPipe()(torch.zeros(1, 3, 8, 8), -0.5)),
        (TypeError, "debug_percentile must be a number", lambda: AugmentPipe()(torch.zeros(1, 3, 8, 8), "half")),
        (ValueError, r"uniforms must have shape \[2, 41\]; got \[1, 41\]", lambda: uniforms_of(torch.zeros(1, 41))),
        (TypeError, "uniforms must be a torch.Tensor; got list", lambda: uniforms_of([0.5])),
        (ValueError, "debug_percentile or uniforms, not both", lambda: uniforms_of(torch.zeros(2, 41), 0.5)),
        (ValueError, r"noise must have shape \[2, 3, 8, 8\]; got", lambda: noise_of(torch.zeros(2, 3, 8, 1))),
        (TypeError, "noise must be a torch.Tensor; got int", lambda: noise_of(3)),
        (ValueError, "debug_percentile or noise, not both", lambda: noise_of(torch.zeros(2, 3, 8, 8), 0.5)),
    ],
)  # fmt: skip
def test_wrong_input_is_told_in_one_line(error, match, call):
    raises_in_one_line(error, match, call)
