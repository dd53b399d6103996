"""adain and adaptive_instance_norm: every backend against the float64 reference, and autograd's numeric checks."""

from __future__ import annotations

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
    "sliced": lambda x: torch.stack([x, x], -1)[..., 0],
}


def test_reference_is_the_published_formula():
    content, style = torch.randn(2, 3, 5, 4, dtype=torch.float64), torch.randn(2, 3, 6, 7, dtype=torch.float64)

    def statistics(t):
        return t.mean([2, 3], keepdim=True), (t.var([2, 3], keepdim=True) + 1e-5).sqrt()

    (mean, std), (style_mean, style_std) = statistics(content), statistics(style)
    y = imgops.adain(content, style, impl="reference")
    torch.testing.assert_close(y, style_std * (content - mean) / std + style_mean)
    scale, bias = torch.randn(2, 2, 3, dtype=torch.float64)
    y = imgops.adaptive_instance_norm(content, scale, bias, impl="reference")
    x_hat = F.instance_norm(content, eps=1e-8)
    torch.testing.assert_close(y, (1 + scale)[:, :, None, None] * x_hat + bias[:, :, None, None])


@pytest.mark.parametrize(("backend", "device"), backends("adain"))
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("layout", list(LAYOUTS))
# planes that the kernels hold whole, and ones that they cut
@pytest.mark.parametrize("shape", [(2, 5, 7, 6), (1, 3, 150, 121)], ids=str)
def test_agrees_with_reference(shape, layout, dtype, backend, device):
    style_shape = (1, shape[1], 9, 4)
    make = LAYOUTS[layout]
    content, dy = (make(torch.randn(shape, device=device).to(dtype) * 2 + 0.5) for _ in range(2))
    style = make(torch.randn(style_shape, device=device).to(dtype) - 0.3)
    scale, bias = torch.randn(2, *shape[:2], device=device).to(dtype)
    for op, inputs in ((imgops.adain, [content, style]), (imgops.adaptive_instance_norm, [content, scale, bias])):
        results = []
        for run, in_float64 in ((backend, False), ("reference", True)):
            leaves = [t.detach().double() if in_float64 else t.detach() for t in inputs]
            leaves = [t.requires_grad_() for t in leaves]
            y = op(*leaves, impl=run)
            results.append([y, *torch.autograd.grad(y, leaves, dy.to(y.dtype))])
        assert results[0][0].dtype == dtype
        for actual, expected in zip(*results, strict=True):
            assert relative_error(actual, expected) < 2 * TOLERANCE[dtype]
        if layout == "channels_last":
            assert results[0][0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("backend", "device"), backends("adain"))
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_first_pixels_do_not_decide(channels_last, backend, device):
    """A bar of another level before or behind the picture, much longer or shorter than itself."""
    form = torch.channels_last if channels_last else torch.contiguous_format
    for bar in (4, 128, 2048, 9000):
        x = torch.randn(1, 2, 96, 96, device=device)
        for at in (slice(None, bar), slice(-bar, None)):
            moved = x.flatten(2).index_add(2, torch.arange(9216)[at], torch.full((1, 2, bar), 1e4)).view_as(x)
            moved = moved.contiguous(memory_format=form)
            mean, std = (torch.zeros(1, 2, device=device) for _ in range(2))
            y = imgops.adaptive_instance_norm(moved, mean, std, impl=backend)
            expected = imgops.adaptive_instance_norm(moved.double(), mean.double(), std.double(), impl="reference")
            assert relative_error(y, expected) < 3e-6, (bar, at)


@pytest.mark.parametrize(("backend", "device"), backends("adain"))
@pytest.mark.parametrize("channels_last", [False, True])
def test_statistics_do_not_cancel(channels_last, backend, device):
    """A mean of 1e4 with a variance of 1: E[x^2] - E[x]^2 would have no digit left in float32."""
    form = torch.channels_last if channels_last else torch.contiguous_format
    x = (torch.randn(2, 3, 150, 120, device=device) + 1e4).contiguous(memory_format=form).requires_grad_()
    scale, bias, dy = torch.randn(2, 3, device=device), torch.randn(2, 3, device=device), torch.randn_like(x)
    y = imgops.adaptive_instance_norm(x, scale, bias, impl=backend)
    expected = imgops.adaptive_instance_norm(x.double(), scale.double(), bias.double(), impl="reference")
    # the reference, in float32 itself, rounds the mean
    tolerance = 2e-3 if backend == "reference" else 3e-6
    assert relative_error(y, expected) < tolerance
    results = []
    for output, in_float64 in ((y, False), (expected, True)):
        dy = dy.double() if in_float64 else dy
        (dx,) = torch.autograd.grad(output, x, dy, create_graph=True)
        (d2x,) = torch.autograd.grad(dx.pow(2).sum(), x)
        style = x.detach().double() if in_float64 else x.detach()
        style.requires_grad_()
        moved = imgops.adain(dy, style, impl="reference" if in_float64 else backend)
        results.append((dx, d2x, torch.autograd.grad(moved, style, dy)[0]))
    for actual, wanted, times in zip(*results, (1, 3, 1), strict=True):
        assert relative_error(actual, wanted) < times * tolerance


