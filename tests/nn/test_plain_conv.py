"""The convolution with PyTorch's parameters against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from backends import backends

from imgops import _backend, use_impl
from imgops._epilogue import Epilogue
from imgops.nn import BiasActConv2d
from imgops.ops._registration import namespace

CPU = _backend.load()["cpu", "cpu"]
BACKENDS = ["reference", pytest.param("cpu", marks=pytest.mark.skipif(not CPU.available, reason=CPU.reason))]


@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kernel_size", "stride", "padding", "groups"),
    [(1, 1, 0, 1), (3, 1, 1, 1), (3, 1, 1, 4), (3, 1, 1, 2), (4, 2, 1, 1), (4, 2, 1, 2), (3, 1, 0, 1)],
)
def test_it_is_pytorchs_with_an_activation(impl, bias, kernel_size, stride, padding, groups):
    layer = BiasActConv2d(
        32, 40, kernel_size, stride, padding, groups=groups, bias=bias, act="lrelu", gain=1.5
    ).double()
    plain = torch.nn.Conv2d(32, 40, kernel_size, stride, padding, groups=groups, bias=bias).double()
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 32, 9, 7, dtype=torch.float64, requires_grad=True)
    with use_impl(impl):
        found = layer(x)
        (slope,) = torch.autograd.grad(found.square().sum(), x, create_graph=True)
        second = torch.autograd.grad(slope.square().sum(), list(layer.parameters()), materialize_grads=True)
    wanted = 1.5 * F.leaky_relu(plain(x), 0.2)
    torch.testing.assert_close(found, wanted)
    (expected,) = torch.autograd.grad(wanted.square().sum(), x, create_graph=True)
    torch.testing.assert_close(slope, expected)
    of_plain = torch.autograd.grad(expected.square().sum(), list(plain.parameters()), materialize_grads=True)
    for a, b in zip(second, of_plain, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("backend", "device"), backends(exclude=("reference", "cpu", "cuda")))
def test_triton_leaves_groups_to_the_library(backend, device):
    layer = BiasActConv2d(4, 6, 3, padding=1, groups=2, act="relu", device=device)
    x = torch.randn(1, 4, 5, 5, device=device)
    with use_impl(backend):
        torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, layer.bias, padding=1, groups=2).relu())
    with pytest.raises(ValueError, match="groups must be 1 in Triton; got 2"):
        namespace(backend).fused_conv2d(x, layer.weight, None, 1, [1] * 4, 1, 2, *Epilogue(), False)


def test_what_it_cannot_do_is_refused():
    with pytest.raises(TypeError, match="dilation"):
        BiasActConv2d(8, 8, 3, dilation=2)
    with pytest.raises(TypeError, match="padding must be an int"):
        BiasActConv2d(8, 8, 3, padding=(1, 2))
    with pytest.raises(ValueError, match="act must be one of"):
        BiasActConv2d(8, 8, 3, act="gelu")
