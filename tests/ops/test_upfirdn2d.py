"""upfirdn2d: every backend against the float64 reference, the recorded cases, and autograd's numeric checks."""

from __future__ import annotations

import importlib
import subprocess
import sys

import numpy as np
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
from imgops.ops._common import STATUSES
from imgops.ops.upfirdn2d import choose_resampler, filter_size
from tests.op_specs.upfirdn2d import RESAMPLE, resample_filter

IDS = [f"{c.taps}-up{c.up}-down{c.down}" for c in RESAMPLE]


def arguments(case):
    return {
        "up": case.up,
        "down": case.down,
        "padding": case.padding,
        "flip_filter": case.flip_filter,
        "gain": case.gain,
    }


@pytest.mark.parametrize(("backend", "device"), backends(fast_only=True))
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("rank_one", [False, True])
@pytest.mark.parametrize("case", RESAMPLE, ids=IDS)
def test_agrees_with_reference(case, rank_one, channels_last, dtype, backend, device):
    f = resample_filter(case.taps, rank_one, device)
    x = torch.randn(case.shape, device=device).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    x.requires_grad_()
    y = imgops.upfirdn2d(x, f, **arguments(case), impl=backend)
    dy = torch.randn_like(y)
    (dx,) = torch.autograd.grad(y, x, dy)
    x64 = x.detach().double().requires_grad_()
    y64 = imgops.upfirdn2d(x64, f, **arguments(case), impl="reference")
    (dx64,) = torch.autograd.grad(y64, x64, dy.double())
    assert y.dtype == dtype
    assert relative_error(y, y64) < TOLERANCE[dtype]
    assert relative_error(dx, dx64) < TOLERANCE[dtype]
    if channels_last and x.stride(1) == 1 and not x.is_contiguous():
        assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("backend", "device"), backends(exclude=("triton",)))
@pytest.mark.parametrize("case", RESAMPLE[:10], ids=IDS[:10])
def test_gradcheck(case, backend, device):
    """First and second order for x and for the filter."""
    x = torch.randn(1, 2, *(min(s, 5) for s in case.shape[2:]), dtype=torch.float64, device=device).requires_grad_()
    f = resample_filter(case.taps, device=device)
    # smaller filters keep the numeric Jacobian small
    inputs = (x,) if f is None else (x, f[tuple(slice(0, 4) for _ in f.shape)].double().requires_grad_())

    def run(x, f=None):
        return imgops.upfirdn2d(x, f, **arguments(case), impl=backend)

    assert gradcheck(run, inputs)
    assert gradgradcheck(run, inputs)


