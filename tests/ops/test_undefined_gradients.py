"""A gradient is None, and no tensor of zeros, where nothing depends on the input: every backend, every order.

To an optimizer None and zero differ: Adam counts a step for the latter.
"""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from backends import backends
from golden import relative_error
from test_registration import Calls
from torch import Tensor

import imgops
from imgops.models.stylegan2 import Discriminator, Generator
from imgops.training.losses import path_lengths, r1_penalty
from tests.op_specs import CALLS


def _grad(outputs: list[Tensor], inputs: list[Tensor]) -> list[Tensor | None]:
    """Gradients of a weighted sum of the outputs, None of the ones that do not depend on an input."""
    total = sum(
        (y * torch.linspace(-1, 1.3, y.numel(), dtype=y.dtype, device=y.device).reshape(y.shape)).sum() for y in outputs
    )
    if not (isinstance(total, Tensor) and total.requires_grad):
        return [None] * len(inputs)
    return list(torch.autograd.grad(total, inputs, create_graph=True, allow_unused=True))


def _gradients(
    name: str, impl: str, tensors: dict[str, Tensor], chosen: tuple[str, ...], orders: int
) -> dict[str, Tensor | None]:
    """Each gradient of so many orders for the chosen inputs, by the path to it: ".x", ".x.b", ".x.all.b" ..."""
    leaves = {key: tensors[key].clone().requires_grad_() for key in chosen}
    # not leaves, so that an undefined gradient has a node to pass through
    y = CALLS[name].run(impl, **{key: leaves[key] * 1 if key in leaves else t for key, t in tensors.items()})
    found: dict[str, Tensor | None] = {}
    level = {"": [*y] if isinstance(y, tuple) else [y]}
    for order in range(orders):
        below = {}
        for path, outputs in level.items():
            gradients = _grad(outputs, list(leaves.values()))
            found |= {f"{path}.{key}": g for key, g in zip(leaves, gradients, strict=True)}
            if order == 0:
                # each gradient alone, and all of them
                below |= {f".{key}": [g] for key, g in zip(leaves, gradients, strict=True) if g is not None}
            below[f"{path}.all"] = [g for g in gradients if g is not None]
        level = below
    return found


@pytest.mark.parametrize(("backend", "device"), backends(fast_only=True))
@pytest.mark.parametrize("name", CALLS)
def test_none_where_the_reference_has_none(name, backend, device):
    tensors = CALLS[name].tensors(device)
    # Triton's interpreter is slow
    least, orders = (1, 3) if backend == "cpu" else (len(tensors), 2)
    for chosen in (c for size in range(least, len(tensors) + 1) for c in combinations(tensors, size)):
        actual, expected = (_gradients(name, impl, tensors, chosen, orders) for impl in (backend, "reference"))
        assert not {path for path, g in actual.items() if g is not None and expected[path] is None}, chosen
        for path, e in expected.items():
            g = actual[path]
            if g is not None:
                assert relative_error(g, e) < 1e-8 or (g - e).abs().max() < 1e-12, (chosen, path)
            elif e is not None:
                # PyTorch has zeros for what a leaky ReLU's kink adds to a gradient of a gradient; the sign mask of
                # filtered_lrelu has none, nor has any backend in the third order
                assert name.startswith("filtered_lrelu") or path.count(".") == 3, (chosen, path)
                assert not e.any(), (chosen, path)


@pytest.mark.parametrize(("backend", "device"), backends())
def test_a_clamped_bias(backend, device):
    """ToRGB's: the gradient that a path length begins with does not depend on it."""
    x = torch.randn(2, 3, 4, 4, device=device, requires_grad=True)
    b, scale = torch.randn(3, device=device, requires_grad=True), torch.randn([], device=device, requires_grad=True)
    (g,) = torch.autograd.grad((imgops.bias_act(2 * x, b, clamp=1.0, impl=backend) * scale).sum(), x, create_graph=True)
    with Calls() as calls:
        db, dscale = torch.autograd.grad(g.square().sum(), [b, scale], allow_unused=True)
    assert db is None
    assert dscale is not None
    # the pass back to dy, and none from there through the layer
    passes = [torch.ops.imgops.bias_act_backward, torch.ops.imgops_triton.bias_act_backward]
    assert sum(calls.counter[op] for op in passes) == (0 if backend == "reference" else 1)


@pytest.mark.parametrize(("backend", "device"), backends(exclude=("triton",)))
def test_regularized_steps_leave_the_same_gradients_undefined(backend, device):
    """A path-length step of StyleGAN2's generator and an R1 step of its discriminator, against the recorded pattern.

    The original's path length leaves every ToRGB's bias without a gradient, R1 the bias of the last layer.
    """
    options = {"channel_base": 256, "channel_max": 4, "mapping_layers": 1}
    G, D = Generator(4, 0, 4, 8, 3, **options).to(device), Discriminator(0, 8, 3, **options).to(device)
    with imgops.use_impl(backend):
        w = G.mapping(torch.randn(2, 4, device=device))
        path_lengths(G.synthesis(w, noise_mode="random"), w).square().sum().backward()
        real = torch.randn(2, 3, 8, 8, device=device, requires_grad=True)
        r1_penalty(real, D(real, None)).backward()
    assert {n for n, p in G.named_parameters() if p.grad is None} == {
        f"synthesis.b{size}.torgb.bias" for size in (4, 8)
    }
    assert {n for n, p in D.named_parameters() if p.grad is None} == {"b4.out.bias"}
