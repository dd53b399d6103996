"""Every public op where autograd is not called plainly: compiled, on inputs changed in place, traced without it."""

from __future__ import annotations

import pytest
import torch
from golden import relative_error
from public_calls import CALLS
from torch import Tensor
from torch._dynamo import compiled_autograd
from twins import twins

import imgops

#: one call of each op is enough where compiling takes long
QUICK = ("bias_act-lrelu", "upfirdn2d-matrix", "filtered_lrelu")
ONE_EACH = [name for name in CALLS if "-" not in name or name in (*QUICK, "displace-zeros")]
fast_twins = pytest.mark.parametrize(("twin", "device"), twins(fast_only=True))


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
@pytest.mark.parametrize(("twin", "device"), twins(fast_only=True, exclude=("triton",)))
def test_compiled_autograd(twin, device, name, order):
    """It compiles the last pass: PyTorch refuses it where a graph of the gradients is wanted."""
    leaves = {key: t.requires_grad_() for key, t in CALLS[name].tensors(device).items()}
    expected = torch.autograd.grad(gradient_of_loss(name, twin, leaves, order), list(leaves.values()))
    torch.compiler.reset()
    loss = gradient_of_loss(name, twin, leaves, order)
    with compiled_autograd._enable(torch.compile(backend="eager", fullgraph=True, dynamic=False)):
        loss.backward()
    for t, e in zip(leaves.values(), expected, strict=True):
        assert relative_error(t.grad, e) < 1e-10


@pytest.mark.parametrize(("twin", "device"), twins(fast_only=True))
def test_compiled_autograd_of_a_compiled_function(twin, device):
    x, b = (t.requires_grad_() for t in CALLS["bias_act-lrelu"].tensors(device).values())

    def step():
        loss = imgops.bias_act(x, b, act="swish", impl=twin).square().sum()
        loss.backward()

    step()
    expected, x.grad, b.grad = (x.grad, b.grad), None, None
    torch.compiler.reset()
    with torch._dynamo.config.patch(compiled_autograd=True):
        torch.compile(step, backend="aot_eager")()
    assert relative_error(x.grad, expected[0]) < 1e-10
    assert relative_error(b.grad, expected[1]) < 1e-10