@pytest.mark.parametrize(("backend", "device"), backends(fast_only=True))
def test_gradient_is_another_upfirdn2d(backend, device):
    """Differentiating <v, dx> for dy gives the forward back."""
    x = torch.randn(1, 2, 6, 6, dtype=torch.float64, device=device).requires_grad_()
    f = imgops.setup_filter([1, 3, 3, 1], device=device)
    dy = torch.randn(1, 2, 12, 12, dtype=torch.float64, device=device).requires_grad_()
    y = imgops.upfirdn2d(x, f, up=2, padding=[2, 1, 2, 1], impl=backend)
    (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
    v = torch.randn_like(dx)
    (ddy,) = torch.autograd.grad((dx * v).sum(), dy)
    assert relative_error(ddy, imgops.upfirdn2d(v, f, up=2, padding=[2, 1, 2, 1], impl=backend)) < 1e-12


@pytest.mark.parametrize(("backend", "device"), backends(fast_only=True))
def test_with_an_epilogue_it_is_both_in_turn(backend, device):
    ops = torch.ops.imgops_triton if backend == "triton" else torch.ops.imgops
    x, f = torch.randn(2, 3, 6, 5, device=device), torch.randn(3, 4, device=device)
    b, scale = torch.randn(3, device=device), torch.randn(2, 3, device=device)
    resample = ([2, 1], [1, 2], [2, 1, 1, 1], False, 1.5)
    y = ops.upfirdn2d(x, f, *resample)
    epilogue = (b, scale, torch.randn(1, 1, *y.shape[2:], device=device), "lrelu", 0.2, 1.4, 256.0)
    fused, kept = ops.upfirdn2d_bias_act(x, f, *resample, *epilogue, True)
    torch.testing.assert_close(kept, y)
    torch.testing.assert_close(fused, ops.bias_act(y, 1, *epilogue))


@pytest.mark.parametrize(("backend", "device"), backends(exclude=("triton",)))
def test_export_with_dynamic_shapes(backend, device):
    class Up(torch.nn.Module):
        def forward(self, x):
            return imgops.upfirdn2d(x, torch.ones(4, device=x.device), up=2, padding=[2, 1, 2, 1], impl=backend)

    x = torch.randn(2, 3, 8, 8, device=device)
    shapes = {"x": {0: torch.export.Dim("n"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}}
    program = torch.export.export(Up(), (x,), dynamic_shapes=shapes)
    other = torch.randn(3, 3, 5, 9, device=device)
    torch.testing.assert_close(program.module()(other), Up()(other))


def test_non_finite_values_stay_where_they_are():
    """A tap that falls on an inserted zero, or beyond the edge, multiplies nothing."""
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 4, 4] = torch.inf
    y = imgops.upfirdn2d(x, torch.ones(3), up=2, padding=[1, 1, 1, 1])
    assert bool(y[0, 0, 7:10, 7:10].isinf().all())
    assert int(y.isfinite().sum()) == y.numel() - 9


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_arguments(data):
    pair = st.tuples(st.integers(1, 4), st.integers(1, 4))
    up, down = data.draw(pair), data.draw(pair)
    padding = data.draw(st.tuples(*[st.integers(-3, 8)] * 4))
    shape = data.draw(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(1, 9), st.integers(1, 9)))
    taps = data.draw(
        st.one_of(st.none(), st.tuples(st.integers(1, 12)), st.tuples(st.integers(1, 6), st.integers(1, 6)))
    )
    dtype = data.draw(st.sampled_from(list(TOLERANCE)))
    order = data.draw(st.permutations(range(4)))
    f = resample_filter(taps, rank_one=data.draw(st.booleans()))
    x = torch.randn([shape[i] for i in order]).to(dtype).permute([order.index(i) for i in range(4)])
    kwargs = {"up": up, "down": down, "padding": padding, "flip_filter": data.draw(st.booleans()), "gain": 1.3}
    width, height = (
        (shape[3 - i] * up[i] + padding[2 * i] + padding[2 * i + 1] - filter_size(f)[i]) // down[i] + 1 for i in (0, 1)
    )
    if min(width, height) < 1:
        with pytest.raises(ValueError, match="at least one pixel"):
            imgops.upfirdn2d(x, f, **kwargs)
        return
    y = imgops.upfirdn2d(x, f, **kwargs)
    assert y.shape == (*shape[:2], height, width)
    expected = imgops.upfirdn2d(x.double(), f, **kwargs, impl="reference")
    assert relative_error(y, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize(
    ("taps", "up", "down", "act", "dtype", "channels_last", "first"),
    [
        ((4, 4), (1, 1), (1, 1), "lrelu", torch.float16, False, "cuda"),
        ((4,), (2, 2), (1, 1), "linear", torch.float32, False, "cuda"),
        ((4, 4), (1, 1), (2, 2), "relu", torch.bfloat16, False, "cuda"),
        ((4, 4), (1, 1), (1, 1), "lrelu", torch.float16, True, None),
        ((4, 4), (1, 1), (1, 1), "swish", torch.float16, False, None),
        ((4, 4), (1, 1), (1, 1), "lrelu", torch.float64, False, None),
        ((4, 4), (2, 1), (1, 1), "lrelu", torch.float32, False, None),
        ((4, 4), (2, 2), (2, 2), "lrelu", torch.float32, False, None),
        ((4, 8), (1, 1), (1, 1), "lrelu", torch.float32, False, None),
        (None, (2, 2), (1, 1), "linear", torch.float32, False, None),
    ],
)
def test_what_cuda_is_tried_first_for(taps, up, down, act, dtype, channels_last, first, monkeypatch):
    """By the automatic choice: four taps of planar images."""
    asked = []
    monkeypatch.setattr(_backend, "choose", lambda *args: asked.append(args) or "reference")
    form = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.ones(1, 2, 8, 8, dtype=dtype).contiguous(memory_format=form)
    choose_resampler(x, None if taps is None else torch.ones(taps), up, down, None, act)
    assert [(args[0], args[-1]) for args in asked] == [("upfirdn2d", first)]


@pytest.mark.parametrize("in_dims", [0, 1, 4])
def test_vmap_over_any_dimension(in_dims):
    x, f = torch.randn(2, 3, 4, 6, 5), torch.randn(4)
    y = torch.func.vmap(lambda t: imgops.upfirdn2d(t, f, padding=2), in_dims=in_dims)(x)
    expected = [imgops.upfirdn2d(t, f, padding=2) for t in x.unbind(in_dims)]
    torch.testing.assert_close(y, torch.stack(expected))


def test_setup_filter():
    f = imgops.setup_filter([1, 3, 3, 1])
    torch.testing.assert_close(f, torch.tensor([1.0, 3, 3, 1]).outer(torch.tensor([1.0, 3, 3, 1])) / 64)
    assert f.dtype == torch.float32
    assert imgops.setup_filter(list(range(1, 9))).shape == (8,)
    assert imgops.setup_filter([1, 2, 1], separable=True).shape == (3,)
    torch.testing.assert_close(
        imgops.setup_filter([1, 3], normalize=False, gain=4, separable=True), torch.tensor([2.0, 6.0])
    )
    torch.testing.assert_close(
        imgops.setup_filter([[1, 2], [3, 4]], normalize=False, flip_filter=True), torch.tensor([[4.0, 3], [2, 1]])
    )
    assert imgops.setup_filter(None).shape == (1, 1)


X, F4 = torch.zeros(1, 2, 8, 8), torch.ones(4, 4)


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (ValueError, "x must have 4 dimensions", lambda: imgops.upfirdn2d(X[0], F4)),
        (TypeError, "x must have one of the dtypes", lambda: imgops.upfirdn2d(X.int(), F4)),
        (TypeError, "f must be a torch.Tensor or None", lambda: imgops.upfirdn2d(X, [1, 3, 3, 1])),
        (TypeError, "f must have one of the dtypes", lambda: imgops.upfirdn2d(X, F4.int())),
        (ValueError, "f must have 1 or 2 dimensions", lambda: imgops.upfirdn2d(X, F4[None])),
        (ValueError, "f must be on x's device", lambda: imgops.upfirdn2d(X, F4.to("meta"))),
        (ValueError, "up must be >= 1; got 0", lambda: imgops.upfirdn2d(X, F4, up=0)),
        (ValueError, "down must be >= 1", lambda: imgops.upfirdn2d(X, F4, down=(2, -1))),
        (TypeError, "up must be an int or a sequence of ints", lambda: imgops.upfirdn2d(X, F4, up=1.5)),
        (ValueError, "padding takes 1 or 2 or 4 ints", lambda: imgops.upfirdn2d(X, F4, padding=(1, 2, 3))),
        (ValueError, "at least one pixel", lambda: imgops.upfirdn2d(X, F4, padding=-3)),
        (ValueError, "gain must be >= 0 with a separable filter", lambda: imgops.upfirdn2d(X, F4[0], gain=-1)),
        (ValueError, "taps that sum to 0", lambda: imgops.setup_filter([1, -1])),
        (ValueError, "taps must have 1 or 2 dimensions", lambda: imgops.setup_filter([])),
        (ValueError, "separable=True takes 1-D taps", lambda: imgops.setup_filter([[1.0]], separable=True)),
        (TypeError, "taps must be numbers", lambda: imgops.setup_filter("1331")),
    ],
)
def test_bad_input(error, match, call):
    raises_in_one_line(error, match, call)


