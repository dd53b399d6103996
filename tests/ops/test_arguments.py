"""What the ops and layers take for a number, and what they say of arguments that are absurd."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import imgops
from imgops import nn
from imgops.models.encoders.vgg import VGG
from imgops.models.stylegan2 import Discriminator, Generator

X, STYLES, TAPS = torch.randn(2, 4, 8, 8), torch.randn(2, 4), torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
WEIGHT = torch.randn(4, 4, 3, 3)
#: calls that take integers, each as it is made with a kind of them
CALLS = {
    "dim": lambda i: imgops.bias_act(X, torch.ones(4), dim=i(1)),
    "factors": lambda i: imgops.upfirdn2d(X, TAPS, up=i(2), down=(i(2), i(1)), padding=[i(1)] * 4),
    "padding": lambda i: imgops.upfirdn2d(X, TAPS, padding=i(2)),
    "filtered_lrelu": lambda i: imgops.filtered_lrelu(X, TAPS, TAPS, up=i(2), down=i(2), padding=i(3)),
    "modulated_conv2d": lambda i: imgops.modulated_conv2d(X, WEIGHT, STYLES, up=i(2), padding=(i(1), i(1))),
    "conv2d": lambda i: imgops.conv2d(X, WEIGHT, stride=i(2), padding=(i(1), i(2)), dilation=i(1), groups=i(1)),
    "conv_transpose2d": lambda i: imgops.conv_transpose2d(
        X, WEIGHT, stride=i(2), padding=(i(1), i(2)), output_padding=i(1), dilation=i(1), groups=i(1)
    ),
    "fused": lambda i: nn.FusedConv2d(i(4), i(3), i(3), i(2), i(1))(X).detach() * 0,
    "fused transposed": lambda i: nn.FusedConvTranspose2d(i(4), i(3), i(3), i(2), i(1), i(1))(X).detach() * 0,
    "group": lambda i: nn.minibatch_stddev(X, i(2), i(2)),
    "resample": lambda i: nn.FIRUpsample2d(i(2))(X),
    "conv": lambda i: nn.EqualizedConv2d(i(4), i(3), i(3), down=i(2))(X).detach() * 0,
    "synthesis": lambda i: nn.SynthesisLayer(i(4), i(3), i(4), i(16), up=i(2))(X, STYLES).detach() * 0,
    "vgg": lambda i: VGG([i(1), i(1)], widths=[i(3), i(4)])(X[:, :3]).detach() * 0,
    "generator": lambda i: Generator(i(4), i(0), i(4), i(8), i(3), i(2), i(32), i(4))(STYLES, None, 0.5, i(1)) * 0,
    "discriminator": lambda i: Discriminator(i(0), i(8), i(4), i(32), i(4), mapping_layers=i(1))(X).detach() * 0,
}  # fmt: skip


@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor], ids=["int64", "uint8", "tensor"])
@pytest.mark.parametrize("name", CALLS)
def test_whatever_is_an_integer_is_taken_for_one(name, kind):
    torch.testing.assert_close(CALLS[name](kind), CALLS[name](int))


@pytest.mark.parametrize("kind", [float, bool, np.float32, np.bool_, str, lambda n: torch.tensor(float(n))])
@pytest.mark.parametrize("name", CALLS)
def test_nothing_else_is(name, kind):
    with pytest.raises((TypeError, ValueError), match=r"an int|takes no"):
        CALLS[name](kind)


def test_an_array_is_a_sequence_of_integers():
    pads = np.array([1, 2, 3, -1])
    assert torch.equal(imgops.upfirdn2d(X, TAPS, padding=pads), imgops.upfirdn2d(X, TAPS, padding=pads.tolist()))


def test_numbers_of_numpy_are_numbers():
    assert torch.equal(
        imgops.bias_act(X, act="lrelu", gain=np.float32(0.5), clamp=np.float16(1)),
        imgops.bias_act(X, act="lrelu", gain=0.5, clamp=1),
    )
    with pytest.raises(TypeError, match="gain must be a number; got bool"):
        imgops.bias_act(X, gain=np.bool_(True))
    with pytest.raises(ValueError, match="gain must fit a float32; got an int of 401 digits"):
        imgops.bias_act(X, gain=10**400)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: imgops.setup_filter([1, 2, 3, 4, 4, 3, 2, 1], gain=-1), "gain must be >= 0 with a separable filter"),
        (lambda: imgops.setup_filter([1, 2, 1], separable=True, gain=-0.5), "setup_filter with separable=False"),
        (lambda: imgops.setup_filter([1, 2], gain=float("inf")), "gain must be finite"),
        (lambda: imgops.setup_filter([1, float("nan"), 1]), "taps must be finite"),
        (lambda: imgops.setup_filter([[1, float("inf")]], normalize=False), "taps must be finite"),
        (lambda: imgops.setup_filter([1e39, 1]), "taps must be finite"),
        (lambda: imgops.setup_filter([1, 2], gain=1e39), "gain must fit a float32; got 1e\\+39"),
        (lambda: imgops.setup_filter([1, -1]), "taps that sum to 0 cannot be normalized"),
        # a sum that only rounding keeps from 0
        (lambda: imgops.setup_filter([0.1, 0.2, -0.3]), "taps that sum to 0 cannot be normalized"),
        (lambda: imgops.upfirdn2d(X, torch.ones(3), gain=-1), "gain must be >= 0 with a separable filter"),
    ],
)
def test_filters_that_cannot_be(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_negative_gain_of_a_filter_that_is_not_separable():
    f = imgops.setup_filter([1, 3, 3, 1], gain=-2)
    assert f.dtype == torch.float32
    torch.testing.assert_close(f, -2 * imgops.setup_filter([1, 3, 3, 1]))
    torch.testing.assert_close(imgops.upfirdn2d(X, f), imgops.upfirdn2d(X, -f, gain=-1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: imgops.upfirdn2d(X, None, up=10**9), "a tensor of 2 x 4 x 8000000000 x 8000000000 is larger than any"),
        (lambda: imgops.upfirdn2d(X, None, up=10**19), "up must be within 1152921504606846976 of 0"),
        (lambda: imgops.upfirdn2d(X, None, padding=[0, 0, -(2**61), 0]), "padding must be within 1152921504606846976"),
        (lambda: imgops.upfirdn2d(X, None, up=2**59, down=2**60), "up .* makes more than"),
        (lambda: imgops.filtered_lrelu(X, None, None, up=2**59, padding=-(2**59)), "up .* makes more than"),
        (lambda: imgops.filtered_lrelu(X, None, None, up=10**9), "imgops.filtered_lrelu: a tensor of"),
        (lambda: imgops.modulated_conv2d(X, WEIGHT, STYLES, padding=10**9), "imgops.modulated_conv2d: a tensor of"),
        (lambda: imgops.conv2d(X, WEIGHT, padding=10**10), "imgops.conv2d: a tensor of"),
        (lambda: imgops.conv_transpose2d(X, WEIGHT, stride=10**10), "imgops.conv_transpose2d: a tensor of"),
        (
            lambda: imgops.modulated_conv2d(X, WEIGHT, STYLES, down=10**9, padding=10**9),
            "imgops.modulated_conv2d: a tensor of",
        ),
    ],
)
def test_sizes_beyond_any_memory_are_refused_first(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("impl", ["reference", None])
@pytest.mark.parametrize("call", [
    lambda impl: imgops.bias_act(X, clamp=1e39, impl=impl),
    lambda impl: imgops.bias_act(X, act="lrelu", alpha=-1e300, impl=impl),
    lambda impl: imgops.filtered_lrelu(X, slope=1e39, impl=impl),
    lambda impl: imgops.upfirdn2d(X, TAPS, gain=1e300, impl=impl),
    lambda impl: imgops.modulated_conv2d(X, torch.ones(2, X.shape[1], 1, 1), X[:, :, 0, 0], gain=1e39, impl=impl),
    lambda impl: imgops.adain(X, X, eps=1e300, impl=impl),
])  # fmt: skip
def test_a_number_that_the_sums_cannot_hold(call, impl):
    with pytest.raises(ValueError, match="must fit a float32"):
        call(impl)


@pytest.mark.parametrize("flag", ["normalize", "flip_filter", "separable"])
def test_the_flags_of_a_filter_are_booleans(flag):
    taps = [1, 3, 2]
    assert torch.equal(imgops.setup_filter(taps, **{flag: np.True_}), imgops.setup_filter(taps, **{flag: True}))
    for value in (2, "False"):
        with pytest.raises(TypeError, match=f"{flag} must be a bool"):
            imgops.setup_filter(taps, **{flag: value})


@pytest.mark.parametrize("act", [["lrelu"], {}, None, 3])
def test_an_activation_is_named(act):
    with pytest.raises(ValueError, match="act must be one of"):
        imgops.bias_act(X, act=act)


@pytest.mark.parametrize("function", [imgops.nn.upsample2d, imgops.nn.downsample2d])
def test_resampling_names_what_is_wrong(function):
    for factor in ("2", 2.0, None):
        with pytest.raises(TypeError, match=r"(up|down) must be an int"):
            function(X, TAPS, factor)
    with pytest.raises(TypeError, match=r"f must be a torch.Tensor or None"):
        function(X, [1, 3, 3, 1])
    with pytest.raises(ValueError, match=r"f must have 1 or 2 dimensions"):
        function(X, torch.tensor(1.0))


def test_sizes_of_eight_bits_do_not_overflow():
    """NumPy's integers of few bits wrap around in a product."""
    c, k, layers = np.int8(100), np.int8(3), imgops.nn
    assert layers.EqualizedConv2d(c, k, k).weight_gain == layers.EqualizedConv2d(100, 3, 3).weight_gain
    assert layers.ModulatedDisplacement(c, k).weight_gain == layers.ModulatedDisplacement(100, 3).weight_gain
    assert layers.AdaptiveInstanceNorm2d(c, k).affine.weight.shape == (200, 3)
    assert layers.EqualizedLinear(c, k).weight_gain == layers.EqualizedLinear(100, 3).weight_gain


