"""Every public op where autograd is not called plainly: compiled, on inputs changed in place, traced without it."""

from __future__ import annotations

import pytest
import torch
from backends import backends
from golden import relative_error
from torch import Tensor
from torch._dynamo import compiled_autograd
from torch.fx.experimental.proxy_tensor import make_fx

import imgops
import imgops.ops.filtered_lrelu
import imgops.ops.fused_conv2d
from tests.op_specs import CALLS

#: one call of each op is enough where compiling takes long
QUICK = ("bias_act-lrelu", "upfirdn2d-matrix", "filtered_lrelu")
ONE_EACH = [name for name in CALLS if "-" not in name or name in (*QUICK, "displace-zeros")]
fast_backends = pytest.mark.parametrize(("backend", "device"), backends(fast_only=True))


def outputs_of(y: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return y if isinstance(y, tuple) else (y,)


def loss_of(y: Tensor | tuple[Tensor, ...]) -> Tensor:
    return sum((o * torch.linspace(-1, 1.3, o.numel(), dtype=o.dtype).reshape(o.shape)).sum() for o in outputs_of(y))


def gradient_of_loss(name: str, impl: str, leaves: dict[str, Tensor], order: int) -> Tensor:
    """A loss that has so many orders of gradients below it, all but the last taken."""
    loss = loss_of(CALLS[name].run(impl, **leaves))
    for _ in range(order - 1):
        gradients = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
        loss = loss + loss_of(tuple(g.square() for g in gradients))
    return loss


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in ONE_EACH])
@pytest.mark.parametrize(("backend", "device"), backends(fast_only=True, exclude=("triton",)))
def test_compiled_autograd(backend, device, name, order):
    """It compiles the last pass: PyTorch refuses it where a graph of the gradients is wanted."""
    leaves = {key: t.requires_grad_() for key, t in CALLS[name].tensors(device).items()}
    expected = torch.autograd.grad(gradient_of_loss(name, backend, leaves, order), list(leaves.values()))
    torch.compiler.reset()
    loss = gradient_of_loss(name, backend, leaves, order)
    with compiled_autograd._enable(torch.compile(backend="eager", fullgraph=True, dynamic=False)):
        loss.backward()
    for t, e in zip(leaves.values(), expected, strict=True):
        assert relative_error(t.grad, e) < 1e-10


@pytest.mark.parametrize(("backend", "device"), backends(fast_only=True))
def test_compiled_autograd_of_a_compiled_function(backend, device):
    x, b = (t.requires_grad_() for t in CALLS["bias_act-lrelu"].tensors(device).values())

    def step():
        loss = imgops.bias_act(x, b, act="swish", impl=backend).square().sum()
        loss.backward()

    step()
    expected, x.grad, b.grad = (x.grad, b.grad), None, None
    torch.compiler.reset()
    with torch._dynamo.config.patch(compiled_autograd=True):
        torch.compile(step, backend="aot_eager")()
    assert relative_error(x.grad, expected[0]) < 1e-10
    assert relative_error(b.grad, expected[1]) < 1e-10


def refuses_a_change(name: str, impl: str, device: str, changed: str, needs_gradient: bool) -> bool:
    """Whether a gradient raises once an input was changed in place since the forward pass."""
    tensors = {
        key: t.requires_grad_(key != changed or needs_gradient) for key, t in CALLS[name].tensors(device).items()
    }
    loss = loss_of(CALLS[name].run(impl, **tensors))
    if not loss.requires_grad:
        return False
    with torch.no_grad():
        tensors[changed].add_(1)
    try:
        loss.backward()
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)  # noqa: PT017
        return True
    return False


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("backend", "device"), backends(fast_only=True, exclude=("triton",)))
def test_what_no_gradient_reads_may_change(backend, device, name):
    for key in set(CALLS[name].shapes) - CALLS[name].reads:
        for needs_gradient in (True, False):
            if refuses_a_change(name, backend, device, key, needs_gradient):
                assert refuses_a_change(name, "reference", device, key, needs_gradient), (key, needs_gradient)


@fast_backends
def test_an_operand_made_in_inference_mode(backend, device):
    x, weight = torch.randn(1, 3, 4, 4, device=device, requires_grad=True), torch.randn(3, 3, 3, 3, device=device)
    with torch.inference_mode():
        b, noise = torch.randn(3, device=device), torch.randn(1, 1, 4, 4, device=device)
    imgops.bias_act(x, b, act="lrelu", clamp=1.0, impl=backend).sum().backward()
    y = imgops.modulated_conv2d(
        x, weight, torch.ones(1, 3, device=device), noise=noise, bias=b, act="lrelu", padding=1, impl=backend
    )
    y.sum().backward()
    imgops.filtered_lrelu(x, b=b, impl=backend).sum().backward()
    imgops.adaptive_instance_norm(x, torch.ones(1, 3, device=device), b[None], impl=backend).sum().backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())
    assert bool(x.grad.any())


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("backend", "device"), backends(fast_only=True, exclude=("triton",)))
def test_traced_without_gradients_and_used_with_them(backend, device, name):
    """The gradient is right, or the error names the cause."""
    tensors = CALLS[name].tensors(device)

    def run(*values):
        return CALLS[name].run(backend, **dict(zip(tensors, values, strict=True)))

    traced = make_fx(run)(*tensors.values())
    leaves = [t.requires_grad_() for t in tensors.values()]
    expected = torch.autograd.grad(loss_of(run(*leaves)), leaves)
    try:
        gradients = torch.autograd.grad(loss_of(traced(*leaves)), leaves)
    except RuntimeError as error:
        assert "no gradient was wanted when it was traced" in str(error)  # noqa: PT017
        assert name.startswith(("conv2d-depthwise", "efdm", "filtered_lrelu", "modulated_conv2d"))
    else:
        assert all(relative_error(g, e) < 1e-10 for g, e in zip(gradients, expected, strict=True))


@fast_backends
def test_fused_ops_that_kept_nothing_name_the_cause(backend, device):
    """As a graph that was traced where no input required a gradient calls them."""
    space = torch.ops.imgops_triton if backend == "triton" else torch.ops.imgops
    x, weight, b = (
        torch.randn(1, 2, 4, 4, device=device),
        torch.randn(2, 2, 3, 3, device=device),
        torch.zeros(2, device=device),
    )
    act, pads = ("swish", 0.0, 1.0, -1.0), [1, 1, 1, 1]
    x.requires_grad_()
    for y, _ in (
        space.fused_conv2d(x, weight, None, 1, pads, 1, 1, None, 1.0, b, None, None, *act, False),
        space.upfirdn2d_bias_act(x, None, [1, 1], [1, 1], pads, False, 1.0, b, None, None, *act, False),
        space.filtered_lrelu(x, None, None, b, 1, 1, pads, 1.0, 0.2, -1.0, False, False),
    ):
        with pytest.raises(RuntimeError, match="no gradient was wanted when it was traced"):
            y.sum().backward()
