"""displace: every backend and border against the float64 reference and PyTorch's grid_sample at the same places."""

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
from imgops.reference.grid_sample import PADDING_MODES, displaced_positions


def displacement_of(n, h, w, device="cpu", reach=3):
    """Random displacements by pixels, of up to about ``reach`` images, that lead near no pixel's center."""
    whole = torch.stack([torch.randint(-reach * size, reach * size + 1, [n, h, w]) for size in (w, h)], 1)
    return (whole + 0.1 + 0.8 * torch.rand(n, 2, h, w)).double().to(device)


def by_pytorch(x, displacement, padding_mode):
    h, w = x.shape[2:]
    position_x, position_y = displaced_positions(displacement)
    grid = torch.stack([(2 * position_x + 1) / w - 1, (2 * position_y + 1) / h - 1], -1)
    return F.grid_sample(x, grid, padding_mode=padding_mode, align_corners=False)


@pytest.mark.parametrize(("backend", "device"), backends("displace"))
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_agrees_with_reference(channels_last, dtype, padding_mode, backend, device):
    form = torch.channels_last if channels_last else torch.contiguous_format
    acc_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    x = torch.randn(2, 5, 6, 9, device=device).to(dtype).contiguous(memory_format=form).requires_grad_()
    displacement = displacement_of(2, 6, 9, device).to(acc_dtype).requires_grad_()
    dy = torch.randn(2, 5, 6, 9, device=device).to(dtype)
    y = imgops.displace(x, displacement, padding_mode=padding_mode, impl=backend)
    dx, ddisplacement = torch.autograd.grad(y, [x, displacement], dy)

    inputs = x64, displacement64 = [t.detach().double().requires_grad_() for t in (x, displacement)]
    y64 = imgops.displace(x64, displacement64, padding_mode=padding_mode, impl="reference")
    dx64, ddisplacement64 = torch.autograd.grad(y64, inputs, dy.double())
    assert (y.dtype, dx.dtype, ddisplacement.dtype) == (dtype, dtype, acc_dtype)
    assert y.is_contiguous(memory_format=form)
    assert relative_error(y, y64) < 3 * TOLERANCE[dtype]
    assert relative_error(dx, dx64) < 3 * TOLERANCE[dtype]
    assert relative_error(ddisplacement, ddisplacement64) < 10 * TOLERANCE[acc_dtype]

    theirs = by_pytorch(x64, displacement64, padding_mode)
    assert relative_error(y64, theirs) < 1e-12
    for ours, other in zip((dx64, ddisplacement64), torch.autograd.grad(theirs, inputs, dy.double()), strict=True):
        assert relative_error(ours, other) < 1e-12


@pytest.mark.parametrize(("backend", "device"), backends("displace"))
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_whole_pixels_shift_the_image(padding_mode, backend, device):
    x, field = torch.randn(1, 2, 5, 6, device=device), torch.zeros(1, 2, 5, 6, device=device)
    assert torch.equal(imgops.displace(x, field, padding_mode=padding_mode, impl=backend), x)
    field[:, 0], field[:, 1] = 2, -1
    y = imgops.displace(x, field, padding_mode=padding_mode, impl=backend)
    assert torch.equal(y[:, :, 1:, :-2], x[:, :, :-1, 2:])
    outside = {"zeros": torch.zeros_like(x[:, :, 0, 0]), "border": x[:, :, 0, 5], "reflection": x[:, :, 0, 4]}
    assert torch.equal(y[:, :, 0, 5], outside[padding_mode])


@pytest.mark.parametrize(("backend", "device"), backends("displace", exclude=("triton",)))
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_gradcheck(padding_mode, backend, device):
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, device=device).requires_grad_()
    displacement = displacement_of(2, 3, 4, device, reach=1).requires_grad_()

    def run(x, displacement):
        return imgops.displace(x, displacement, padding_mode=padding_mode, impl=backend)

    assert gradcheck(run, (x, displacement))
    assert gradgradcheck(run, (x, displacement))


