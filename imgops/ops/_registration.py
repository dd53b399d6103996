"""The ops with PyTorch: their kernels, fakes and gradients, and how they are called."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ._common import STATUSES

_TRITON = [device for device in ("cpu", "cuda") if STATUSES["triton", device].available]
_triton_library = torch.library.Library("imgops_triton", "DEF")
_NAMESPACES = {name: SimpleNamespace() for name in ("imgops", "imgops_triton")}


def namespace(twin: str) -> Any:
    """The ops of a twin: ``imgops`` holds the kernels in C++, by device; ``imgops_triton`` those in Triton."""
    return _NAMESPACES["imgops_triton" if twin == "triton" else "imgops"]


def register(
    name: str,
    *,
    fake: Callable[..., Any],
    triton: Callable[..., Any] | None,
    backward: Callable[..., Any],
    setup_context: Callable[..., Any],
) -> None:
    """Give the op ``name`` of each namespace that exists its fake and its gradient, and Triton's its kernel.

    ``triton`` has the schema in its annotations, the same as the one in csrc/library.cpp. ``backward`` gets the
    namespace before ctx, so that a gradient runs on the twin that ran the forward; what its ctx.needs_input_grad says
    is what the pass asks for. Without ``triton`` the op has no kernel there.
    """
    spaces = ["imgops"] if STATUSES["cpu", "cpu"].available else []
    if _TRITON and triton is not None:
        _triton_library.define(name + torch.library.infer_schema(triton, mutates_args=()))
        for device in _TRITON:
            _triton_library.impl(name, triton, device.upper())
        spaces.append("imgops_triton")

    def remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.tensors = [i for i, value in enumerate(inputs) if isinstance(value, Tensor)]
        setup_context(ctx, inputs, output)

    for space in spaces:
        differentiate = _backward(backward, _NAMESPACES[space])
        op = getattr(getattr(torch.ops, space), name).default
        torch.library.register_fake(op, fake)
        torch.library.register_autograd(op, differentiate, setup_context=remember)
        setattr(_NAMESPACES[space], name, _function(op, differentiate, remember))


def _backward(backward: Callable[..., Any], ops: SimpleNamespace) -> Callable[..., tuple[Any, ...]]:
    def differentiate(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        required = ctx.needs_input_grad
        ctx.needs_input_grad = _asked_for(ctx)
        try:
            return backward(ops, ctx, *gradients)
        finally:
            ctx.needs_input_grad = required

    return differentiate


def _function(
    op: torch._ops.OpOverload, differentiate: Callable[..., Any], remember: Callable[..., None]
) -> Callable[..., Any]:
    """The op as a function that costs little to call.

    PyTorch's own bookkeeping around a registered gradient converts the whole schema anew for each argument, which shows
    on small images; an ``autograd.Function`` with the same gradient does not. A compiler gets the op itself.
    """

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = op(*inputs)
            remember(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor | None) -> Any:
            return differentiate(ctx, *gradients)

    Differentiable.__name__ = f"imgops_{op._opname}"

    def call(*inputs: Any) -> Any:
        eager = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        if eager and any(isinstance(value, Tensor) and value.requires_grad for value in inputs):
            return Differentiable.apply(*inputs)
        return op(*inputs)

    return call


def _asked_for(ctx: Any) -> tuple[bool, ...]:
    """ctx.needs_input_grad without the inputs whose gradient this pass has no use for.

    ``torch.autograd.grad(y, x, create_graph=True)``, with which every gradient penalty begins, has none for a weight's,
    and it costs as much as the rest. PyTorch tells its own ops alone: what it tells is private, and of a leaf it tells
    nothing, so that without an answer the gradient is computed.
    """
    needs = list(ctx.needs_input_grad)
    will_execute = getattr(torch._C, "_will_engine_execute_node", None)
    if will_execute is not None and not torch.compiler.is_compiling():
        for i, (node, _) in zip(ctx.tensors, ctx.next_functions, strict=True):
            # the node of a leaf has a variable
            if needs[i] and node is not None and not hasattr(node, "variable"):
                try:
                    needs[i] = will_execute(node)
                except RuntimeError:
                    # somebody calls the node, and not the engine
                    break
    return tuple(needs)
