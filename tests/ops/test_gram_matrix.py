"""gram_matrix, feature_statistics and the losses on them: every backend against the float64 reference."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
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
    "expanded": lambda x: x[:1].expand(x.shape),
}
#: less than a block of channels, several with a rest, and more pixels than are summed at a time
SHAPES = [(2, 3, 5, 7), (1, 70, 9, 11), (2, 33, 1, 1), (1, 1, 6, 4), (3, 16, 33, 31)]
NORMALIZATIONS = ("chw", "hw", "nchw", "none")


def random_target(x, n=1):
    # not symmetric, so that both halves of its gradient show
    return torch.randn(n, x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)


def functions(x):
    """What is tested alike, each with the operands that are differentiable besides x."""
    n, c = x.shape[:2]
    mean = torch.randn(n, c, dtype=torch.float64, device=x.device)
    root = random_target(x, n)
    covariance = root @ root.mT / c + torch.eye(c, dtype=torch.float64, device=x.device)
    return {
        "gram": (lambda x, impl: imgops.gram_matrix(x, normalization="hw", impl=impl), []),
        "style": (lambda x, t, impl: imgops.style_loss(x, t, normalization="hw", impl=impl), [random_target(x)]),
        "mean": (lambda x, impl: imgops.feature_statistics(x, impl=impl)[0], []),
        "covariance": (lambda x, impl: imgops.feature_statistics(x, impl=impl)[1], []),
        "wasserstein": (lambda x, m, s, impl: imgops.wasserstein_loss(x, m, s, eps=0.1, impl=impl), [mean, covariance]),
    }


NAMES = ("gram", "style", "mean", "covariance", "wasserstein")


@pytest.mark.parametrize(("backend", "device"), backends("gram_matrix"))
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["gram", "covariance"])
def test_agrees_with_reference(name, shape, layout, dtype, backend, device):
    x = LAYOUTS[layout](torch.randn(shape, device=device).to(dtype)).requires_grad_()
    function, operands = functions(x)[name]
    y = function(x, *operands, backend)
    dy = torch.randn(y.shape, dtype=torch.float64, device=device)
    (dx,) = torch.autograd.grad(y, x, dy.to(y.dtype))

    x64 = x.detach().double().requires_grad_()
    y64 = function(x64, *operands, "reference")
    (dx64,) = torch.autograd.grad(y64, x64, dy)
    acc_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    assert y.dtype == acc_dtype
    assert dx.dtype == dtype
    assert relative_error(y, y64) < 2 * TOLERANCE[acc_dtype] or y64.abs().max() < 1e-12
    assert relative_error(dx, dx64) < 4 * TOLERANCE[dtype] or dx64.abs().max() < 1e-12
    if layout == "channels_last" and backend != "reference":
        assert dx.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("backend", "device"), backends("gram_matrix", exclude=("triton",)))
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name, channels_last, backend, device):
    x = torch.randn(2, 3, 2, 3, dtype=torch.float64, device=device)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    function, operands = functions(x)[name]
    leaves = [t.requires_grad_() for t in (x, *operands)]

    def run(x, *operands):
        if name == "wasserstein":
            # gradcheck moves one of two symmetric elements
            operands = operands[0], (operands[1] + operands[1].mT) / 2
        return function(x, *operands, backend)

    assert gradcheck(run, leaves)
    assert gradgradcheck(run, leaves)


@pytest.mark.parametrize(("backend", "device"), backends("gram_matrix", fast_only=True))
@pytest.mark.parametrize("name", NAMES)
def test_two_orders_of_gradient(name, backend, device):
    """Of a Triton backend too, which is too slow for numeric differences."""
    x = torch.randn(2, 5, 4, 3, dtype=torch.float64, device=device)
    function, operands = functions(x)[name]
    results = []
    for impl in (backend, "reference"):
        leaves = [t.clone().requires_grad_() for t in (x, *operands)]
        y = function(*leaves, impl)
        g = torch.linspace(-1, 1, y.numel(), dtype=y.dtype, device=device).reshape(y.shape).requires_grad_()
        first = torch.autograd.grad(y, leaves, g, create_graph=True)
        second = torch.autograd.grad(sum(d.square().sum() for d in first), [*leaves, g], materialize_grads=True)
        results.append([y, *first, *second])
    for actual, expected in zip(*results, strict=True):
        assert relative_error(actual, expected) < 1e-10 or expected.abs().max() < 1e-10


@pytest.mark.parametrize(("backend", "device"), backends("gram_matrix"))
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_normalization(normalization, backend, device):
    n, c, h, w = 2, 3, 4, 5
    x = torch.randn(n, c, h, w, dtype=torch.float64, device=device)
    g = imgops.gram_matrix(x, normalization=normalization, impl=backend)
    count = {"chw": c * h * w, "hw": h * w, "nchw": n * c * h * w, "none": 1}[normalization]
    assert relative_error(g, torch.einsum("nihw,njhw->nij", x, x) / count) < 1e-12


@pytest.mark.parametrize(("backend", "device"), backends("gram_matrix"))
def test_reduction(backend, device):
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, device=device)
    target = torch.randn(2, 3, 3, dtype=torch.float64, device=device)
    squares = (imgops.gram_matrix(x, impl="reference") - target).square()
    expected = {"mean": squares.mean(), "sum": squares.sum(), "none": squares.mean([1, 2])}
    for reduction, wanted in expected.items():
        assert relative_error(imgops.style_loss(x, target, reduction=reduction, impl=backend), wanted) < 1e-12
    each = [
        imgops.wasserstein_loss(x, x[:1, :, 0, 0], target[:1].square(), reduction=r, impl=backend) for r in expected
    ]
    assert relative_error(each[0], each[2].mean()) < 1e-12
    assert relative_error(each[1], each[2].sum()) < 1e-12


@pytest.mark.parametrize(("backend", "device"), backends("gram_matrix"))
@pytest.mark.parametrize("channels", [5, 64, 70])
def test_exactly_symmetric(channels, backend, device):
    x = torch.randn(1, channels, 12, 12, device=device)
    for y in (imgops.gram_matrix(x, impl=backend), imgops.feature_statistics(x, impl=backend)[1]):
        # the library that the reference calls sums both halves, on its own terms
        assert torch.equal(y, y.mT) or backend == "reference"


@pytest.mark.parametrize(("backend", "device"), backends("gram_matrix"))
def test_half_precision_does_not_overflow(backend, device):
    x = torch.full((1, 4, 16, 16), 200.0, dtype=torch.float16, device=device).requires_grad_()
    g = imgops.gram_matrix(x, normalization="none", impl=backend)
    assert g.dtype == torch.float32
    assert bool((g == 200.0**2 * 256).all())
    (dx,) = torch.autograd.grad(imgops.style_loss(x, torch.zeros(1, 4, 4, device=device), impl=backend), x)
    assert bool(dx.isfinite().all())


@pytest.mark.parametrize(("backend", "device"), backends("gram_matrix"))
def test_large_mean_costs_no_digits(backend, device):
    x = torch.randn(1, 8, 64, 64, dtype=torch.float64, device=device)
    x = (x + 1e4).float()
    mean, covariance = imgops.feature_statistics(x, impl=backend)
    flat = x.double().flatten(2)
    deviation = flat - flat.mean(2, keepdim=True)
    assert relative_error(mean, flat.mean(2)) < 3e-7
    assert relative_error(covariance, deviation @ deviation.mT / flat.shape[2]) < 2e-6


@pytest.mark.parametrize(("backend", "device"), backends("gram_matrix"))
@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4)])
def test_empty(shape, backend, device):
    x = torch.randn(shape, device=device).requires_grad_()
    n, c = shape[:2]
    g = imgops.gram_matrix(x, impl=backend)
    loss = imgops.style_loss(x, torch.zeros(1, c, c, device=device), impl=backend)
    (dx,) = torch.autograd.grad(loss + g.sum(), x)
    assert g.shape == (n, c, c)
    assert bool((g == 0).all())
    assert loss == 0
    assert dx.shape == shape
    if shape[2]:
        mean, covariance = imgops.feature_statistics(x, impl=backend)
        assert (mean.shape, covariance.shape) == ((n, c), (n, c, c))
    if n == 0:
        identity = torch.eye(c, device=device)[None]
        distance = imgops.wasserstein_loss(x, torch.zeros(1, c, device=device), identity, impl=backend)
        assert distance == 0


@pytest.mark.parametrize(("backend", "device"), backends("gram_matrix"))
def test_wasserstein(backend, device):
    """Zero to itself; of commuting covariances the distance of the roots; finite where both are singular."""
    x = torch.randn(2, 6, 9, 9, dtype=torch.float64, device=device)
    assert imgops.wasserstein_loss(x, *imgops.feature_statistics(x), impl=backend).abs() < 1e-9
    mean, covariance = imgops.feature_statistics(x)
    distance = imgops.wasserstein_loss(x, mean + 1, 4 * covariance, eps=1e-12, reduction="none", impl=backend)
    assert relative_error(distance, 6 + covariance.diagonal(dim1=1, dim2=2).sum(1)) < 1e-9

    flat = torch.ones(1, 6, 2, 2, device=device, requires_grad=True)
    for target in (torch.zeros(1, 6, 6, device=device), torch.ones(1, 6, 6, device=device)):
        loss = imgops.wasserstein_loss(flat, torch.zeros(1, 6, device=device), target.requires_grad_(), impl=backend)
        gradients = torch.autograd.grad(loss, [flat, target])
        assert bool(loss.isfinite())
        assert all(bool(g.isfinite().all()) for g in gradients)


@pytest.mark.skipif(not imgops._backend.load()["cpu", "cpu"].available, reason="the CPU extension is not built")
def test_does_not_depend_on_threads():
    code = """
