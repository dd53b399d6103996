"""StyleGAN3 against the recorded networks, its filters against SciPy's, and its pictures as they move and turn."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from golden import Case, cases, relative_error

import imgops
from imgops import _backend
from imgops.metrics import equivariance
from imgops.models.stylegan3 import Generator, lowpass_filter
from imgops.models.stylegan3.generator import bands

CPU = _backend.load()["cpu", "cpu"]
BACKENDS = ["reference", pytest.param("cpu", marks=pytest.mark.skipif(not CPU.available, reason=CPU.reason))]
SMALL = {"channel_base": 512, "channel_max": 16, "num_layers": 6, "margin_size": 6}


def generator(config: str = "t", c_dim: int = 0, resolution: Any = 32, channels: int = 3, **kwargs: Any) -> Generator:
    return Generator(8, c_dim, 12, resolution, channels, config, **{**SMALL, **kwargs})


def recorded(case: Case) -> Generator:
    names = inspect.signature(Generator).parameters
    network = Generator(**{k: v for k, v in case.params.items() if v is not None and k in names})
    state = {k.removeprefix("state/"): v for k, v in case.arrays.items() if k.startswith("state/")}
    network.load_state_dict(state)
    return network


@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.parametrize("case", list(cases("stylegan3_generator")))
def test_recorded_generator(case, impl):
    a, G = case.arrays, recorded(case)
    with imgops.use_impl(impl):
        w = G.mapping(a["z"])
        assert relative_error(w, a["w"]) < 1e-4
        w = a["w"].clone().requires_grad_()
        img = G.synthesis(w)
        assert relative_error(img, a["img"]) < 1e-4
        (gradient,) = torch.autograd.grad(img.square().sum(), w)
        assert relative_error(gradient, a["w_grad"]) < 1e-4
        G.synthesis.input.transform.copy_(a["transform"])
        assert relative_error(G.synthesis(w), a["img_transformed"]) < 1e-4


@pytest.mark.parametrize("case", list(cases("stylegan3_generator")))
def test_filters_are_made_as_the_recorded_ones(case):
    G = Generator(**{k: v for k, v in case.params.items() if k in inspect.signature(Generator).parameters})
    filters = {k: v for k, v in G.state_dict().items() if k.endswith("_filter")}
    assert filters
    for key, f in filters.items():
        assert relative_error(f, case.arrays[f"state/{key}"]) < 1e-6, key


def test_a_filter_passes_what_is_below_its_cutoff_and_nothing_above_its_band():
    f = lowpass_filter(24, 4.0, 4.0, 32.0)
    assert f.dtype == torch.float32
    assert float(f.sum()) == pytest.approx(1, abs=1e-6)
    gains = torch.fft.rfft(f.double(), 32 * 64).abs()
    of = {frequency: float(gains[frequency * 64]) for frequency in (1, 2, 4, 6, 8, 16)}
    assert of[1] == pytest.approx(1, abs=0.02)
    assert of[4] == pytest.approx(0.5, abs=0.02)
    assert max(of[8], of[16]) < 0.02


def test_a_radial_filter_is_the_same_in_all_directions():
    f = lowpass_filter(24, 4.0, 4.0, 32.0, radial=True).double()
    assert float(f.sum()) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(f, f.flip(0))
    torch.testing.assert_close(f, f.t())
    gains = torch.fft.rfft2(f, (1280, 1280)).abs()
    straight, diagonal = float(gains[0, 4 * 40]), float(gains[113, 113])
    assert straight == pytest.approx(diagonal, abs=0.02)
    separable = lowpass_filter(24, 4.0, 4.0, 32.0).double()
    gains = torch.fft.rfft2(torch.outer(separable, separable), (1280, 1280)).abs()
    assert abs(float(gains[0, 4 * 40]) - float(gains[113, 113])) > 0.1


def test_wrong_filters_are_told():
    with pytest.raises(ValueError, match="lowpass_filter: cutoff must be > 0; got 0"):
        lowpass_filter(12, 0, 1, 16)
    with pytest.raises(TypeError, match="taps must be an int"):
        lowpass_filter(1.5, 1, 1, 16)
    assert lowpass_filter(1, 1, 1, 16) is None


def test_bands_rise_to_what_the_pixels_can_show():
    found = bands(256, 14, 2, 2, 2**2.1, 2**0.3)
    rates = [16, 16, 16, 32, 32, 64, 64, 128, 128, 128, 256, 256, 256, 256, 256]
    assert [band.sampling_rate for band in found] == rates
    assert found[0].cutoff == 2
    assert [band.cutoff for band in found[-3:]] == [128] * 3
    assert all(band.half_width > 0 for band in found)


@pytest.mark.parametrize("config", ["t", "r"])
@pytest.mark.parametrize(("resolution", "channels"), [((16, 32), 1), ((48, 32), 4), (24, 3)])
def test_any_shape_and_number_of_channels(config, resolution, channels):
    G = generator(config, 3, resolution, channels)
    images = G(torch.randn(2, 8), torch.eye(2, 3))
    height, width = resolution if isinstance(resolution, tuple) else (resolution, resolution)
    assert images.shape == (2, channels, height, width)
    images.square().mean().backward()
    unused = {name for name, p in G.named_parameters() if p.grad is None}
    assert not unused


def test_wrong_arguments_are_told():
    for name, value, message in [
        ("config", "x", "config must be one of t, r; got 'x'"),
        ("num_critical", 6, "num_critical must be <= 5; got 6"),
        ("conv_kernel", 2, "conv_kernel must be odd; got 2"),
        ("half_dtype", torch.float32, "half_dtype must be"),
        ("first_stopband", 1.0, "first_cutoff must be above 0, and below first_stopband"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            generator(**{name: value})
    with pytest.raises(ValueError, match="img_resolution must be divisible by 2"):
        generator(resolution=(31, 32))
    with pytest.raises(ValueError, match="w must have shape"):
        generator().synthesis(torch.zeros(2, 3, 12))


def test_pictures_are_moved_by_the_transform():
    torch.manual_seed(0)
    G = generator().eval()
    assert equivariance(G, "eqt_int", samples=8) > 40


def test_running_means_move_only_in_training_and_when_asked():
    G, z = generator(magnitude_ema_beta=0.5), torch.randn(4, 8)
    before = copy.deepcopy(G.state_dict())
    G(z)
    G.eval()(z, update_emas=True)
    assert all(torch.equal(value, before[key]) for key, value in G.state_dict().items())
    seen: list[torch.Tensor] = []
    G.synthesis(G.mapping(z), magnitudes=seen)
    G.train()(z, update_emas=True)
    for name, magnitude in zip(G.synthesis.layer_names, seen, strict=True):
        torch.testing.assert_close(G.synthesis.get_buffer(f"{name}.magnitude_ema"), 0.5 + 0.5 * magnitude)
    assert G.mapping.w_avg.any()


def test_an_input_is_divided_by_the_root_of_its_running_square():
    G, w = generator().eval(), torch.randn(2, 8, 12)
    layer = G.synthesis.get_submodule(G.synthesis.layer_names[2])
    x = torch.randn(2, layer.weight.shape[1], *layer.in_size)
    expected = layer(x, w[:, 0])
    layer.magnitude_ema.fill_(9.0)
    torch.testing.assert_close(layer(3 * x, w[:, 0]), expected)


@pytest.mark.parametrize(("half_dtype", "tolerance"), [(torch.bfloat16, 5e-2), (torch.float16, 0)])
@pytest.mark.parametrize("config", ["t", "r"])
def test_half_precision_stays_close(config, half_dtype, tolerance):
    """A CPU, which emulates float16, takes float32 in its place."""
    z = torch.randn(4, 8)
    full = generator(config, num_fp16_res=0)
    half = generator(config, num_fp16_res=1, half_dtype=half_dtype, half_channels_last=True)
    half.load_state_dict(full.state_dict())
    images, narrow = full(z), half(z)
    assert narrow.dtype == torch.float32
    assert relative_error(narrow, images) <= tolerance
    assert tolerance == 0 or not torch.equal(narrow, images)


def test_initialized_after_the_meta_device():
    z = torch.randn(2, 8)
    G = generator("r").eval()
    with torch.device("meta"):
        empty = generator("r")
    empty = empty.to_empty(device="cpu")
    for module in empty.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert empty(z).isfinite().all()
    for key, value in empty.state_dict().items():
        if key.endswith(("_filter", "magnitude_ema", "transform", "w_avg")):
            assert torch.equal(value, G.state_dict()[key]), key


@pytest.mark.skipif(not CPU.available, reason=CPU.reason)
@pytest.mark.parametrize("config", ["t", "r"])
def test_backends_agree_on_second_order_gradients_in_float64(config):
    G, z = generator(config).double(), torch.randn(2, 8, dtype=torch.float64)
    noise, found = torch.randn(2, 3, 32, 32, dtype=torch.float64), {}
    for impl in ("reference", "cpu"):
        with imgops.use_impl(impl):
            w = G.mapping(z)
            (slope,) = torch.autograd.grad((G.synthesis(w) * noise).sum(), w, create_graph=True)
            found[impl] = torch.autograd.grad(slope.square().sum(), list(G.parameters()), materialize_grads=True)
    for actual, expected in zip(found["cpu"], found["reference"], strict=True):
        assert relative_error(actual, expected) < 1e-8 or float((actual - expected).abs().max()) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.parametrize("config", ["t", "r"])
def test_compiles_to_one_graph(config, impl):
    G = generator(config)
    with imgops.use_impl(impl):
        w = G.mapping(torch.randn(2, 8)).detach()
        expected = G.synthesis(w)
        compiled = torch.compile(G.synthesis, fullgraph=True, backend="aot_eager")(w)
        torch.testing.assert_close(compiled, expected)
