"""conv_transpose2d against PyTorch's and its activations, and what it refuses; the generic tests have the rest."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import imgops
from imgops import _backend

CPU = _backend.load()["cpu", "cpu"]
BACKENDS = ["reference", pytest.param("cpu", marks=pytest.mark.skipif(not CPU.available, reason=CPU.reason))]


@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.parametrize("kernel", [1, 3, 4])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"padding": 1},
        {"padding": 1, "stride": 2},
        {"padding": 1, "stride": 2, "output_padding": 1},
        {"padding": (0, 2), "stride": 2, "output_padding": (1, 0)},
        {"padding": (0, 1), "stride": 2},
        {"padding": (1, 0), "stride": (3, 2), "output_padding": (2, 1)},
        {"padding": 1, "dilation": (2, 1), "output_padding": (1, 0)},
        {"padding": 1, "stride": 2, "groups": 2},
    ],
)
def test_it_is_pytorchs_convolution_and_activation(impl, kernel, how):
    """With gradients, in one contiguous piece of memory."""
    plain = nn.ConvTranspose2d(8, 6, kernel, **how).double()
    x = torch.randn(3, 8, 17, 14, dtype=torch.float64, requires_grad=True)
    parameters = [x, plain.weight, plain.bias]
    expected = F.relu6(5 * plain(x))
    found = imgops.conv_transpose2d(5 * x, plain.weight, 5 * plain.bias, **how, act="relu", gain=1, clamp=6, impl=impl)
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous()
    d = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(found, parameters, d), torch.autograd.grad(expected, parameters, d), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"groups": 3}, ValueError, "groups must divide the channels of x and weight, 4 and 18; got 3"),
        ({"weight": torch.ones(6, 4, 3, 3)}, ValueError, r"weight must have shape \[4, 4, 3, 3\]; got \[6, 4, 3, 3\]"),
        ({"stride": 0}, ValueError, "stride must be >= 1; got 0"),
        ({"padding": "same"}, TypeError, "padding must be an int or a sequence of ints; got 'same'"),
        ({"output_padding": -1}, ValueError, "output_padding must be >= 0; got -1"),
        (
            {"stride": 2, "dilation": (1, 3), "output_padding": 2},
            ValueError,
            r"output_padding must be smaller than stride 2 x 2 or dilation 1 x 3 \(height x width\); got 2 x 2",
        ),
        (
            {"padding": (1, 5)},
            ValueError,
            r"padding must leave a pixel of the result, which is 10 x 9 \(height x width\) without; got 1 x 5",
        ),
        ({"act": "gelu"}, ValueError, "act must be one of"),
        ({"bias": torch.ones(5)}, ValueError, r"bias must have shape \[6\]; got \[5\]"),
        ({"weight": torch.ones(4, 6, 0, 3)}, ValueError, "weight must have input channels, output channels and taps"),
        ({"x": torch.ones(4, 8, 7)}, ValueError, "x must have 4 dimensions"),
        ({"x": torch.ones(1, 4, 0, 7)}, ValueError, r"x must have pixels; got shape \[1, 4, 0, 7\]"),
    ],
)
def test_what_does_not_fit_is_refused(impl, arguments, kind, message):
    given = {"x": torch.ones(1, 4, 8, 7), "weight": torch.ones(4, 6, 3, 3), "impl": impl, **arguments}
    with pytest.raises(kind, match=f"imgops.conv_transpose2d: {message}"):
        imgops.conv_transpose2d(given.pop("x"), given.pop("weight"), given.pop("bias", None), **given)