import torch, imgops
def results(threads):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    for shape in ((1, 300, 20, 20), (2, 40, 90, 90), (1, 3, 300, 300)):
        x = torch.randn(shape, requires_grad=True)
        g = imgops.gram_matrix(x, impl="cpu")
        yield from (g, *imgops.feature_statistics(x, impl="cpu"), *torch.autograd.grad(g.square().sum(), x))
alone = list(results(1))
for threads in (2, 3, 7):
    assert all(torch.equal(a, b) for a, b in zip(alone, results(threads), strict=True)), threads
"""
    # in a process of its own: the number of threads is the process's
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 9), st.integers(0, 9)),
    order=st.permutations(range(4)),
    dtype=st.sampled_from(list(TOLERANCE)),
)
def test_any_shape(shape, order, dtype):
    x = torch.randn(shape).to(dtype).permute(order).requires_grad_()
    target = random_target(x)
    x64 = x.detach().double().requires_grad_()
    acc_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    loss, loss64 = imgops.style_loss(x, target), imgops.style_loss(x64, target, impl="reference")
    gram = imgops.gram_matrix(x64, impl="reference")
    assert relative_error(imgops.gram_matrix(x), gram) < TOLERANCE[acc_dtype]
    # the loss is of a difference, whose digits may cancel
    difference = (gram - target).norm()
    canceled = max(1.0, float((gram.norm() + target.norm()) / difference)) if difference > 0 else 1.0
    assert relative_error(loss, loss64) < canceled * TOLERANCE[acc_dtype]
    (dx,), (dx64,) = torch.autograd.grad(loss, x), torch.autograd.grad(loss64, x64)
    assert relative_error(dx, dx64) < 2 * canceled * TOLERANCE[dtype]


X, T, M = torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 3), torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, "gram_matrix: x must be a torch.Tensor; got list", lambda: imgops.gram_matrix([1.0])),
        (TypeError, "x must have one of the dtypes", lambda: imgops.gram_matrix(X.long())),
        (ValueError, "x must have 4 dimensions; got shape", lambda: imgops.gram_matrix(X[0])),
        (ValueError, "normalization must be one of chw, hw", lambda: imgops.gram_matrix(X, normalization="c")),
        (ValueError, "style_loss: normalization must be one", lambda: imgops.style_loss(X, T, normalization="c")),
        (ValueError, r"target must have shape \[2 or 1, 3, 3\]", lambda: imgops.style_loss(X, torch.zeros(3, 3, 3))),
        (ValueError, "target must have 3 dimensions", lambda: imgops.style_loss(X, T[0])),
        (ValueError, "target must be on x's device", lambda: imgops.style_loss(X, T.to("meta"))),
        (ValueError, "reduction must be one of mean, sum", lambda: imgops.style_loss(X, T, reduction="max")),
        (ValueError, "feature_statistics: x must have at least", lambda: imgops.feature_statistics(X[:, :, :0])),
        (ValueError, "target_mean must have shape", lambda: imgops.wasserstein_loss(X, M[:, :2], T)),
        (ValueError, "target_covariance must have shape", lambda: imgops.wasserstein_loss(X, M, T[:, :2])),
        (ValueError, "eps must be > 0; got 0", lambda: imgops.wasserstein_loss(X, M, T, eps=0)),
        (TypeError, "eps must be a number", lambda: imgops.wasserstein_loss(X, M, T, eps="1")),
        (ValueError, "reduction must be one of", lambda: imgops.wasserstein_loss(X, M, T, reduction="max")),
        (ValueError, "impl must be None or one of", lambda: imgops.gram_matrix(X, impl="fast")),
        (RuntimeError, "gram_matrix has no kernel in CUDA", lambda: imgops.gram_matrix(X, impl="cuda")),
    ],
)
def test_bad_input(error, match, call):
    raises_in_one_line(error, match, call)


def test_wasserstein_of_singular_covariances():
    """More channels than pixels, in float32: the eigenvalues that are 0 do not cost the digits of the rest."""
    x, style = torch.randn(2, 96, 4, 4, requires_grad=True), torch.randn(1, 96, 5, 5)
    loss = imgops.wasserstein_loss(x, *imgops.feature_statistics(style))
    exact = imgops.wasserstein_loss(x.double(), *imgops.feature_statistics(style.double()), impl="reference")
    assert loss.dtype == torch.float32
    assert relative_error(loss, exact) < 1e-5
    gradients = [torch.autograd.grad(t, x)[0] for t in (loss, exact)]
    assert relative_error(*gradients) < 1e-3
    assert imgops.wasserstein_loss(style, *imgops.feature_statistics(style)).abs() < 1e-4
