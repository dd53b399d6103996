"""grid_sample: every backend against the float64 reference and PyTorch's own, and autograd's numeric checks."""

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

LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "expanded": lambda x: x[:1].expand_as(x),
}


def grid_of(n, out_h, out_w, h, w, device="cpu", reach=3):
    """Random places of an image of h x w and around it, none near a pixel's center, where the slope jumps."""

    def along(size):
        pixel = torch.randint(-reach, size + reach, [n, out_h, out_w]) + 0.1 + 0.8 * torch.rand(n, out_h, out_w)
        return (2 * pixel + 1) / size - 1

    return torch.stack([along(w), along(h)], -1).double().to(device)


@pytest.mark.parametrize(("backend", "device"), backends("grid_sample"))
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("channels", [3, 37])
def test_agrees_with_reference(channels, layout, dtype, backend, device):
    in_float64 = torch.float64 if dtype == torch.float64 else torch.float32
    x = LAYOUTS[layout](torch.randn(2, channels, 9, 6, device=device).to(dtype)).requires_grad_()
    grid = grid_of(2, 5, 7, 9, 6, device).to(in_float64).requires_grad_()
    dy = LAYOUTS[layout](torch.randn(2, channels, 5, 7, device=device).to(dtype))
    y = imgops.grid_sample(x, grid, impl=backend)
    dx, dgrid = torch.autograd.grad(y, [x, grid], dy)

    inputs = x64, grid64 = [t.detach().double().requires_grad_() for t in (x, grid)]
    y64 = imgops.grid_sample(x64, grid64, impl="reference")
    dx64, dgrid64 = torch.autograd.grad(y64, inputs, dy.double())
    assert (y.dtype, dx.dtype, dgrid.dtype) == (dtype, dtype, in_float64)
    assert relative_error(y, y64) < TOLERANCE[dtype]
    assert relative_error(dx, dx64) < TOLERANCE[dtype]
    assert relative_error(dgrid, dgrid64) < 10 * TOLERANCE[in_float64]
    if layout == "channels_last":
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert backend == "reference" or dx.is_contiguous(memory_format=torch.channels_last)

    theirs = F.grid_sample(x64, grid64, align_corners=False)
    assert relative_error(y64, theirs) < 1e-12
    for ours, other in zip((dx64, dgrid64), torch.autograd.grad(theirs, inputs, dy.double()), strict=True):
        assert relative_error(ours, other) < 1e-12


@pytest.mark.parametrize(("backend", "device"), backends("grid_sample"))
@pytest.mark.parametrize("grid_dtype", list(TOLERANCE), ids=str)
def test_grid_of_another_dtype(grid_dtype, backend, device):
    x = torch.randn(1, 2, 4, 4, device=device, dtype=torch.float16)
    grid = grid_of(1, 3, 3, 4, 4, device).to(grid_dtype).requires_grad_()
    y = imgops.grid_sample(x, grid, impl=backend)
    (dgrid,) = torch.autograd.grad(y.sum(), grid)
    assert dgrid.dtype == grid_dtype
    assert relative_error(y, imgops.grid_sample(x.double(), grid.double(), impl="reference")) < 2e-3


@pytest.mark.parametrize(("backend", "device"), backends("grid_sample", exclude=("triton",)))
def test_gradcheck(backend, device):
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, device=device).requires_grad_()
    grid = grid_of(2, 2, 3, 4, 5, device, reach=1).requires_grad_()

    def run(x, grid):
        return imgops.grid_sample(x, grid, impl=backend)

    assert gradcheck(run, (x, grid))
    assert gradgradcheck(run, (x, grid))


@pytest.mark.parametrize(("backend", "device"), backends("grid_sample", fast_only=True))
@pytest.mark.parametrize("channels_last", [False, True])
def test_three_orders(channels_last, backend, device):
    """Gradients up to the third order, of a loss that is smooth in the samples."""
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, device=device)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    grid = grid_of(2, 3, 2, 4, 5, device, reach=1)

    def orders(impl):
        leaves = [x.clone().requires_grad_(), grid.clone().requires_grad_()]
        total, results = imgops.grid_sample(*leaves, impl=impl).sin().sum(), []
        for _ in range(3):
            results += torch.autograd.grad(total, leaves, create_graph=True)
            total = sum(
                (d * torch.linspace(-1, 1, d.numel(), device=device).reshape(d.shape)).sum() for d in results[-2:]
            )
            total = total + sum(d.square().sum() for d in results[-2:])
        return results

    for actual, expected in zip(orders(backend), orders("reference"), strict=True):
        assert relative_error(actual, expected) < 1e-10


