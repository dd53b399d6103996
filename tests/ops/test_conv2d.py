"""conv2d against PyTorch's convolution and activations, and what it refuses; the generic tests have the rest."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import imgops
from imgops import _backend
from imgops._epilogue import Epilogue
from imgops.ops.conv2d import padded_conv2d

CPU = _backend.load()["cpu", "cpu"]
BACKENDS = ["reference", pytest.param("cpu", marks=pytest.mark.skipif(not CPU.available, reason=CPU.reason))]
RESIDUAL = torch.ones(1, 6, 6, 5)
PLAIN = {
    "relu": (F.relu, {"act": "relu", "gain": 1.0}),
    "relu6": (F.relu6, {"act": "relu", "gain": 1.0, "clamp": 6.0}),
    "silu": (F.silu, {"act": "swish", "gain": 1.0}),
    "hardswish": (lambda x: 2 * F.hardswish(x), {"act": "hardswish", "gain": 2.0}),
    "leaky": (lambda x: F.leaky_relu(x, 0.1), {"act": "lrelu", "alpha": 0.1, "gain": 1.0}),
    "none": (lambda x: x, {}),
}


@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize(
    "how",
    [
        {"padding": 1},
        {"padding": 1, "stride": 2},
        {"padding": (0, 2), "stride": (1, 2)},
        {"padding": 2, "dilation": (2, 1)},
        {"padding": 1, "padding_mode": "reflect"},
        {"padding": (1, 2), "padding_mode": "replicate"},
        {"padding": 2, "padding_mode": "circular", "stride": 2},
    ],
)
def test_it_is_pytorchs_convolution_and_activation(impl, name, how):
    plain = nn.Conv2d(8, 6, 3, **how).double()
    x = torch.randn(3, 8, 17, 22, dtype=torch.float64, requires_grad=True)
    act, given = PLAIN[name]
    y = plain(x)
    residual = torch.randn_like(y).requires_grad_()
    parameters = [x, plain.weight, plain.bias, residual]
    expected = act(y + 0.5 * residual)
    found = imgops.conv2d(x, plain.weight, plain.bias, residual=residual, residual_scale=0.5, **how, **given, impl=impl)
    torch.testing.assert_close(found, expected)
    d = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(found, parameters, d), torch.autograd.grad(expected, parameters, d), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.parametrize("dims", [(None, 0), (0, None), (0, 0)], ids=str)
@pytest.mark.parametrize("act", ["linear", "relu"])
@pytest.mark.parametrize(("kernel", "size"), [(1, 6), (3, 6), (3, 20)])
def test_vmap_over_the_image_or_the_residual(impl, kernel, size, act, dims):
    x, residual = (torch.randn(3, 1, 4, size, size, dtype=torch.float64) for _ in range(2))
    weight, bias = torch.randn(4, 4, kernel, kernel, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    x, residual = (t if d == 0 else t[0] for t, d in zip((x, residual), dims, strict=True))

    def call(x, residual):
        return imgops.conv2d(x, weight, bias, residual=residual, act=act, gain=1, padding=kernel // 2, impl=impl)

    expected = F.conv2d((x if dims[0] == 0 else x[None]).flatten(0, 1), weight, bias, padding=kernel // 2)[:, None]
    expected = expected + residual
    torch.testing.assert_close(
        torch.func.vmap(call, dims)(x, residual), F.relu(expected) if act == "relu" else expected
    )


@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"groups": 3}, ValueError, "groups must divide the channels of x and weight, 4 and 6; got 3"),
        ({"groups": 2}, ValueError, r"weight must have shape \[6, 2, 3, 3\]; got \[6, 4, 3, 3\]"),
        ({"stride": 0}, ValueError, "stride must be >= 1; got 0"),
        ({"stride": (1, 2, 3)}, ValueError, "stride takes 1 or 2 ints"),
        ({"padding": "same"}, TypeError, "padding must be an int or a sequence of ints; got 'same'"),
        ({"padding": -1}, ValueError, "padding must be >= 0; got -1"),
        (
            {"dilation": 4},
            ValueError,
            r"x of 8 x 7 \(height x width\), padding 0 x 0, is smaller than the weight",
        ),
        ({"padding": 7, "padding_mode": "reflect"}, ValueError, "padding must be at most 6 by reflect of x of 8 x 7"),
        ({"padding": 8, "padding_mode": "circular"}, ValueError, "padding must be at most 7 by circular of x of 8 x 7"),
        (
            {"padding_mode": "mirror"},
            ValueError,
            "padding_mode must be one of zeros, reflect, replicate, circular;",
        ),
        ({"act": "gelu"}, ValueError, "act must be one of"),
        ({"bias": torch.ones(5)}, ValueError, r"bias must have shape \[6\]; got \[5\]"),
        ({"residual": RESIDUAL[:, :4]}, ValueError, r"residual must have shape \[1, 6, 6, 5\]; got \[1, 4, 6, 5\]"),
        ({"residual": RESIDUAL[0]}, ValueError, r"residual must have 4 dimensions; got shape \[6, 6, 5\]"),
        ({"residual": RESIDUAL.int()}, TypeError, "residual must have one of the dtypes float64"),
        ({"residual": RESIDUAL.to("meta")}, ValueError, "residual must be on x's device cpu; got meta"),
        ({"residual": 1.0}, TypeError, "residual must be a torch.Tensor; got float"),
        ({"residual": RESIDUAL, "residual_scale": "1"}, TypeError, "residual_scale must be a number; got str"),
        ({"weight": torch.ones(6, 4, 0, 3)}, ValueError, "weight must have input channels, output channels and taps"),
        ({"x": torch.ones(4, 8, 7)}, ValueError, "x must have 4 dimensions"),
        ({"x": torch.ones(1, 4, 8, 7, dtype=torch.int64)}, TypeError, "x must have one of the dtypes"),
    ],
)
def test_what_does_not_fit_is_refused(impl, arguments, kind, message):
    given = {"x": torch.ones(1, 4, 8, 7), "weight": torch.ones(6, 4, 3, 3), "impl": impl, **arguments}
    with pytest.raises(kind, match=f"imgops.conv2d: {message}"):
        imgops.conv2d(given.pop("x"), given.pop("weight"), given.pop("bias", None), **given)


@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.parametrize("stride", [1, 2])
def test_each_channel_by_itself_with_a_padding_for_each_side(impl, stride):
    x, weight = torch.randn(2, 8, 9, 6, dtype=torch.float64), torch.randn(8, 1, 5, 5, dtype=torch.float64)
    epilogue, padding = Epilogue(act="relu", clamp=6.0), (1, 2, 0, 3)
    found = padded_conv2d(x, weight, epilogue, (stride, stride), padding, "zeros", (1, 1), 8, impl)
    torch.testing.assert_close(found, F.relu6(F.conv2d(F.pad(x, padding), weight, stride=stride, groups=8)))
