"""How the ops are called and differentiated, whichever op it is: the gradients that a pass asks for, modes, tracers."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from backends import backends
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

import imgops
from imgops.ops._common import STATUSES

needs_cpu_backend = pytest.mark.skipif(not STATUSES["cpu", "cpu"].available, reason="the CPU extension is not built")
fast_backends = pytest.mark.parametrize(("backend", "device"), backends(exclude=("reference",)))


class Calls(TorchDispatchMode):
    """Counts the ops that are called within it."""

    def __init__(self):
        super().__init__()
        self.counter = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counter[function.overloadpacket] += 1
        return function(*args, **(kwargs or {}))


def convolution(x, weight):
    return imgops.modulated_conv2d(x, weight, torch.ones(1, 64), padding=1, impl="cpu").sum()


@needs_cpu_backend
@pytest.mark.parametrize("leaves", [True, False])
def test_only_gradients_asked_for(leaves):
    """A gradient penalty differentiates with respect to x alone first: then a weight's gradient is not computed."""
    x = torch.randn(1, 64, 32, 32, requires_grad=True)
    weight = torch.randn(64, 64, 3, 3, requires_grad=True)
    y = convolution(x, weight) if leaves else convolution(x * 1, weight * 0.1)
    kernel = torch.ops.imgops.conv2d_weight_gradient
    (dx, dweight) = torch.autograd.grad(y, [x, weight], create_graph=True)
    for wanted, expected, count in ([x], [dx], 0), ([weight], [dweight], 1), ([x, weight], [dx, dweight], 1):
        with Calls() as calls:
            gradients = torch.autograd.grad(y, wanted, create_graph=True)
        assert calls.counter[kernel] == count
        assert all(torch.equal(g, e) for g, e in zip(gradients, expected, strict=True))
    for inputs, count in ([x], 0), ([weight], 1), (None, 1):
        x.grad = weight.grad = None
        with Calls() as calls:
            y.backward(inputs=inputs, retain_graph=True)
        assert calls.counter[kernel] == count
        for t, e in (x, dx), (weight, dweight):
            wanted = inputs is None or any(t is i for i in inputs)
            assert torch.equal(t.grad, e) if wanted else t.grad is None


@fast_backends
def test_the_engine_is_not_asked_for_a_single_gradient(backend, device, monkeypatch):
    """The question takes as long as a small op, and a node runs for some gradient."""
    x = torch.randn(2, 3, device=device, requires_grad=True)
    asked = []
    monkeypatch.setattr(torch._C, "_will_engine_execute_node", lambda node: asked.append(node) or True)
    for b, count in (torch.ones(3, device=device), 0), (torch.ones(3, device=device, requires_grad=True), 2):
        torch.autograd.grad(imgops.bias_act(x, b, act="relu", impl=backend).sum(), x)
        assert len(asked) == count


@fast_backends
def test_a_node_called_by_hand(backend, device):
    """Nothing tells which gradients are asked for then: all are computed. A pass around it speaks of its own."""
    x, b = torch.randn(2, 3, device=device, requires_grad=True), torch.randn(3, device=device, requires_grad=True)
    node = imgops.bias_act(x * 2, b * 1, act="relu", gain=1.0, impl=backend).grad_fn
    expected = (x * 2 + b > 0).float()
    seen = []

    class Around(torch.autograd.Function):
        @staticmethod
        def forward(ctx, t):
            return t.clone()

        @staticmethod
        def backward(ctx, d):
            seen.append(node.apply(torch.ones(2, 3, device=device)))
            return d

    seen.append(node.apply(torch.ones(2, 3, device=device)))
    t = torch.ones(1, device=device, requires_grad=True)
    Around.apply(t).backward()
    for dx, _, db, *_ in seen:
        assert torch.equal(dx, expected)
        assert torch.equal(db, expected.sum(0))


@fast_backends
def test_a_pass_within_a_pass(backend, device):
    """Each pass over a node asks for its own gradients, also one that another's hook begins."""
    x, b = torch.randn(2, 3, device=device, requires_grad=True), torch.randn(3, device=device, requires_grad=True)
    inner = []

    def unpack(t):
        if not inner:
            inner.append(None)
            inner[:] = torch.autograd.grad(total, [x, b], retain_graph=True)
        return t

    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, unpack):
        total = imgops.bias_act(x * 1, b * 1, act="swish", impl=backend).sum()
    (dx,) = torch.autograd.grad(total, x, retain_graph=True)
    assert torch.equal(inner[0], dx)
    assert torch.equal(inner[1], torch.autograd.grad(total, b)[0])