#: (size, up, down, padding before and after) along an axis, of which nearly all is zeros, cropped, or skipped
FAR = {
    "down": (16, 1, 10**8, 2, 1),
    "down beyond 32 bits": (16, 2, 2**57, 2, 1),
    "padding before": (16, 1, 1, 10**9, -(10**9) + 3),
    "padding after": (16, 2, 1, -(10**9) + 3, 10**9),
    "up": (16, 10**8, 1, -4 * 10**8, -12 * 10**8 + 9),
    "up and down": (16, 10**8, 10**8, 5, 5),
    "coprime": (16, 10**7, 10**7 + 1, 5, 5),
    "before all": (16, 3, 10**6, 10**9, -(10**9) + 3),
    "between two samples": (16, 10**6, 1, -(10**6) - 10, -15 * 10**6 + 40),
    "a few pixels": (2000, 2, 1, -1990, -1990),
}


@pytest.mark.skipif(sys.platform != "linux", reason="the processor's time is limited with RLIMIT_CPU")
@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_far_arguments_take_no_time(impl):
    """In a process that may take four more seconds of a processor and 8 GiB of addresses."""
    if impl == "cpu" and not STATUSES["cpu", "cpu"].available:
        pytest.skip("the CPU extension is not built")
    script = """if True:
        import math, resource, sys, time

        import torch
        import imgops

        x, f = torch.randn(2, 3, 16, 16, requires_grad=True), imgops.setup_filter([1, 3, 3, 1])
        imgops.upfirdn2d(x, f, up=2, padding=2, impl=sys.argv[1]).sum().backward()
        end = math.ceil(time.process_time()) + 4
        resource.setrlimit(resource.RLIMIT_CPU, (end, end))
        resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
        imgops.upfirdn2d(x, f, down=10**8, impl=sys.argv[1]).sum().backward()
        imgops.upfirdn2d(x, f, padding=[10**9, -(10**9) + 3, 0, 0], impl=sys.argv[1]).sum().backward()
        imgops.upfirdn2d(x, f, padding=[0, 0, -(10**9) + 3, 10**9], impl=sys.argv[1]).sum().backward()
    """
    run = subprocess.run([sys.executable, "-c", script, impl], capture_output=True, text=True)
    assert run.returncode == 0, f"ended by signal {-run.returncode}: {run.stderr}"


