"""The layers of imgops.nn against the formulas of their papers, and their gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from golden import relative_error

import imgops
from imgops.nn import (
    EqualizedConv2d,
    EqualizedLinear,
    FilteredLReLU,
    GramMatrix,
    MinibatchStdDev,
    StyleLoss,
    SynthesisLayer,
    ToRGB,
    downsample2d,
    minibatch_stddev,
    pixel_norm,
    upsample2d,
)

BOX = torch.full([2, 2], 0.25)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("act", ["linear", "lrelu"])
@pytest.mark.parametrize("lr_multiplier", [1.0, 0.01])
def test_linear(bias, act, lr_multiplier):
    layer = EqualizedLinear(5, 4, bias=bias, act=act, lr_multiplier=lr_multiplier, bias_init=0.5).double()
    x = torch.randn(3, 5, dtype=torch.float64)
    y = F.linear(x, layer.weight * lr_multiplier / 5**0.5)
    y = y + 0.5 if bias else y
    y = F.leaky_relu(y, 0.2) * 2**0.5 if act == "lrelu" else y
    assert relative_error(layer(x), y) < 1e-7
    assert set(layer.state_dict()) == ({"weight", "bias"} if bias else {"weight"})


def test_initial_layers_keep_the_variance():
    x = torch.randn(4, 512, 8, 8)
    conv = EqualizedConv2d(512, 256, 3)(x)[:, :, 1:-1, 1:-1]
    assert conv.var().item() == pytest.approx(1, abs=0.1)
    assert EqualizedLinear(512, 256, lr_multiplier=0.01)(x[:, :, 0, 0]).var().item() == pytest.approx(1, abs=0.2)
    layer = SynthesisLayer(512, 256, 16, 8, act="linear")
    y = layer(torch.randn(4, 512, 8, 8), torch.randn(4, 16))
    assert y[:, :, 1:-1, 1:-1].var().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_conv_is_a_scaled_conv2d(kernel_size):
    layer = EqualizedConv2d(4, 6, kernel_size, act="lrelu", conv_clamp=1.0).double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 4, 7, 5, dtype=torch.float64)
    weight = layer.weight / (4 * kernel_size**2) ** 0.5
    y = F.leaky_relu(F.conv2d(x, weight, layer.bias, padding=kernel_size // 2), 0.2) * 2**0.5
    assert y.abs().max() > 1
    assert relative_error(layer(x), y.clamp(-1, 1)) < 1e-7
    # the gain applies to the layer's output, clamp and all
    assert relative_error(layer(x, gain=0.5), 0.5 * y.clamp(-1, 1)) < 1e-7


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_conv_resamples(kernel_size):
    x = torch.randn(2, 4, 8, 6, dtype=torch.float64)
    up = EqualizedConv2d(4, 6, kernel_size, up=2, bias=False).double()
    down = EqualizedConv2d(4, 6, kernel_size, down=2, bias=False).double()
    pad = kernel_size // 2
    gain = up.weight_gain
    expected = F.conv2d(upsample2d(x, up.resample_filter), up.weight.flip([2, 3]) * gain, padding=pad)
    assert up(x).shape == (2, 6, 16, 12)
    assert relative_error(up(x)[:, :, 2:-2, 2:-2], expected[:, :, 2:-2, 2:-2]) < 1e-7
    filtered = imgops.upfirdn2d(x, down.resample_filter, padding=(2 + pad - 1, 1 + pad))
    expected = F.conv2d(filtered, down.weight * gain)[:, :, ::2, ::2]
    assert down(x).shape == (2, 6, 4, 3)
    assert relative_error(down(x)[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1]) < 1e-7


def test_resampling_keeps_constants_and_inverts_on_them():
    x = torch.full([1, 2, 8, 8], 3.0)
    f = imgops.setup_filter([1, 3, 3, 1])
    torch.testing.assert_close(upsample2d(x, f)[:, :, 2:-2, 2:-2], torch.full([1, 2, 12, 12], 3.0))
    torch.testing.assert_close(downsample2d(x, f)[:, :, 1:-1, 1:-1], torch.full([1, 2, 2, 2], 3.0))
    y = torch.randn(1, 2, 8, 8)
    torch.testing.assert_close(upsample2d(y, BOX), F.interpolate(y, scale_factor=2, mode="nearest"))
    torch.testing.assert_close(downsample2d(y, BOX), F.avg_pool2d(y, 2))


def test_pixel_norm_gives_unit_mean_square():
    x = 7 * torch.randn(5, 64)
    torch.testing.assert_close(pixel_norm(x).square().mean(1), torch.ones(5))
    assert not pixel_norm(torch.zeros(2, 3)).any()


@pytest.mark.parametrize(("group_size", "num_channels"), [(4, 1), (2, 2), (None, 1), (16, 1)])
def test_minibatch_deviation(group_size, num_channels):
    x = torch.randn(8, 6, 3, 2, dtype=torch.float64)
    y = MinibatchStdDev(group_size, num_channels)(x)
    assert y.shape == (8, 6 + num_channels, 3, 2)
    assert torch.equal(y[:, :6], x)
    groups = 8 // min(group_size or 8, 8)
    share = 6 // num_channels
    for i in range(8):
        members = x[i % groups :: groups]
        deviation = (members.var(0, correction=0) + 1e-8).sqrt()
        for k in range(num_channels):
            expected = deviation[k * share : (k + 1) * share].mean()
            torch.testing.assert_close(y[i, 6 + k], expected.expand(3, 2))


def test_minibatch_deviation_of_one_sample_has_a_gradient():
    x = torch.randn(1, 2, 2, 2, requires_grad=True)
    MinibatchStdDev()(x).sum().backward()
    assert x.grad.isfinite().all()


def test_a_subclass_initializes_as_it_likes():
    class Zero(imgops.nn.EqualizedConv2d):
        def reset_parameters(self):
            torch.nn.init.zeros_(self.weight)

    assert not Zero(2, 3, 3).weight.any()


def test_to_rgb_is_a_modulated_pointwise_convolution():
    layer = ToRGB(6, 3, 5).double()
    torch.nn.init.normal_(layer.bias)
    x, w = torch.randn(2, 6, 4, 4, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    styles = w @ layer.affine.weight.t() / 5**0.5 + 1
    weight = layer.weight[None, :, :, 0, 0] * styles[:, None] / 6**0.5
    expected = torch.einsum("noi,nihw->nohw", weight, x) + layer.bias[:, None, None]
    assert relative_error(layer(x, w), expected) < 1e-9


def test_noise_is_shared_by_channels_and_starts_at_zero():
    layer = SynthesisLayer(4, 6, 5, 8, act="linear")
    x, w = torch.randn(2, 4, 8, 8), torch.randn(2, 5)
    quiet = layer(x, w, "none")
    torch.testing.assert_close(layer(x, w, "random"), quiet)
    torch.nn.init.constant_(layer.noise_strength, 2.0)
    torch.testing.assert_close(layer(x, w, "const") - quiet, (2 * layer.noise_const).expand(2, 6, 8, 8))
    noise = layer(x, w, "random") - quiet
    torch.testing.assert_close(noise, noise[:, :1].expand_as(noise))
    assert noise.std().item() == pytest.approx(2, abs=0.6)


@pytest.mark.parametrize(
    "layer",
    [
        EqualizedLinear(3, 2, act="lrelu"),
        EqualizedConv2d(2, 3, 3, act="lrelu", down=2),
        EqualizedConv2d(2, 3, 3, act="softplus", up=2),
        MinibatchStdDev(2),
    ],
    ids=["linear", "conv-down", "conv-up", "minibatch-deviation"],
)
def test_second_order_gradients(layer):
    shape = [4, 3] if isinstance(layer, EqualizedLinear) else [4, 2, 4, 4]
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    layer = layer.double()
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)


@pytest.mark.parametrize("up", [1, 2])
def test_second_order_gradients_of_a_synthesis_layer(up):
    layer = SynthesisLayer(2, 3, 4, 4 * up, up=up).double()
    torch.nn.init.constant_(layer.noise_strength, 0.3)
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: layer(x, w, "const"), (x, w))
    assert torch.autograd.gradgradcheck(lambda x, w: layer(x, w, "const"), (x, w))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: EqualizedLinear(0, 2), ValueError, "EqualizedLinear: in_features must be >= 1; got 0"),
        (lambda: EqualizedLinear(2, 2.0), TypeError, "EqualizedLinear: out_features must be an int; got float"),
        (lambda: EqualizedLinear(2, 2, act="other"), ValueError, "EqualizedLinear: act must be one of linear, relu"),
        (lambda: EqualizedLinear(2, 2, lr_multiplier=0), ValueError, "EqualizedLinear: lr_multiplier must be > 0"),
        (lambda: EqualizedConv2d(2, 2, 2), ValueError, "EqualizedConv2d: kernel_size must be odd; got 2"),
        (lambda: EqualizedConv2d(2, 2, 3, up=2, down=2), ValueError, "EqualizedConv2d: up and down cannot both"),
        (
            lambda: SynthesisLayer(2, 2, 2, 8, kernel_size=4),
            ValueError,
            "SynthesisLayer: kernel_size must be odd; got 4",
        ),
        (lambda: ToRGB(2, 0, 2), ValueError, "ToRGB: out_channels must be >= 1; got 0"),
        (lambda: MinibatchStdDev(0), ValueError, "MinibatchStdDev: group_size must be >= 1; got 0"),
        (lambda: MinibatchStdDev(1, 2)(torch.ones(2, 3, 1, 1)), ValueError, "num_channels 2 must divide"),
    ],
)
def test_bad_arguments(build, error, message):
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize(("up", "down"), [(2, 2), (4, 2), (1, 2), (3, 1), (1, 1)])
@pytest.mark.parametrize(("up_taps", "down_taps"), [(6, 6), (12, 6), (5, 8), (1, 3)])
def test_filtered_lrelu_stays_centered(up, down, up_taps, down_taps):
    """Its size is that of the re-sampled image, and what lies in the middle stays there, to half a pixel."""
    layer = FilteredLReLU(1, [1.0] * up_taps, [1.0] * down_taps, up=up, down=down, slope=1.0, gain=1.0)
    x = torch.zeros(1, 1, 32, 32)
    x[..., 12:20, 12:20] = 1
    y = layer(x)[0, 0]
    size = 32 * up // down
    assert y.shape == (size, size)
    middle = (y.sum(0) @ torch.arange(size).float()) / y.sum() + 0.5
    assert abs(middle.item() - size / 2) <= 0.51 * max(1.0, up / down)


def test_style_loss_is_zero_for_its_style():
    style = torch.randn(1, 4, 6, 5)
    assert StyleLoss(style)(style).item() < 1e-12
    torch.testing.assert_close(GramMatrix("hw")(style), torch.einsum("nihw,njhw->nij", style, style) / 30)


def test_norms_in_half_precision():
    assert not pixel_norm(torch.zeros(2, 3, dtype=torch.float16)).any()
    torch.testing.assert_close(pixel_norm(torch.full((1, 4), 300.0, dtype=torch.float16)), torch.ones(1, 4).half())
    x = torch.ones(4, 2, 2, 2, dtype=torch.float16, requires_grad=True)
    minibatch_stddev(x).float().sum().backward()
    assert x.grad.isfinite().all()
    for arguments in ((x, 0), (x, 4, 0), (x[0],)):
        with pytest.raises(ValueError, match="minibatch_stddev: "):
            minibatch_stddev(*arguments)