def test_a_size_beyond_any_memory_is_told():
    with pytest.raises(ValueError, match=r"in_features must be <= \d+; got 10+"):
        imgops.nn.EqualizedLinear(10**30, 2)


@pytest.mark.parametrize("factors", [{}, {"up": 2}, {"down": 2}])
@pytest.mark.parametrize("size", [(0, 4), (4, 0)])
@pytest.mark.parametrize("taps", [1, 3])
def test_an_image_without_pixels_whose_padding_has_some(factors, size, taps):
    results = []
    for impl in ("reference", None):
        x, weight, styles = (torch.ones(s, requires_grad=True) for s in ((2, 3, *size), (4, 3, taps, taps), (2, 3)))
        y = imgops.modulated_conv2d(x, weight, styles, padding=3, **factors, impl=impl)
        results.append([y, *torch.autograd.grad(y.sum(), (x, weight, styles))])
    torch.testing.assert_close(results[1], results[0])


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (lambda t: t.to_sparse(), "torch.sparse_coo"),
        (lambda t: t.to_mkldnn(), "torch._mkldnn"),
        (lambda t: torch.nested.nested_tensor([t, t]), "a nested tensor"),
    ],
)
@pytest.mark.parametrize("impl", ["reference", None])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("x", lambda t, **k: imgops.bias_act(t, **k)),
        ("x", lambda t, **k: imgops.upfirdn2d(t, None, **k)),
        ("x", lambda t, **k: imgops.modulated_conv2d(t, WEIGHT, STYLES, **k)),
        ("weight", lambda t, **k: imgops.modulated_conv2d(X, t, STYLES, **k)),
        ("x", lambda t, **k: imgops.conv2d(t, WEIGHT, **k)),
        ("weight", lambda t, **k: imgops.conv2d(X, t, **k)),
        ("x", lambda t, **k: imgops.conv_transpose2d(t, WEIGHT, **k)),
        ("weight", lambda t, **k: imgops.conv_transpose2d(X, t, **k)),
        ("x", lambda t, **k: imgops.gram_matrix(t, **k)),
        ("style", lambda t, **k: imgops.adain(X, t, **k)),
        ("grid", lambda t, **k: imgops.grid_sample(X, t, **k)),
        ("fu", lambda t, **k: imgops.filtered_lrelu(X, t, None, **k)),
    ],
)
@pytest.mark.filterwarnings("ignore:.*nested tensors")
def test_tensors_without_strides_are_refused(name, call, made, kind, impl):
    with pytest.raises(TypeError, match=f"{name} must be a dense tensor, .* got {kind}"):
        call(made(torch.randn(2, 4, 4, 4)), impl=impl)