@pytest.mark.parametrize(("backend", "device"), backends("grid_sample"))
@pytest.mark.parametrize("channels_last", [False, True])
def test_places_that_are_no_numbers(channels_last, backend, device):
    """Nothing is read there, so that neither these nor what the image holds at its corners comes through."""
    x = torch.full((1, 16, 5, 5), math.nan, device=device)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    x.requires_grad_()
    values = torch.tensor([math.nan, math.inf, -math.inf, 1e30, -1e30, 3.4e38], device=device)
    grid = torch.stack([values.roll(1), values], -1).reshape(1, 2, 3, 2).requires_grad_()
    y = imgops.grid_sample(x, grid, impl=backend)
    dx, dgrid = torch.autograd.grad(y.sum(), [x, grid])
    assert not y.any()
    assert not dx.any()
    assert not dgrid.any()


def test_infinity_in_the_image_reaches_what_reads_it():
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 3, 3] = math.inf
    y = imgops.grid_sample(x, torch.tensor([[[[0.99, 0.99], [0.0, 0.0], [-0.9, -0.9]]]]))
    assert y[0, 0, 0].isfinite().tolist() == [False, True, True]


@pytest.mark.parametrize("channels", [3, 48])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_do_not_matter(channels, dtype):
    x = torch.randn(2, channels, 40, 50).to(dtype).requires_grad_()
    grid = (torch.rand(2, 90, 100, 2) * 2.4 - 1.2).requires_grad_()
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            y = imgops.grid_sample(x, grid, impl="cpu")
            results.append([y, *torch.autograd.grad(y, [x, grid], y.detach())])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(("backend", "device"), backends("grid_sample", fast_only=True))
@pytest.mark.parametrize("deterministic", [False, True])
def test_gradient_of_the_image_either_way(deterministic, backend, device):
    """Triton sums it in float or, where PyTorch is to be deterministic, in fixed point."""
    torch.use_deterministic_algorithms(deterministic)
    x = torch.randn(1, 5, 6, 7, dtype=torch.float64, device=device, requires_grad=True)
    grid, dy = grid_of(1, 8, 9, 6, 7, device), torch.randn(1, 5, 8, 9, dtype=torch.float64, device=device)
    (dx,) = torch.autograd.grad(imgops.grid_sample(x, grid, impl=backend), x, dy * 1e5)
    (expected,) = torch.autograd.grad(imgops.grid_sample(x, grid, impl="reference"), x, dy * 1e5)
    assert relative_error(dx, expected) < 1e-12


def test_few_samples_of_a_large_image():
    """Those are read where they lie."""
    for channels in (3, 20):
        x = torch.randn(1, channels, 200, 300, dtype=torch.float64, requires_grad=True)
        grid = grid_of(1, 3, 2, 200, 300).requires_grad_()
        results = []
        for impl in (None, "reference"):
            y = imgops.grid_sample(x, grid, impl=impl)
            results.append([y, *torch.autograd.grad(y.square().sum(), [x, grid])])
        for actual, expected in zip(*results, strict=True):
            assert relative_error(actual, expected) < 1e-12


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 3), st.integers(1, 18), st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(0, 5), st.integers(1, 140)),
    data=st.data(),
    dtype=st.sampled_from(list(TOLERANCE)),
    reach=st.sampled_from([0, 2, 1000, 10**6]),
)
def test_any_shape(shape, size, data, dtype, reach):
    n, c, h, w = shape
    x = torch.randn(shape)
    order = data.draw(st.permutations(range(4)))
    # the same values by other strides
    x = x.permute(order).contiguous().permute([order.index(i) for i in range(4)]).to(dtype).requires_grad_()
    grid = grid_of(n, *size, h, w, reach=reach).requires_grad_()
    dy = torch.randn(n, c, *size).to(dtype)
    in_float64 = torch.float64 if dtype == torch.float64 else torch.float32
    y = imgops.grid_sample(x, grid)
    dx, dgrid = torch.autograd.grad(y, [x, grid], dy)
    # the places as the backend has them
    x64, grid64 = x.detach().double().requires_grad_(), grid.detach().to(in_float64).double().requires_grad_()
    expected = imgops.grid_sample(x64, grid64, impl="reference")
    assert relative_error(y, expected) < 3 * TOLERANCE[dtype]
    for actual, wanted in zip((dx, dgrid), torch.autograd.grad(expected, [x64, grid64], dy.double()), strict=True):
        assert relative_error(actual, wanted) < 10 * TOLERANCE[dtype]


