"""efdm beyond what the generic tests say of every op: ranks, ties, sizes that differ, gradients, memory."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from backends import TOLERANCE, backends
from errors import raises_in_one_line
from golden import relative_error
from memory_growth import memory_growth
from torch.autograd import gradcheck, gradgradcheck

import imgops
from imgops.ops._registration import namespace

FORMATS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize(("backend", "device"), backends("efdm"))
def test_the_published_formula(backend, device):
    """Planes of one size: the authors' code, and so each channel is a permutation of the style's."""
    x, y = torch.randn(2, 2, 3, 7, 6, device=device)
    flat, style = x.flatten(2), y.flatten(2).sort(-1).values
    expected = style.gather(-1, flat.argsort(-1).argsort(-1)).view_as(x)
    assert torch.equal(imgops.efdm(x, y, impl=backend), expected)
    halfway = imgops.efdm(x, y, alpha=0.25, impl=backend)
    torch.testing.assert_close(halfway, 0.25 * expected + 0.75 * x)
    assert torch.equal(imgops.efdm(x, y, alpha=0, impl=backend), x)


@pytest.mark.parametrize(("backend", "device"), backends("efdm"))
@pytest.mark.parametrize("sides", [(5, 12), (12, 5), (40, 41), (1, 30), (30, 1)])
def test_other_sizes_are_interpolated(sides, backend, device):
    """The quantiles are what F.interpolate makes of the sorted values."""
    pixels, count = sides
    x, y = torch.randn(1, 3, 1, pixels, device=device), torch.randn(1, 3, count, 1, device=device)
    found = imgops.efdm(x, y, impl=backend).flatten(2).sort(-1).values
    expected = F.interpolate(y.flatten(2).sort(-1).values, size=pixels, mode="linear", align_corners=False)
    torch.testing.assert_close(found, expected)


# ranks that are counted, sorts by bytes, by digits of 11 bits; Triton's own and torch's
@pytest.mark.parametrize(
    "shape",
    [(1, 2, 3, 1), (1, 2, 6, 6), (2, 1, 9, 13), pytest.param((1, 2, 17, 13), marks=pytest.mark.slow), (1, 2, 53, 41)],
    ids=str,
)
@pytest.mark.parametrize("form", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize(("backend", "device"), backends("efdm", fast_only=True))
def test_ties_keep_their_order(backend, device, dtype, form, shape):
    """Few values, zeros of both signs among them: as a stable sort, to the last pixel, with gradients that tell."""
    x = torch.randint(-2, 3, shape, device=device).to(dtype).contiguous(memory_format=form)
    x = torch.where(torch.rand_like(x.float()) < 0.1, -0.0, x).to(dtype)
    y = torch.randint(-3, 4, shape, device=device).to(dtype).contiguous(memory_format=form).requires_grad_()
    dy = torch.randn_like(x)
    # distinct values tell which pixel had which rank
    ranks = torch.arange(x[0, 0].numel(), device=device).view(1, 1, *shape[2:]).expand(1, *shape[1:])
    by_rank = imgops.efdm(x.double(), ranks.double(), impl="reference")
    assert torch.equal(imgops.efdm(x, ranks.float(), impl=backend), by_rank.to(dtype))
    gradients = [torch.autograd.grad(imgops.efdm(x, y, impl=impl), y, dy)[0] for impl in (backend, "reference")]
    assert torch.equal(*gradients)


@pytest.mark.parametrize(("backend", "device"), backends("efdm"))
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_a_nan_ranks_above_all_numbers(dtype, backend, device):
    nan, inf = torch.nan, torch.inf
    x = torch.tensor([[[[3.0, nan, 1.0, -nan, 2.0]]]], device=device).to(dtype)
    y = torch.tensor([[[[10.0, 50.0, 20.0, 40.0, 30.0]]]], device=device).to(dtype)
    expected = torch.tensor([[[[30.0, nan, 10.0, nan, 20.0]]]], device=device).to(dtype)
    assert torch.equal(imgops.efdm(x, y, impl=backend).nan_to_num(-1), expected.nan_to_num(-1))
    # the style's NaN goes to the largest, next to which numbers stay
    y[..., 1] = nan
    x = torch.tensor([[[[3.0, -8.0, 1.0, 9.0, 2.0]]]], device=device).to(dtype)
    expected = torch.tensor([[[[40.0, 10.0, 20.0, nan, 30.0]]]], device=device).to(dtype)
    assert torch.equal(imgops.efdm(x, y, impl=backend).nan_to_num(-1), expected.nan_to_num(-1))
    y[..., 1] = inf
    assert imgops.efdm(x, y, impl=backend).flatten().tolist() == [40, 10, 20, inf, 30]


@pytest.mark.parametrize(("backend", "device"), backends("efdm", exclude=("triton",)))
def test_gradients(backend, device):
    """For x straight-through at any alpha; for y exact, in both orders."""
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, device=device, requires_grad=True)
    y = torch.randn(1, 2, 5, 3, dtype=torch.float64, device=device, requires_grad=True)
    for alpha in (1.0, 0.3, 0.0):
        out = imgops.efdm(x, y, alpha=alpha, impl=backend)
        dout = torch.randn_like(out)
        assert torch.equal(torch.autograd.grad(out, x, dout)[0], dout)

    def of_style(y):
        return imgops.efdm(x.detach(), y, alpha=0.3, impl=backend)

    assert gradcheck(of_style, y)
    assert gradgradcheck(of_style, y)


@pytest.mark.parametrize(("backend", "device"), backends("efdm", fast_only=True))
def test_dtypes_may_differ(backend, device):
    x, y = torch.randn(1, 2, 6, 6, device=device).half(), torch.randn(1, 2, 7, 7, device=device)
    expected = imgops.efdm(x.double(), y.double(), impl="reference")
    for style in (y, y.double(), y.bfloat16()):
        found = imgops.efdm(x, style, impl=backend)
        assert found.dtype == torch.half
        assert relative_error(found, expected) < 2e-2


@pytest.mark.parametrize("shape", [(3, 40), (1, 1, 700), (1, 3000)], ids=str)
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize(("backend", "device"), backends("efdm", fast_only=True))
def test_sorted_rows_are_those_of_a_stable_sort(backend, device, dtype, shape):
    x = (torch.randn(shape, device=device) * 3).to(dtype)
    x[..., ::7] = x[..., :1]
    x[..., 5:9] = torch.tensor([torch.nan, -torch.inf, torch.inf, -0.0]).to(x)
    values, order = namespace(backend).sort_rows(x)
    expected = x.sort(dim=-1, stable=True)
    torch.testing.assert_close(values, expected.values, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(order.long(), expected.indices)


def test_threads_do_not_change_the_bits():
    x, y, threads = torch.randn(3, 70, 20, 21), torch.randn(1, 70, 33, 20, requires_grad=True), torch.get_num_threads()
    dout, results = torch.randn_like(x), []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            out = imgops.efdm(x, y)
            results.append((out, torch.autograd.grad(out, y, dout)[0]))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_memory_is_bounded():
    """The result, and of each thread some arrays of the size of one plane; the plain form takes five images more."""
    small = 'x, y = torch.randn(2, 1, 16, 512, 512); imgops.efdm(x[..., :8], y[..., :8], impl="cpu")'
    image, plane = 16 * 2**20, 2**20
    assert memory_growth(small, 'imgops.efdm(x, y, impl="cpu")') < image + 2 * 8 * plane + 4 * 2**20


X = torch.zeros(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, "x must be a torch.Tensor; got list", lambda: imgops.efdm([1.0], X)),
        (TypeError, "y must have one of the dtypes", lambda: imgops.efdm(X, X.int())),
        (ValueError, "y must have 4 dimensions", lambda: imgops.efdm(X, X[0])),
        (ValueError, r"y must have shape \[2 or 1, 3, H, W\]; got \[2, 2, 4, 4\]", lambda: imgops.efdm(X, X[:, :2])),
        (ValueError, "y must be on x's device cpu; got meta", lambda: imgops.efdm(X, X.to("meta"))),
        (ValueError, "x must have at least 1 pixel; got", lambda: imgops.efdm(X[:, :, :0], X)),
        (ValueError, "y must have at least 1 pixel; got", lambda: imgops.efdm(X, X[:, :, :0])),
        (ValueError, "alpha must be >= 0; got -1", lambda: imgops.efdm(X, X, alpha=-1)),
        (ValueError, "alpha must be <= 1; got 1.5", lambda: imgops.efdm(X, X, alpha=1.5)),
        (TypeError, "alpha must be a number", lambda: imgops.efdm(X, X, alpha="1")),
        (RuntimeError, "efdm has no kernel in CUDA C\\+\\+", lambda: imgops.efdm(X, X, impl="cuda")),
    ],
)
def test_bad_input(error, match, call):
    raises_in_one_line(error, match, call)