def along_an_axis(x, f, size, up, down, before, after):
    """upfirdn2d along the last dimension by its definition, in the positions where a sample meets a tap."""
    outputs = (size * up + before + after - len(f) + down) // down
    y = torch.zeros(*x.shape[:-1], outputs, dtype=x.dtype)
    for o in range(outputs):
        for k, tap in enumerate(reversed(f.tolist())):
            sample, rest = divmod(o * down + k - before, up)
            if rest == 0 and 0 <= sample < size:
                y[..., o] += tap * x[..., sample]
    return y


@pytest.mark.parametrize("vertical", [False, True])
@pytest.mark.parametrize("name", FAR)
@pytest.mark.parametrize(("backend", "device"), backends("upfirdn2d"))
def test_zeros_and_crops_are_not_work(backend, device, name, vertical):
    """With factors and paddings as large as these, a pass that touched what they name would end in hours, or never."""
    size, up, down, before, after = FAR[name]
    x = torch.randn(1, 2, 3, size, dtype=torch.float64)
    f = torch.tensor([1.0, 3.0, 3.0, 2.0], dtype=torch.float64)
    expected = along_an_axis(x, f, *FAR[name])
    x, f = x.to(device), f[None].to(device)
    factors = {"up": (up, 1), "down": (down, 1), "padding": (before, after, 0, 0)}
    if vertical:
        x, f, expected = x.mT.contiguous(), f.mT.contiguous(), expected.mT
        factors = {"up": (1, up), "down": (1, down), "padding": (0, 0, before, after)}
    x.requires_grad_()
    y = imgops.upfirdn2d(x, f, **factors, impl=backend)
    torch.testing.assert_close(y.cpu(), expected)
    # the gradient is the transpose, and its own gradient the filter again
    v = torch.randn_like(y, requires_grad=True)
    (dx,) = torch.autograd.grad(y, x, v, create_graph=True)
    torch.testing.assert_close((dx * x).sum(), (v * y).sum())
    (dv,) = torch.autograd.grad((dx * x.detach()).sum(), v)
    torch.testing.assert_close(dv, y.detach())


@pytest.mark.parametrize(("backend", "device"), backends("upfirdn2d", exclude=("triton",)))
def test_far_arguments_mean_what_near_ones_do(backend, device, monkeypatch):
    """Every resampling by the way that far ones take, whose gradients for the filter come along."""
    module = importlib.import_module("imgops.ops._far")
    random = np.random.default_rng(0)
    for _ in range(100):
        x = torch.randn(1, 2, *random.integers(1, 7, 2), dtype=torch.float64, device=device, requires_grad=True)
        shape = random.integers(1, 6, random.integers(1, 3)).tolist()
        f = torch.randn(shape, dtype=torch.float64, device=device, requires_grad=True)
        arguments = random.integers(1, 9, 2), random.integers(1, 9, 2), random.integers(-30, 30, 4)
        monkeypatch.setattr(module, "FAR", 10**9)
        try:
            expected = imgops.upfirdn2d(x, f, *arguments, impl="reference")
        except ValueError:
            continue
        monkeypatch.setattr(module, "FAR", 0)
        y = imgops.upfirdn2d(x, f, *arguments, impl=backend)
        torch.testing.assert_close(y, expected)
        v = torch.randn_like(y)
        torch.testing.assert_close(torch.autograd.grad(y, [x, f], v), torch.autograd.grad(expected, [x, f], v))