@settings(max_examples=40, deadline=None)
@given(
    x_shape=st.lists(st.integers(0, 4), min_size=2, max_size=5),
    grid_shape=st.lists(st.integers(0, 4), min_size=2, max_size=5),
)
def test_any_input_is_taken_or_refused(x_shape, grid_shape):
    fits = len(x_shape) == 4 == len(grid_shape) and grid_shape[0] == x_shape[0] and grid_shape[3] == 2
    fits = fits and (0 not in x_shape[2:] or 0 in grid_shape)
    x, grid = torch.zeros(x_shape), torch.zeros(grid_shape)
    if fits:
        assert imgops.grid_sample(x, grid).shape == (*x_shape[:2], *grid_shape[1:3])
        return
    raises_in_one_line(ValueError, r"grid_sample: (x|grid) must", lambda: imgops.grid_sample(x, grid))


X, GRID = torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 6, 2)


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, "x must be a torch.Tensor; got list", lambda: imgops.grid_sample([1.0], GRID)),
        (TypeError, "x must have one of the dtypes", lambda: imgops.grid_sample(X.int(), GRID)),
        (TypeError, "grid must have one of the dtypes", lambda: imgops.grid_sample(X, GRID.long())),
        (TypeError, "grid must be a torch.Tensor; got NoneType", lambda: imgops.grid_sample(X, None)),
        (ValueError, "x must have 4 dimensions", lambda: imgops.grid_sample(X[0], GRID)),
        (ValueError, "grid must have 4 dimensions", lambda: imgops.grid_sample(X, GRID[0])),
        (ValueError, r"grid must have shape \[2, 5, 6, 2\]; got \[2, 5, 6, 1\]",
         lambda: imgops.grid_sample(X, GRID[..., :1])),
        (ValueError, r"grid must have shape \[2, 5, 6, 2\]; got \[1, 5, 6, 2\]",
         lambda: imgops.grid_sample(X, GRID[:1])),
        (ValueError, "grid must be on x's device cpu; got meta", lambda: imgops.grid_sample(X, GRID.to("meta"))),
        (ValueError, "x must have pixels to sample", lambda: imgops.grid_sample(X[:, :, :0], GRID)),
        (ValueError, "impl must be None or one of", lambda: imgops.grid_sample(X, GRID, impl="fast")),
        (
            RuntimeError,
            "grid_sample: the cuda backend is not available",
            lambda: imgops.grid_sample(X, GRID, impl="cuda"),
        ),
    ],
)  # fmt: skip
def test_bad_input(error, match, call):
    raises_in_one_line(error, match, call)


@pytest.mark.parametrize(("backend", "device"), backends("grid_sample", exclude=("triton",)))
def test_second_order_in_half_precision(backend, device):
    """The slopes of a wide image leave the range of a half before they are multiplied."""
    x = (torch.randn(1, 1, 8, 2048, device=device) * 200).half().requires_grad_()
    grid = (torch.rand(1, 4, 5, 2, device=device) - 0.5).requires_grad_()
    dy, v = torch.randn(1, 1, 4, 5, device=device).mul(1e-3).half(), torch.randn(1, 4, 5, 2, device=device) * 1e-3
    results = []
    for run, in_float64 in ((backend, False), ("reference", True)):
        leaves = [t.detach().double() if in_float64 else t.detach() for t in (x, grid, dy)]
        leaves = [t.requires_grad_() for t in leaves]
        y = imgops.grid_sample(*leaves[:2], impl=run)
        (dgrid,) = torch.autograd.grad(y, leaves[1], leaves[2], create_graph=True)
        results.append(torch.autograd.grad((dgrid * v).sum(), leaves))
    for actual, expected in zip(*results, strict=True):
        assert relative_error(actual, expected) < 2e-3
