"""The convolutions with PyTorch's parameters against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from backends import backends

from imgops import _backend, use_impl
from imgops._epilogue import Epilogue
from imgops.nn import FusedConv2d, FusedConvTranspose2d
from imgops.ops._registration import namespace

CPU = _backend.load()["cpu", "cpu"]
BACKENDS = ["reference", pytest.param("cpu", marks=pytest.mark.skipif(not CPU.available, reason=CPU.reason))]


@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kernel_size", "stride", "padding", "groups"),
    [(1, 1, 0, 1), (3, 1, 1, 1), (3, 1, 1, 4), (3, 1, 1, 2), (4, 2, 1, 1), (4, 2, 1, 2), (3, 1, 0, 1)],
)
def test_it_is_pytorchs_with_an_activation(impl, bias, with_residual, kernel_size, stride, padding, groups):
    how = {"groups": groups, "bias": bias}
    layer = FusedConv2d(32, 40, kernel_size, stride, padding, **how, act="lrelu", gain=1.5, residual_scale=0.5).double()
    plain = torch.nn.Conv2d(32, 40, kernel_size, stride, padding, **how).double()
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 32, 9, 7, dtype=torch.float64, requires_grad=True)
    residual = torch.randn_like(plain(x)) if with_residual else None
    with use_impl(impl):
        found = layer(x, residual)
        (slope,) = torch.autograd.grad(found.square().sum(), x, create_graph=True)
        second = torch.autograd.grad(slope.square().sum(), list(layer.parameters()), materialize_grads=True)
    wanted = 1.5 * F.leaky_relu(plain(x) if residual is None else plain(x) + 0.5 * residual, 0.2)
    torch.testing.assert_close(found, wanted)
    (expected,) = torch.autograd.grad(wanted.square().sum(), x, create_graph=True)
    torch.testing.assert_close(slope, expected)
    of_plain = torch.autograd.grad(expected.square().sum(), list(plain.parameters()), materialize_grads=True)
    for a, b in zip(second, of_plain, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("backend", "device"), backends(exclude=("reference", "cpu", "cuda")))
def test_triton_leaves_groups_to_the_library(backend, device):
    layer = FusedConv2d(4, 6, 3, padding=1, groups=2, act="relu", device=device)
    x = torch.randn(1, 4, 5, 5, device=device)
    with use_impl(backend):
        torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, layer.bias, padding=1, groups=2).relu())
    with pytest.raises(ValueError, match="groups must be 1 in Triton; got 2"):
        namespace(backend).fused_conv2d(x, layer.weight, None, 1, [1] * 4, 1, 2, None, 1.0, *Epilogue(), False)


@pytest.mark.parametrize(
    "how",
    [
        {"kernel_size": (3, 5), "padding": (1, 2)},
        {"kernel_size": 3, "stride": (2, 1), "dilation": 2},
        {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    ],
)
def test_it_takes_what_pytorchs_takes(how):
    layer, plain = FusedConv2d(4, 6, act="relu", clamp=6.0, **how), torch.nn.Conv2d(4, 6, **how)
    plain.load_state_dict(layer.state_dict())
    x = 5 * torch.randn(2, 4, 12, 13)
    torch.testing.assert_close(layer(x), F.relu6(plain(x)))


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"padding": "same"}, TypeError, "FusedConv2d: padding must be an int"),
        ({"padding": (1, 2, 3)}, ValueError, "FusedConv2d: padding takes an int or two; got"),
        ({"stride": 0}, ValueError, "FusedConv2d: stride must be >= 1"),
        ({"act": "gelu"}, ValueError, "act must be one of"),
    ],
)
def test_what_it_cannot_do_is_refused(arguments, kind, message):
    with pytest.raises(kind, match=message):
        FusedConv2d(8, 8, 3, **arguments)


@pytest.mark.parametrize(
    "how",
    [
        {"kernel_size": (3, 5), "padding": (1, 2), "bias": False},
        {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
        {"kernel_size": 4, "stride": (2, 1), "groups": 2, "dilation": 2},
    ],
)
def test_the_transposed_one_is_pytorchs_with_an_activation(how):
    layer = FusedConvTranspose2d(4, 6, act="relu", clamp=6.0, **how)
    plain = torch.nn.ConvTranspose2d(4, 6, **how)
    plain.load_state_dict(layer.state_dict())
    x = 5 * torch.randn(2, 4, 12, 13)
    wanted = F.relu6(plain(x))
    torch.testing.assert_close(layer(x), wanted)
    size = [
        side + step - 1 - plain.output_padding[0] for side, step in zip(wanted.shape[2:], plain.stride, strict=True)
    ]
    torch.testing.assert_close(layer(x, size), F.relu6(plain(x, size)))
    with pytest.raises(ValueError, match="requested an output size of"):
        layer(x, [1, 1])


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"output_padding": (1, 1, 1)}, ValueError, "FusedConvTranspose2d: output_padding takes an int or two; got"),
        ({"stride": 0}, ValueError, "FusedConvTranspose2d: stride must be >= 1"),
        ({"padding_mode": "reflect"}, ValueError, 'Only "zeros" padding mode is supported'),
        ({"act": "gelu"}, ValueError, "FusedConvTranspose2d: act must be one of"),
    ],
)
def test_what_the_transposed_one_cannot_do_is_refused(arguments, kind, message):
    with pytest.raises(kind, match=message):
        FusedConvTranspose2d(8, 8, 3, **arguments)
