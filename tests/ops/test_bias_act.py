"""bias_act: every backend against the float64 reference, the recorded cases, and autograd's numeric checks."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from backends import TOLERANCE, backends
from errors import raises_in_one_line
from golden import relative_error
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

import imgops
from imgops._epilogue import Epilogue
from imgops.ops.bias_act import fused_bias_act
from imgops.reference.bias_act import ACTIVATIONS

LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "sliced": lambda x: torch.stack([x, x], -1)[..., 0],
}


@pytest.mark.parametrize(("backend", "device"), backends())
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("act", list(ACTIVATIONS))
def test_agrees_with_reference(act, layout, dtype, backend, device):
    x64 = torch.randn(2, 5, 7, 6, dtype=torch.float64, device=device) * 3
    b64 = torch.randn(5, dtype=torch.float64, device=device)
    dy64 = torch.randn_like(x64)
    x, b, dy = (t.to(dtype) for t in (x64, b64, dy64))
    x = LAYOUTS[layout](x).requires_grad_()
    b.requires_grad_()
    y = imgops.bias_act(x, b, act=act, clamp=2.0, impl=backend)
    dx, db = torch.autograd.grad(y, [x, b], dy)

    x64, b64 = (t.detach().double().requires_grad_() for t in (x, b))
    y64 = imgops.bias_act(x64, b64, act=act, clamp=2.0, impl="reference")
    dx64, db64 = torch.autograd.grad(y64, [x64, b64], dy.double())
    # at the clamp, and at the kink, a rounded value may fall on the other side
    near = ((y64.abs() - 2).abs() < 0.05) | (y64.abs() < 0.02)
    keep = torch.where(near, 0.0, 1.0) if dtype in (torch.float16, torch.bfloat16) else 1.0
    assert y.dtype == dtype
    assert relative_error(y, y64) < TOLERANCE[dtype]
    assert relative_error(dx * keep, dx64 * keep) < 2 * TOLERANCE[dtype]
    if dtype in (torch.float64, torch.float32):
        assert relative_error(db, db64) < 10 * TOLERANCE[dtype]
    if layout == "channels_last":
        assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("backend", "device"), backends(fast_only=True))
@pytest.mark.parametrize("act", list(ACTIVATIONS))
def test_fine_accuracy(act, backend, device):
    x = torch.cat([torch.linspace(-30, 30, 4001), torch.linspace(-1e-3, 1e-3, 401), torch.tensor([-200.0, 0.0, 200.0])])
    x = x.to(device)
    y = imgops.bias_act(x, act=act, impl=backend)
    expected = imgops.bias_act(x.double(), act=act, impl="reference")
    torch.testing.assert_close(y.double(), expected, rtol=2e-6, atol=1e-35)


@pytest.mark.parametrize(("backend", "device"), backends(fast_only=True))
@pytest.mark.parametrize("act", list(ACTIVATIONS))
@pytest.mark.parametrize("clamp", [-1.0, 1.5])
@pytest.mark.parametrize("channels_last", [False, True])
def test_scale_and_noise(act, clamp, channels_last, backend, device):
    """The epilogue of a convolution, and its gradients of two orders for every operand."""
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, device=device)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    operands = [torch.randn(s, dtype=torch.float64, device=device) for s in ([3], [2, 3], [2, 1, 4, 5])]
    results = []
    for run in (backend, "reference"):
        leaves = [t.clone().requires_grad_() for t in (x, *operands)]
        y = fused_bias_act(run, leaves[0], Epilogue(*leaves[1:], act, 0.2, 1.3, clamp))
        g = torch.linspace(-1, 1, y.numel(), dtype=y.dtype, device=device).reshape(y.shape).requires_grad_()
        first = torch.autograd.grad(y, leaves, g, create_graph=True)
        loss = sum(
            (d * torch.cos(torch.arange(d.numel(), device=device, dtype=d.dtype)).reshape(d.shape)).sum() for d in first
        )
        second = torch.autograd.grad(loss, [*leaves, g], allow_unused=True)
        results.append([y, *first, *(torch.zeros(1, device=device) if s is None else s for s in second)])
    for actual, expected in zip(*results, strict=True):
        if actual.shape == expected.shape:
            assert relative_error(actual, expected) < 1e-10 or expected.abs().max() == 0
        else:
            # a gradient that is identically zero may be absent on one side
            assert actual.abs().max() == 0
            assert expected.abs().max() == 0


@pytest.mark.parametrize(("backend", "device"), backends(exclude=("triton",)))
@pytest.mark.parametrize("act", list(ACTIVATIONS))
@pytest.mark.parametrize("clamp", [None, 0.9])
def test_gradcheck(act, clamp, backend, device):
    x = torch.randn(2, 3, 3, dtype=torch.float64, device=device).requires_grad_()
    b = torch.randn(3, dtype=torch.float64, device=device).requires_grad_()

    def run(x, b):
        return imgops.bias_act(x, b, act=act, clamp=clamp, impl=backend)

    assert gradcheck(run, (x, b))
    assert gradgradcheck(run, (x, b))


@pytest.mark.parametrize(("backend", "device"), backends())
def test_hardswish_is_pytorchs(backend, device):
    """With both its derivatives, at the kinks too."""
    x = torch.tensor([-4.0, -3.0, -2.9, -1.5, 0.0, 2.9, 3.0, 3.1], dtype=torch.float64, device=device).requires_grad_()
    orders = []
    for y in (imgops.bias_act(x, act="hardswish", gain=1, impl=backend), F.hardswish(x)):
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        orders.append([y, first, *torch.autograd.grad(first.square().sum(), x)])
    for actual, expected in zip(*orders, strict=True):
        torch.testing.assert_close(actual, expected)


def test_third_order():
    x = torch.randn(3, 4, dtype=torch.float64).requires_grad_()

    def third(impl):
        total = imgops.bias_act(x, act="swish", impl=impl).pow(2).sum()
        for _ in range(3):
            (d,) = torch.autograd.grad(total, x, create_graph=True)
            total = d.pow(2).sum()
        return d

    assert relative_error(third(None), third("reference")) < 1e-10


@pytest.mark.parametrize(("backend", "device"), backends(fast_only=True))
@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_any_dim(dim, backend, device):
    x, b = torch.randn(3, 4, 5, device=device), None
    b = torch.randn(x.shape[dim], device=device)
    expected = imgops.bias_act(x.double(), b.double(), dim=dim, act="lrelu", impl="reference")
    assert relative_error(imgops.bias_act(x, b, dim=dim, act="lrelu", impl=backend), expected) < 1e-6


@pytest.mark.parametrize(("backend", "device"), backends())
def test_nan_and_infinity_pass(backend, device):
    x = torch.tensor([[math.nan, math.inf, -math.inf, 1.0]], device=device)
    for act in ("linear", "relu", "lrelu"):
        y = imgops.bias_act(x, act=act, gain=1, clamp=3, impl=backend)
        assert bool(y[0, 0].isnan())
        assert y[0, 1] == 3


def test_half_precision_sums_in_float32():
    x = torch.full((1, 1, 64, 64), 1.0, dtype=torch.float16)
    b = torch.zeros(1, dtype=torch.float16, requires_grad=True)
    (db,) = torch.autograd.grad(imgops.bias_act(x, b).sum(), b)
    assert db == 4096


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(0, 6), min_size=1, max_size=5),
    data=st.data(),
    act=st.sampled_from(list(ACTIVATIONS)),
    dtype=st.sampled_from(list(TOLERANCE)),
)
def test_any_shape(shape, data, act, dtype):
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    order = data.draw(st.permutations(range(len(shape))))
    x = torch.randn(shape).to(dtype).permute(order)
    b = torch.randn(x.shape[dim]).to(dtype)
    y = imgops.bias_act(x, b, dim=dim, act=act)
    expected = imgops.bias_act(x.double(), b.double(), dim=dim, act=act, impl="reference")
    assert relative_error(y, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize(("backend", "device"), backends(exclude=("reference",)))
def test_the_curvature_of_a_kink_takes_no_memory(backend, device):
    """It is zero for every pixel of the output."""
    x = torch.randn(2, 3, 4, device=device, requires_grad=True)
    y = imgops.bias_act(x, act="lrelu", impl=backend)
    (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    (dy,) = torch.autograd.grad(dx.sum(), y, retain_graph=True)
    (slope,) = torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), y)
    assert dy.abs().min() > 0
    assert curvature.eq(0).all()
    assert curvature.stride() == (0, 0, 0)


X = torch.zeros(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, "x must be a torch.Tensor; got list", lambda: imgops.bias_act([1.0])),
        (TypeError, "x must have one of the dtypes", lambda: imgops.bias_act(torch.zeros(2, 3, dtype=torch.int64))),
        (ValueError, r"b must have shape \[3\]; got \[4\]", lambda: imgops.bias_act(X, torch.zeros(4))),
        (ValueError, "b must have 1 dimensions", lambda: imgops.bias_act(X, torch.zeros(3, 1))),
        (ValueError, "b must be on x's device", lambda: imgops.bias_act(X, torch.zeros(3, device="meta"))),
        (ValueError, "dim must be in", lambda: imgops.bias_act(X, torch.zeros(3), dim=4)),
        (TypeError, "dim must be an int", lambda: imgops.bias_act(X, torch.zeros(3), dim=1.0)),
        (ValueError, "act must be one of linear, relu", lambda: imgops.bias_act(X, act="gelu")),
        (ValueError, "clamp must be >= 0", lambda: imgops.bias_act(X, clamp=-1)),
        (TypeError, "gain must be a number", lambda: imgops.bias_act(X, gain="2")),
        (ValueError, "impl must be None or one of", lambda: imgops.bias_act(X, impl="fast")),
        (RuntimeError, "the cuda backend is not available on cpu", lambda: imgops.bias_act(X, impl="cuda")),
    ],
)
def test_bad_input(error, match, call):
    raises_in_one_line(error, match, call)


@pytest.mark.parametrize(("backend", "device"), backends())
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("clamp", [0.7, 0.3, 1.9])
def test_clamped_half_precision_has_no_gradient(clamp, dtype, backend, device):
    """The clamp is rounded with the output, and so must be what the output is compared with."""
    x = torch.tensor([[-50.0, -0.01, 0.01, 50.0]], dtype=dtype, device=device).requires_grad_()
    (dx,) = torch.autograd.grad(imgops.bias_act(x, act="lrelu", clamp=clamp, impl=backend).sum(), x)
    assert (dx != 0).tolist() == [[False, True, True, False]]