@needs_cpu_backend
def test_passes_of_several_threads_over_one_graph():
    x = torch.randn(1, 64, 32, 32, requires_grad=True)
    weight = torch.randn(64, 64, 3, 3, requires_grad=True)
    y = convolution(x * 1, weight * 1)
    expected = torch.autograd.grad(y, [x, weight], retain_graph=True)

    def work(t, e):
        for _ in range(30):
            (gradient,) = torch.autograd.grad(y, t, retain_graph=True, allow_unused=True)
            assert torch.equal(gradient, e)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, (x, weight), expected))


@fast_backends
def test_forward_mode_raises(backend, device):
    """And never drops a tangent."""
    x = torch.randn(2, 3, 4, 4, device=device)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        with pytest.raises(RuntimeError, match="jvp"):
            imgops.bias_act(dual, act="lrelu", impl=backend)
    with pytest.raises(RuntimeError, match="jvp"):
        torch.func.jacfwd(lambda t: imgops.upfirdn2d(t, None, up=2, impl=backend))(x)

    def compiled(x, v):
        return torch.func.jvp(lambda t: imgops.bias_act(t, act="lrelu", impl=backend), (x,), (v,))

    with pytest.raises(Exception, match="jvp"):
        torch.compile(compiled, backend="eager")(x, x)


@fast_backends
def test_the_node_is_named_for_the_op(backend, device):
    x = torch.randn(2, 3, device=device, requires_grad=True)
    assert imgops.bias_act(x, impl=backend).grad_fn.name() == "imgops_bias_actBackward"


@needs_cpu_backend
@pytest.mark.filterwarnings("ignore")
def test_a_traced_module_can_be_saved(tmp_path):
    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.b = torch.nn.Parameter(torch.randn(3))

        def forward(self, x):
            return imgops.bias_act(x, self.b, act="lrelu", impl="cpu")

    module, x = Module(), torch.randn(2, 3, 4, 4)
    torch.jit.trace(module, x).save(tmp_path / "traced.pt")
    assert torch.equal(torch.jit.load(tmp_path / "traced.pt")(x), module(x))


@needs_cpu_backend
@pytest.mark.parametrize(("act", "kept"), [("linear", False), ("lrelu", False), ("swish", True)])
def test_only_what_tells_the_slope_is_kept(act, kept):
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    weight, styles = torch.randn(3, 3, 3, 3), torch.ones(1, 3)
    f = imgops.setup_filter([1, 3, 3, 1])
    y = imgops.modulated_conv2d(
        x, weight, styles, demodulate=False, act=act, up=2, padding=1, resample_filter=f, impl="cpu"
    )
    assert y.grad_fn.name() == "imgops_upfirdn2d_bias_actBackward"
    assert y.grad_fn.keep == kept


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("flip_filter", lambda x, v: imgops.upfirdn2d(x, torch.rand(3, 3), padding=1, flip_filter=v)),
        ("flip_filter", lambda x, v: imgops.filtered_lrelu(x, torch.rand(3), padding=1, flip_filter=v)),
        ("flip_weight", lambda x, v: imgops.modulated_conv2d(x, WEIGHT, STYLES, flip_weight=v)),
        ("demodulate", lambda x, v: imgops.modulated_conv2d(x, WEIGHT, STYLES, demodulate=v)),
        ("unbiased", lambda x, v: imgops.adain(x, x, unbiased=v)),
    ],
)
def test_booleans(name, call):
    """NumPy's are taken; a number or a string, whose truth may not be what it looks like, is refused."""
    x = torch.randn(1, 3, 5, 5)
    for value in True, False:
        torch.manual_seed(0)
        expected = call(x, value)
        torch.manual_seed(0)
        assert torch.equal(call(x, np.bool_(value)), expected)
    for value in 2, 1, 0, 1.0, None, "False":
        with pytest.raises(TypeError, match=f"{name} must be a bool; got {value!r}"):
            call(x, value)


WEIGHT, STYLES = torch.randn(2, 3, 3, 3), torch.randn(1, 3)
