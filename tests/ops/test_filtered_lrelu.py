"""filtered_lrelu: every backend against the float64 reference, the recorded cases, and autograd's numeric checks."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from backends import TOLERANCE, backends
from errors import raises_in_one_line
from golden import relative_error
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

import imgops
from imgops import _backend
from tests.op_specs.upfirdn2d import resample_filter


class Case(NamedTuple):
    """The image, the taps of the filters as ``resample_filter`` takes them, and the arguments."""

    shape: tuple[int, int, int, int]
    up_taps: tuple[int, ...] | None
    down_taps: tuple[int, ...] | None
    up: int = 1
    down: int = 1
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    clamp: float | None = None
    flip_filter: bool = False
    rank_one: bool = False

    def arguments(self):
        return {
            "up": self.up,
            "down": self.down,
            "padding": self.padding,
            "clamp": self.clamp,
            "flip_filter": self.flip_filter,
            "gain": 1.3,
        }


CASES = [
    Case((2, 3, 9, 8), (12,), (12,), 2, 2, (11, 10, 10, 11), clamp=0.8),
    Case((1, 2, 6, 7), (24,), (12,), 4, 2, (24, 20, 25, 22)),
    Case((1, 3, 7, 6), (12,), (4, 5), 2, 4, (9, 8, 7, 12), clamp=0.5, flip_filter=True),
    Case((1, 2, 7, 6), (4, 5), (6, 4), 2, 2, (6, 5, 7, 4), clamp=0.5, rank_one=True),
    Case((2, 1, 8, 5), (3, 2), (5,), 3, 1, (-2, 3, 4, -1)),
    Case((1, 2, 5, 9), None, None, clamp=0.6),
    # more planes than run side by side on the CPU
    Case((1, 18, 4, 5), (4,), None, 2, 5, (2, 1, 2, 1)),
    Case((1, 2, 6, 6), (1,), (2,), 2, 3, (0, 0, 0, 0), clamp=0.0),
]
IDS = [f"{c.up_taps}-{c.down_taps}-up{c.up}-down{c.down}" for c in CASES]
#: filters longer than a tile of the Triton backend
LONG = Case((1, 1, 6, 5), (4,), (66,), 2, 2, (31, 32, 30, 31), clamp=0.5)


def operands(case, dtype=torch.float32, device="cpu"):
    """x [N, C, H, W], fu, fd, b [C]; gradients on x and b."""
    x = torch.randn(case.shape, device=device).to(dtype).requires_grad_()
    b = torch.randn(case.shape[1], device=device).to(dtype).requires_grad_()
    filters = (resample_filter(taps, case.rank_one, device) for taps in (case.up_taps, case.down_taps))
    # of the size of low-pass filters, so that the image keeps its magnitude
    fu, fd = (None if f is None else f / (2 * f.numel() ** (0.5 if f.ndim == 2 else 1)) for f in filters)
    return x, fu, fd, b


@pytest.mark.parametrize(("backend", "device"), backends("filtered_lrelu", fast_only=True))
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_agrees_with_reference(case, channels_last, dtype, backend, device):
    x, fu, fd, b = operands(case, dtype, device)
    if channels_last:
        x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    y = imgops.filtered_lrelu(x, fu, fd, b, **case.arguments(), impl=backend)
    with torch.no_grad():
        # without a gradient to come no sign mask is written, and nothing else changes
        assert torch.equal(imgops.filtered_lrelu(x, fu, fd, b, **case.arguments(), impl=backend), y)
    dy = torch.randn_like(y)
    dx, db = torch.autograd.grad(y, [x, b], dy)
    x64, b64 = (t.detach().double().requires_grad_() for t in (x, b))
    y64 = imgops.filtered_lrelu(x64, fu, fd, b64, **case.arguments(), impl="reference")
    dx64, db64 = torch.autograd.grad(y64, [x64, b64], dy.double())
    assert y.dtype == dtype
    assert relative_error(y, y64) < TOLERANCE[dtype]
    assert relative_error(dx, dx64) < TOLERANCE[dtype]
    assert relative_error(db, db64) < 10 * TOLERANCE[dtype]
    if channels_last and not x.is_contiguous():
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert dx.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "device"), backends("filtered_lrelu", fast_only=True))
def test_filters_longer_than_a_tile(backend, device):
    x, fu, fd, b = operands(LONG, torch.float32, device)
    y = imgops.filtered_lrelu(x, fu, fd, b, **LONG.arguments(), impl=backend)
    (dx,) = torch.autograd.grad(y.sum(), x)
    x64 = x.detach().double().requires_grad_()
    y64 = imgops.filtered_lrelu(x64, fu, fd, b.double(), **LONG.arguments(), impl="reference")
    (dx64,) = torch.autograd.grad(y64.sum(), x64)
    assert relative_error(y, y64) < TOLERANCE[torch.float32]
    assert relative_error(dx, dx64) < TOLERANCE[torch.float32]


@pytest.mark.parametrize(("backend", "device"), backends("filtered_lrelu", exclude=("triton",)))
@pytest.mark.parametrize("case", CASES[:7], ids=IDS[:7])
def test_gradcheck(case, backend, device):
    """First and second order for x and b."""
    case = case._replace(shape=(1, 2, *case.shape[2:]))
    x, fu, fd, b = operands(case, torch.float64, device)

    def run(x, b):
        return imgops.filtered_lrelu(x, fu, fd, b, **case.arguments(), impl=backend)

    assert gradcheck(run, (x, b))
    assert gradgradcheck(run, (x, b))


@pytest.mark.parametrize(("backend", "device"), backends("filtered_lrelu", exclude=("triton",)))
def test_gradcheck_of_filters(backend, device):
    x, b = (torch.randn(s, dtype=torch.float64, device=device).requires_grad_() for s in ((1, 2, 3, 4), (2,)))
    fu, fd = (torch.randn(s, dtype=torch.float64, device=device).requires_grad_() for s in ((3,), (2, 3)))

    def run(x, fu, fd, b):
        return imgops.filtered_lrelu(x, fu, fd, b, up=2, down=2, padding=2, clamp=0.8, impl=backend)

    assert gradcheck(run, (x, fu, fd, b))
    assert gradgradcheck(run, (x, fu, fd, b))


@pytest.mark.parametrize(("backend", "device"), backends("filtered_lrelu", fast_only=True))
def test_gradient_of_the_gradient(backend, device):
    """Differentiating <v, dx> for dy gives the pass with v in place of x; the third order is the first one again."""
    x, fu, fd, b = operands(CASES[0], torch.float64, device)
    orders = []
    for run in (backend, "reference"):
        y = imgops.filtered_lrelu(x, fu, fd, b, **CASES[0].arguments(), impl=run)
        dy = torch.linspace(-1, 1, y.numel(), dtype=y.dtype, device=device).reshape(y.shape).requires_grad_()
        dx, db = torch.autograd.grad(y, [x, b], dy, create_graph=True)
        v = torch.linspace(-1, 2, dx.numel(), dtype=y.dtype, device=device).reshape(dx.shape).requires_grad_()
        (ddy,) = torch.autograd.grad((dx * v).sum() + db.sum(), dy, create_graph=True)
        (dv,) = torch.autograd.grad((ddy * dy).sum(), v)
        orders.append((dx, db, ddy, dv))
    for actual, expected in zip(*orders, strict=True):
        assert relative_error(actual, expected) < 1e-12


@pytest.mark.parametrize(("backend", "device"), backends("filtered_lrelu", fast_only=True))
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_sign_mask(case, channels_last, backend, device):
    """Two bits per pixel of the up-sampled image, those that no output needs among them."""
    ops = torch.ops.imgops_triton if backend == "triton" else torch.ops.imgops
    # higher than one band of rows, or tile
    shape = (1, case.shape[1] if backend == "cpu" else 1, 70, 9)
    x, fu, fd, b = operands(case._replace(shape=shape), torch.float64, device)
    x = x.detach().contiguous(memory_format=torch.channels_last) if channels_last else x.detach()
    clamp = -1.0 if case.clamp is None else case.clamp
    arguments = (case.up, case.down, case.padding, 1.3, 0.2, clamp, case.flip_filter)
    _, sign_mask = ops.filtered_lrelu(x, fu, fd, b.detach(), *arguments, True)
    z = imgops.upfirdn2d(
        x + b.detach()[:, None, None], fu, case.up, 1, case.padding, case.flip_filter, case.up**2, impl="reference"
    )
    a = torch.where(z > 0, z, 0.2 * z) * 1.3
    expected = (z <= 0).int() + 2 * (a.abs() >= clamp).int() * (clamp >= 0)
    assert sign_mask.shape == (*z.shape[:2], (z.shape[2] + 3) // 4, z.shape[3])
    unpacked = torch.stack([sign_mask >> shift & 3 for shift in (0, 2, 4, 6)], 3).flatten(2, 3)
    sure = z.abs() > 1e-12
    assert torch.equal(unpacked[:, :, : z.shape[2]].int()[sure], expected[sure])
    assert not unpacked[:, :, z.shape[2] :].any()
    without = ops.filtered_lrelu(x, fu, fd, b.detach(), *arguments, False)[1]
    assert without.shape == (0,)


@pytest.mark.parametrize(("backend", "device"), backends("filtered_lrelu"))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_clamp_in_half_precision(dtype, backend, device):
    """What is between the filters may be larger than half precision holds; what is clamped has no gradient."""
    x = torch.tensor([-6e4, -1.0, 1.0, 6e4], dtype=dtype, device=device).reshape(1, 1, 1, 4).requires_grad_()
    fu = torch.full((1,), 3.0, device=device)
    y = imgops.filtered_lrelu(x, fu, gain=1, slope=0.5, clamp=256, impl=backend)
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert y.flatten().tolist() == [-256, -4.5, 9, 256]
    assert dx.flatten().tolist() == [0, 4.5, 9, 0]


@pytest.mark.parametrize(("backend", "device"), backends("filtered_lrelu", exclude=("triton",)))
def test_non_finite_values_stay_where_they_are(backend, device):
    """A NaN or an infinity reaches the outputs whose taps it is under, and passes the clamp as a NaN or a number."""
    x = torch.zeros(2, 1, 9, 9, device=device)
    x[0, 0, 4, 4], x[1, 0, 4, 4] = torch.nan, torch.inf
    f = torch.ones(3, device=device)
    y = imgops.filtered_lrelu(x, f, f, padding=1, clamp=2.0, impl=backend)
    assert int(y[0].isnan().sum()) == 25
    assert y[1].max() == 18
    assert int(y.isfinite().sum()) == y.numel() - 25


@pytest.mark.parametrize(
    ("up", "taps", "down_taps", "dtype", "first"),
    [
        (2, 12, (12,), torch.float16, "cuda"),
        (4, 24, (12,), torch.float32, "cuda"),
        (2, 12, (12, 12), torch.bfloat16, "cuda"),
        (2, 12, (12,), torch.float64, None),
        (2, 8, (12,), torch.float32, None),
        (4, 12, (12,), torch.float32, None),
        (2, 12, (12, 6), torch.float32, None),
        (1, 6, (12,), torch.float32, None),
        (2, 12, None, torch.float32, None),
    ],
)
def test_filters_that_cuda_takes_in_one_pass(up, taps, down_taps, dtype, first, monkeypatch):
    """The automatic choice tries the CUDA backend first for these, and no others."""
    asked = []
    monkeypatch.setattr(_backend, "choose", lambda *args: asked.append(args[-1]) or "reference")
    fd = None if down_taps is None else torch.ones(down_taps)
    imgops.filtered_lrelu(torch.ones(1, 1, 9, 9, dtype=dtype), torch.ones(taps), fd, None, up, 2, padding=12)
    assert asked == [first]


def test_the_number_of_threads_changes_nothing():
    x = torch.randn(2, 3, 90, 40, requires_grad=True)
    f = torch.randn(12)
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            y = imgops.filtered_lrelu(x, f, f, up=2, down=2, padding=11, clamp=1)
            results.append((y, *torch.autograd.grad(y.sum(), x)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("down", [7, 10**6, 2**57])
@pytest.mark.parametrize("channels_last", [False, True])
def test_few_of_many_rows_are_kept(down, channels_last):
    """Steps far beyond the filter and the image, with a sign mask and without."""
    form = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(1, 3, 50, 20, dtype=torch.float64).contiguous(memory_format=form)
    f = imgops.setup_filter([1, 3, 1])
    arguments = {"fu": f, "fd": f, "up": 2, "down": down, "padding": 3, "clamp": 0.5}
    expected = imgops.filtered_lrelu(x, **arguments, impl="reference")
    assert relative_error(imgops.filtered_lrelu(x, **arguments), expected) < 1e-12
    assert relative_error(imgops.filtered_lrelu(x.requires_grad_(), **arguments), expected) < 1e-12


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_arguments(data):
    factor, taps = st.integers(1, 5), st.integers(1, 9)
    filters = st.one_of(st.none(), st.tuples(taps), st.tuples(taps, taps))
    order = data.draw(st.permutations(range(4)))
    # the CPU's kernel takes sixteen planes at once
    channels = st.one_of(st.integers(0, 4), st.sampled_from([16, 19, 35]))
    shape = data.draw(
        st.tuples(st.integers(0, 3), channels, st.integers(1, 30), st.sampled_from([*range(1, 10), 16, 37]))
    )
    up, down = data.draw(factor), data.draw(factor)
    padding = data.draw(st.tuples(*[st.integers(-3, 12)] * 4))
    case = Case(
        shape, data.draw(filters), data.draw(filters), up, down, padding, data.draw(st.sampled_from([None, 0.5])),
        data.draw(st.booleans()), data.draw(st.booleans()),
    )  # fmt: skip
    dtype = data.draw(st.sampled_from(list(TOLERANCE)))
    x, fu, fd, b = operands(case, dtype)
    x = x.detach().permute(order).contiguous().permute([order.index(i) for i in range(4)]).requires_grad_()
    (uh, uw), (dh, dw) = ((1, 1) if t is None else (t[0], t[-1]) for t in (case.up_taps, case.down_taps))
    high = (shape[2] * up + padding[2] + padding[3] - uh + 1, shape[3] * up + padding[0] + padding[1] - uw + 1)
    low = (high[0] - dh) // down + 1, (high[1] - dw) // down + 1
    if min(*high, *low) < 1:
        with pytest.raises(ValueError, match="at least one pixel"):
            imgops.filtered_lrelu(x, fu, fd, b, **case.arguments())
        return
    y = imgops.filtered_lrelu(x, fu, fd, b, **case.arguments())
    assert y.shape == (*shape[:2], *low)
    dy = torch.randn_like(y)
    dx, db = torch.autograd.grad(y, [x, b], dy)
    x64, b64 = (t.detach().double().requires_grad_() for t in (x, b))
    y64 = imgops.filtered_lrelu(x64, fu, fd, b64, **case.arguments(), impl="reference")
    dx64, db64 = torch.autograd.grad(y64, [x64, b64], dy.double())
    assert relative_error(y, y64) < TOLERANCE[dtype]
    assert relative_error(dx, dx64) < TOLERANCE[dtype]
    # a sum of values that were each rounded, and that may cancel
    assert (db - db64).abs().max() <= TOLERANCE[dtype] * dx64.abs().sum().clamp(min=1e-3) if db.numel() else True


X, F = torch.zeros(1, 2, 8, 8), torch.ones(4)


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, "x must be a torch.Tensor; got list", lambda: imgops.filtered_lrelu([1.0])),
        (TypeError, "x must have one of the dtypes", lambda: imgops.filtered_lrelu(X.int())),
        (ValueError, "x must have 4 dimensions", lambda: imgops.filtered_lrelu(X[0])),
        (TypeError, "fu must be a torch.Tensor or None", lambda: imgops.filtered_lrelu(X, [1, 3, 3, 1])),
        (TypeError, "fd must have one of the dtypes", lambda: imgops.filtered_lrelu(X, F, F.int())),
        (ValueError, "fd must have 1 or 2 dimensions", lambda: imgops.filtered_lrelu(X, F, F[None, None])),
        (ValueError, "fu must be on x's device", lambda: imgops.filtered_lrelu(X, F.to("meta"))),
        (ValueError, r"b must have shape \[2\]; got \[3\]", lambda: imgops.filtered_lrelu(X, b=torch.zeros(3))),
        (TypeError, "up must be an int; got float", lambda: imgops.filtered_lrelu(X, F, up=2.0)),
        (ValueError, "up must be >= 1; got 0", lambda: imgops.filtered_lrelu(X, F, up=0)),
        (ValueError, "down must be >= 1; got -1", lambda: imgops.filtered_lrelu(X, F, down=-1)),
        (ValueError, "padding takes 1 or 2 or 4 ints", lambda: imgops.filtered_lrelu(X, padding=(1, 2, 3))),
        (TypeError, "gain must be a number", lambda: imgops.filtered_lrelu(X, gain="2")),
        (ValueError, "slope must be a number; got nan", lambda: imgops.filtered_lrelu(X, slope=math.nan)),
        (ValueError, "clamp must be >= 0", lambda: imgops.filtered_lrelu(X, clamp=-1)),
        (ValueError, "at least one pixel", lambda: imgops.filtered_lrelu(X, F, padding=-3)),
        (ValueError, "smaller than fd of 9 x 9", lambda: imgops.filtered_lrelu(X, None, torch.ones(9))),
        (RuntimeError, "the CUDA backend takes tensors on a GPU", lambda: imgops.filtered_lrelu(X, impl="cuda")),
    ],
)
def test_bad_input(error, match, call):
    raises_in_one_line(error, match, call)


@pytest.mark.parametrize(("backend", "device"), backends("filtered_lrelu", fast_only=True))
def test_one_pixel_of_a_channels_last_image(backend, device):
    """Whose format its gradient does not show."""
    x = torch.randn(2, 3, 4, 4, device=device).contiguous(memory_format=torch.channels_last).requires_grad_()
    f = torch.randn(4, device=device)
    gradients = []
    for run, t in ((backend, x), ("reference", x.double())):
        y = imgops.filtered_lrelu(t, f, f, down=4, padding=2, impl=run)
        assert y.shape[2:] == (1, 1)
        gradients.append(torch.autograd.grad(y, x, torch.arange(6.0, device=device).reshape(2, 3, 1, 1).to(y.dtype))[0])
    assert relative_error(*gradients) < 1e-6


@pytest.mark.parametrize(("backend", "device"), backends("filtered_lrelu"))
def test_gradient_of_no_pixels(backend, device):
    x, b, f = torch.zeros(1, 1, 0, 5, device=device, requires_grad=True), torch.zeros(1, requires_grad=True), None
    y = imgops.filtered_lrelu(x, f, f, b.to(device), up=2, down=2, padding=6, impl=backend)
    dx, db = torch.autograd.grad(y.sum(), [x, b])
    assert dx.shape == x.shape
    assert db == 0
