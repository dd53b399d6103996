"""Every registered op, forward ones and backward ones, through gradcheck and gradgradcheck; and under torch.func."""

from __future__ import annotations

import importlib
import pkgutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from golden import relative_error
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, jacrev, vmap

import imgops
import imgops.ops
from imgops.ops._common import STATUSES
from imgops.ops._registration import _NAMESPACES, WITHOUT_GRADIENT
from tests.op_specs import SCHEMAS
from tests.op_specs._sheet import values

pytestmark = pytest.mark.skipif(not STATUSES["cpu", "cpu"].available, reason="the CPU extension is not built")

for module in pkgutil.iter_modules(imgops.ops.__path__, "imgops.ops."):
    importlib.import_module(module.name)


@pytest.mark.parametrize("name", sorted(vars(_NAMESPACES["imgops"]).keys() - WITHOUT_GRADIENT))
def test_both_orders(name):
    arguments = SCHEMAS[name]()
    where = [i for i, a in enumerate(arguments) if isinstance(a, torch.Tensor) and a.dtype == torch.float64]
    op = getattr(_NAMESPACES["imgops"], name)

    def run(*tensors):
        given = list(arguments)
        for i, t in zip(where, tensors, strict=True):
            given[i] = t
        outputs = op(*given)
        outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        return tuple(o for o in outputs if o.is_floating_point() and o.numel() > 0)

    tensors = [arguments[i].requires_grad_() for i in where]
    assert gradcheck(run, tensors)
    assert gradgradcheck(run, tensors)


def _layer(impl, x, weight, styles, bias):
    f = imgops.setup_filter([1, 3, 3, 1])
    y = imgops.modulated_conv2d(
        x, weight, styles, bias=bias, act="swish", up=2, padding=1, resample_filter=f, impl=impl
    )
    return imgops.adain(y, y[:1] * 2 + 1, impl=impl).pow(3).sum()


@pytest.mark.parametrize("argument", range(4))
def test_functional_gradients(argument):
    inputs = values(2, 3, 5, 4), values(4, 3, 3, 3), values(2, 3), values(4)

    def gradients(impl):
        first = grad(lambda *inputs: _layer(impl, *inputs), argument)(*inputs)
        penalty = lambda *inputs: grad(lambda *inputs: _layer(impl, *inputs))(*inputs).pow(2).sum()  # noqa: E731
        return first, grad(penalty, argument)(*inputs)

    for actual, expected in zip(gradients("cpu"), gradients("reference"), strict=True):
        assert relative_error(actual, expected) < 1e-9


def test_functional_transforms():
    x, f = values(3, 2, 4, 4), imgops.setup_filter([1, 3, 3, 1])

    def results(impl):
        return (
            vmap(lambda x: imgops.upfirdn2d(x[None], f, up=2, impl=impl))(x),
            vmap(grad(lambda x: imgops.bias_act(x[None], act="lrelu", impl=impl).pow(2).sum()))(x),
            vmap(lambda x, s: imgops.adaptive_instance_norm(x, s, s, impl=impl), in_dims=(None, 0))(x, _S),
            jacrev(lambda x: imgops.bias_act(x, act="tanh", impl=impl))(x[:1]),
        )

    for actual, expected in zip(results("cpu"), results("reference"), strict=True):
        assert relative_error(actual, expected) < 1e-12


def test_nested_transforms():
    """A gradient through vmap, whose tensors do not say that one is wanted, and gradients of gradients."""
    x, weight, styles, f = values(2, 1, 3, 6, 5), values(2, 3, 3, 3), values(1, 3), imgops.setup_filter([1, 3, 3, 1])

    def results(impl):
        def filtered(x):
            return imgops.filtered_lrelu(x, f, f, up=2, down=2, padding=3, clamp=1.0, impl=impl).pow(2).sum()

        def layer(x):
            y = imgops.modulated_conv2d(x, weight, styles, act="swish", up=2, padding=1, resample_filter=f, impl=impl)
            return y.pow(2).sum()

        for loss in filtered, layer:
            yield grad(lambda x, loss=loss: vmap(loss)(x).sum())(x)
            yield vmap(grad(lambda x, loss=loss: grad(loss)(x).pow(2).sum()))(x)
            yield grad(lambda x, loss=loss: vmap(grad(loss))(x).pow(2).sum())(x)

    for actual, expected in zip(results("cpu"), results("reference"), strict=True):
        assert relative_error(actual, expected) < 1e-10


def test_a_gradient_through_vmap_for_filters():
    x, f = values(2, 1, 3, 6, 5), torch.rand(2, 4, dtype=torch.float64)

    def gradient(impl):
        def loss(x, f):
            return imgops.filtered_lrelu(x, f, f, up=2, down=2, padding=3, impl=impl).sum()

        return grad(lambda f: vmap(loss)(x, f).sum())(f)

    assert relative_error(gradient("cpu"), gradient("reference")) < 1e-10


def test_an_empty_vmap_says_so():
    with pytest.raises(RuntimeError, match="vmap over an empty batch is not supported"):
        vmap(lambda x: imgops.bias_act(x))(torch.zeros(0, 2, 3))


def test_open_sizes_compile():
    """Also those of operands that are checked against a size of x."""
    x, b, target = torch.randn(2, 5, 6, 7, requires_grad=True), torch.randn(5), torch.randn(1, 5, 5)

    def run(x):
        y = imgops.bias_act(x, b, act="lrelu")
        return imgops.filtered_lrelu(y, b=b, down=2).sum() + imgops.style_loss(y, target)

    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), run(x))


_S = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(4, 1, 2)


def test_threads_of_python_call_at_once():
    """Eight threads, each on inputs of its own, get what one gets alone."""
    inputs = [(values(2, 3, 8, 8), values(4, 3, 3, 3), values(2, 3), values(4)) for _ in range(8)]

    def work(i):
        leaves = [t.clone().requires_grad_() for t in inputs[i]]
        return torch.autograd.grad(_layer("cpu", *leaves), leaves)

    alone = [work(i) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for actual, expected in zip(pool.map(work, range(8)), alone, strict=True):
                assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))