@pytest.mark.parametrize(("backend", "device"), backends("displace", fast_only=True))
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_three_orders(padding_mode, backend, device):
    x = torch.randn(1, 3, 3, 4, dtype=torch.float64, device=device)
    displacement = displacement_of(1, 3, 4, device, reach=1)

    def orders(impl):
        leaves = [x.clone().requires_grad_(), displacement.clone().requires_grad_()]
        total, results = imgops.displace(*leaves, padding_mode=padding_mode, impl=impl).sin().sum(), []
        for _ in range(3):
            results += torch.autograd.grad(total, leaves, create_graph=True)
            total = sum((d * d.detach().cos() + d.square()).sum() for d in results[-2:])
        return results

    for actual, expected in zip(orders(backend), orders("reference"), strict=True):
        assert relative_error(actual, expected) < 1e-10


@pytest.mark.parametrize(("backend", "device"), backends("displace"))
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_places_that_are_no_numbers(padding_mode, backend, device):
    """Outside with "zeros"; else the border, or the first pixel; none has a gradient."""
    x = (torch.arange(6.0, device=device) + 1).reshape(1, 1, 1, 6).requires_grad_()
    values = torch.tensor([math.nan, math.inf, -math.inf, 1e30, -1e30, 0.0], device=device)
    displacement = torch.stack([values, torch.zeros_like(values)]).reshape(1, 2, 1, 6).requires_grad_()
    y = imgops.displace(x, displacement, padding_mode=padding_mode, impl=backend)
    dx, ddisplacement = torch.autograd.grad(y.sum(), [x, displacement])
    expected = {"zeros": [0, 0, 0, 0, 0, 6], "border": [1, 6, 1, 6, 1, 6], "reflection": [1, 1, 1, None, None, 6]}
    for value, wanted in zip(y.flatten().tolist(), expected[padding_mode], strict=True):
        assert (1 <= value <= 6) if wanted is None else value == wanted
    assert dx.isfinite().all()
    assert not ddisplacement[..., :3].any()


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 18), st.integers(1, 9), st.integers(1, 9)),
    padding_mode=st.sampled_from(PADDING_MODES),
    channels_last=st.booleans(),
    expand=st.booleans(),
    reach=st.sampled_from([0, 1, 10, 1000]),
)
def test_any_shape(shape, padding_mode, channels_last, expand, reach):
    n, _, h, w = shape
    x = torch.randn(shape, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    displacement = displacement_of(n, h, w, reach=reach)
    displacement = (
        displacement[:1].expand(n, -1, -1, -1) if expand else displacement.transpose(2, 3).contiguous().transpose(2, 3)
    )
    results = []
    for impl in (None, "reference"):
        leaves = [x.detach().requires_grad_(), displacement.detach().requires_grad_()]
        y = imgops.displace(*leaves, padding_mode=padding_mode, impl=impl)
        results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
    for actual, expected in zip(*results, strict=True):
        assert relative_error(actual, expected) < 1e-9


X, FIELD = torch.zeros(2, 3, 4, 5), torch.zeros(2, 2, 4, 5)


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, "x must be a torch.Tensor; got NoneType", lambda: imgops.displace(None, FIELD)),
        (TypeError, "displacement must have one of the dtypes", lambda: imgops.displace(X, FIELD.int())),
        (ValueError, r"displacement must have shape \[2, 2, 4, 5\]; got \[2, 3, 4, 5\]", lambda: imgops.displace(X, X)),
        (ValueError, "displacement must have shape", lambda: imgops.displace(X, FIELD[:, :, 1:])),
        (ValueError, "displacement must be on x's device", lambda: imgops.displace(X, FIELD.to("meta"))),
        (ValueError, "padding_mode must be one of zeros, border, reflection; got 'wrap'",
         lambda: imgops.displace(X, FIELD, padding_mode="wrap")),
        (ValueError, "padding_mode must be one of", lambda: imgops.displace(X, FIELD, padding_mode=None)),
        (RuntimeError, "displace: the cuda backend is not available", lambda: imgops.displace(X, FIELD, impl="cuda")),
    ],
)  # fmt: skip
def test_bad_input(error, match, call):
    raises_in_one_line(error, match, call)