@pytest.mark.parametrize(("backend", "device"), backends("adain", exclude=("triton",)))
@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_gradcheck(channels_last, unbiased, backend, device):
    def tensor(*shape):
        return torch.randn(shape, dtype=torch.float64, device=device).requires_grad_()

    form = torch.channels_last if channels_last else torch.contiguous_format
    content, style, scale, bias = tensor(2, 2, 3, 4), tensor(1, 2, 2, 2), tensor(2, 2), tensor(1, 2)

    def adain(content, style):
        content, style = (t.contiguous(memory_format=form) for t in (content, style))
        return imgops.adain(content, style, unbiased=unbiased, impl=backend)

    def norm(x, scale, bias):
        return imgops.adaptive_instance_norm(x.contiguous(memory_format=form), scale, bias, impl=backend)

    for run, inputs in ((adain, (content, style)), (norm, (content, scale, bias))):
        assert gradcheck(run, inputs)
        assert gradgradcheck(run, inputs)


def test_third_order():
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64).requires_grad_()
    style = torch.randn(2, 2, 3, 3, dtype=torch.float64).requires_grad_()

    def third(impl):
        total = imgops.adain(x, style, impl=impl).pow(3).sum()
        for _ in range(3):
            ds = torch.autograd.grad(total, [x, style], create_graph=True)
            total = sum(d.pow(2).sum() for d in ds)
        return torch.cat([d.flatten() for d in ds])

    assert relative_error(third(None), third("reference")) < 1e-9


@pytest.mark.parametrize(("backend", "device"), backends("adain"))
def test_constant_planes_and_single_pixels(backend, device):
    scale, bias = torch.full((1, 2), 3.0, device=device), torch.full((1, 2), 0.5, device=device)
    for x in (torch.full((1, 2, 5, 5), 7.0, device=device), torch.full((1, 2, 1, 1), -2.0, device=device)):
        assert (imgops.adaptive_instance_norm(x, scale, bias, impl=backend) == 0.5).all()


def test_autocast_keeps_the_dtype_of_half_images():
    x, scale = torch.randn(2, 3, 4, 4), torch.randn(2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert imgops.adaptive_instance_norm(x.bfloat16(), scale, scale).dtype == torch.bfloat16


@pytest.mark.parametrize("channels_last", [False, True])
def test_threads_do_not_change_the_bits(channels_last):
    form = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(2, 70, 60, 61).contiguous(memory_format=form).requires_grad_()
    style, dy, threads = torch.randn(2, 70, 33, 20), torch.randn_like(x), torch.get_num_threads()
    results = []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            y = imgops.adain(x, style)
            results.append((y, torch.autograd.grad(y, x, dy)[0]))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(1, 9), st.integers(1, 9)),
    order=st.permutations(range(4)),
    dtype=st.sampled_from(list(TOLERANCE)),
    shift=st.sampled_from([0.0, 30.0]),
)
def test_any_shape(shape, order, dtype, shift):
    x = (torch.randn(shape) + shift).to(dtype).permute(order)
    if x.shape[2] * x.shape[3] < 2:
        return
    scale, bias = torch.randn(2, *x.shape[:2]).to(dtype)
    y = imgops.adaptive_instance_norm(x, scale, bias, eps=1e-3)
    expected = imgops.adaptive_instance_norm(x.double(), scale.double(), bias.double(), eps=1e-3, impl="reference")
    assert relative_error(y, expected) < 2 * TOLERANCE[dtype]
    if x.shape[0] > 0:
        y = imgops.adain(x, x[:1] * 2)
        expected = imgops.adain(x.double(), (x[:1] * 2).double(), impl="reference")
        assert relative_error(y, expected) < 2 * TOLERANCE[dtype]


X = torch.zeros(2, 3, 4, 4)
S = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, "content must be a torch.Tensor; got list", lambda: imgops.adain([1.0], X)),
        (ValueError, "style must have 4 dimensions", lambda: imgops.adain(X, X[0])),
        (ValueError, r"style must have shape \[2 or 1, 3, H, W\]; got \[2, 1,", lambda: imgops.adain(X, X[:, :1])),
        (ValueError, "style must be on the content's device cpu; got meta", lambda: imgops.adain(X, X.to("meta"))),
        (ValueError, r"style must have at least 2 pixels; got", lambda: imgops.adain(X, X[:, :, :1, :1])),
        (ValueError, "content must have at least 1 pixels", lambda: imgops.adain(X[:, :, :0], X, unbiased=False)),
        (ValueError, "eps must be >= 0; got -1", lambda: imgops.adain(X, X, eps=-1)),
        (TypeError, "eps must be a number", lambda: imgops.adaptive_instance_norm(X, S, S, eps="1")),
        (ValueError, r"scale must have shape \[2 or 1, 3\]", lambda: imgops.adaptive_instance_norm(X, S.t(), S)),
        (ValueError, "bias must have 2 dimensions", lambda: imgops.adaptive_instance_norm(X, S, X)),
        (TypeError, "x must have one of the dtypes", lambda: imgops.adaptive_instance_norm(X.int(), S, S)),
        (RuntimeError, "adain has no kernel in CUDA C\\+\\+", lambda: imgops.adain(X, X, impl="cuda")),
    ],
)  # fmt: skip
def test_bad_input(error, match, call):
    raises_in_one_line(error, match, call)
