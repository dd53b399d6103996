"""How the ops are registered with PyTorch, with their kernels, fakes and gradients, and how they are called."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ._common import STATUSES, in_forward_mode
from ._flops import no_products, register_flops

_TRITON = [device for device in ("cpu", "cuda") if STATUSES["triton", device].available]
_triton_library = torch.library.Library("imgops_triton", "DEF")
_NAMESPACES = {name: SimpleNamespace() for name in ("imgops", "imgops_triton")}
#: the schema of each op; csrc/library.cpp must say the same
SCHEMAS: dict[str, str] = {}
#: ops that are called only where no gradient is wanted
WITHOUT_GRADIENT: set[str] = set()


def namespace(backend: str) -> Any:
    """The ops of a backend: ``imgops`` holds the kernels in C++, by device; ``imgops_triton`` those in Triton."""
    return _NAMESPACES["imgops_triton" if backend == "triton" else "imgops"]


def register(
    schema: str,
    *,
    fake: Callable[..., Any],
    triton: str | None,
    backward: Callable[..., Any] | None,
    setup_context: Callable[..., Any] | None,
    flops: Callable[..., int] = no_products,
) -> None:
    """Give an op in each namespace that exists its fake and its gradient, and Triton's its schema and its kernel.

    Args:
        schema: ``name(Tensor x, ...) -> Tensor``, as in csrc/library.cpp.
        fake: gives empty outputs for inputs without data.
        triton: the module of ``imgops.kernels`` whose function of the op's name is the kernel; None for no kernel.
        backward: called with the namespace, so that a gradient runs on the backend that ran the forward; ctx; which of
            the inputs' gradients this pass has a use for; and the outputs' gradients, None for an output that nothing
            depends on. At least one is not None. It returns None for an input that nothing depends on, never zeros. Of
            an op without a gradient it is None.
        setup_context: as ``torch.library.register_autograd`` takes it; None where ``backward`` is.
        flops: called with the arguments, shapes in place of tensors, and ``out_shape``. Default: counts none.
    """
    name = schema.partition("(")[0]
    SCHEMAS[name] = schema
    spaces = ["imgops"] if STATUSES["cpu", "cpu"].available else []
    if _TRITON and triton is not None:
        _triton_library.define(schema)
        for device in _TRITON:
            _triton_library.impl(name, _lazy_kernel(triton, name), device.upper())
        spaces.append("imgops_triton")

    for space in spaces:
        packet = getattr(getattr(torch.ops, space), name)
        op = packet.default
        register_flops(packet, flops)
        torch.library.register_fake(op, fake)
        function: Callable[..., Any] = op
        if backward is None or setup_context is None:
            WITHOUT_GRADIENT.add(name)
        else:
            differentiate, remember = _gradient(backward, _NAMESPACES[space]), _context(setup_context)
            torch.library.register_autograd(op, differentiate, setup_context=remember)
            function = _function(op, differentiate, remember)
        setattr(_NAMESPACES[space], name, function)


def _lazy_kernel(module: str, name: str) -> Callable[..., Any]:
    """The launcher of a Triton kernel. Its module loads on the first call, as importing Triton takes long."""

    @functools.cache
    def launcher() -> Callable[..., Any]:
        return getattr(importlib.import_module(f"imgops.kernels.{module}"), name)

    return lambda *inputs: launcher()(*inputs)


def check_kept(op: str, what: str, kept: bool) -> None:
    """Raise unless the forward pass kept what its gradient needs; traced with no gradient wanted, it keeps nothing."""
    if not kept:
        raise RuntimeError(
            f"imgops::{op}: the forward pass did not keep {what}, which the gradient needs; no gradient was wanted "
            f"when it was traced (make_fx, torch.export, torch.jit.trace); trace it with inputs that require a gradient"
        )


def _gradient(backward: Callable[..., Any], ops: SimpleNamespace) -> Callable[..., tuple[Any, ...]]:
    """``backward`` as PyTorch calls it. A plain function: compiled autograd takes nothing else."""

    def differentiate(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        if all(g is None for g in gradients):
            return (None,) * len(ctx.needs_input_grad)
        return backward(ops, ctx, _asked_for(ctx), *gradients)

    return differentiate


def _context(setup_context: Callable[..., Any]) -> Callable[..., None]:
    """``setup_context`` with what every gradient needs."""

    def remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.tensor_inputs = [i for i, value in enumerate(inputs) if isinstance(value, Tensor)]
        # otherwise PyTorch makes zeros of undefined gradients, and Adam counts a step for a gradient of zeros
        ctx.set_materialize_grads(False)
        setup_context(ctx, inputs, output)

    return remember


def _function(
    op: torch._ops.OpOverload, differentiate: Callable[..., Any], remember: Callable[..., None]
) -> Callable[..., Any]:
    """The op as a function that costs little to call.

    PyTorch's own bookkeeping around a registered gradient converts the whole schema anew for each argument, which shows
    on small images; an ``autograd.Function`` with the same gradient does not. Compilers and tracers get the op itself.
    """

    def evaluate(*inputs: Any) -> Any:
        # goes straight to the kernel: the registered gradient would inspect every argument in vain
        with torch._C._AutoDispatchBelowAutograd():
            return op(*inputs)

    def forward(ctx: Any, *inputs: Any) -> Any:
        output = evaluate(*inputs)
        remember(ctx, inputs, output)
        return output

    def jvp(*tangents: Any) -> Any:
        raise RuntimeError(f"imgops.{op._opname}: jvp (forward mode) is not supported; use vjp, grad or jacrev")

    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        if info.batch_size == 0:
            raise RuntimeError(f"imgops.{op._opname}: vmap over an empty batch is not supported")
        # kernels have no further batch dimension, so samples run one after another
        samples = [
            call(*(x.select(d, i) if isinstance(d, int) else x for x, d in zip(inputs, in_dims, strict=True)))
            for i in range(info.batch_size)
        ]
        if isinstance(samples[0], Tensor):
            return torch.stack(samples), 0
        return tuple(torch.stack(outputs) for outputs in zip(*samples, strict=True)), (0,) * len(samples[0])

    # type() gives the classes the op's name, which the node in the graph takes over
    shared = {"backward": staticmethod(differentiate), "jvp": staticmethod(jvp)}
    bases, name = (torch.autograd.Function,), f"imgops_{op._opname}"
    function: Any = type(name, bases, shared | {"forward": staticmethod(forward)})
    # the form that torch.func takes, which costs more per call
    transformed: Any = type(
        name,
        bases,
        shared
        | {
            "forward": staticmethod(lambda *inputs: op(*inputs)),
            "setup_context": staticmethod(remember),
            "vmap": staticmethod(vmap),
        },
    )

    def call(*inputs: Any) -> Any:
        # the registered op would silently drop the tangents of forward mode; these functions raise instead
        forward_mode = in_forward_mode()
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return jvp() if forward_mode else op(*inputs)
        if torch._C._are_functorch_transforms_active():
            return transformed.apply(*inputs)
        differentiated = torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in inputs)
        return function.apply(*inputs) if differentiated or forward_mode else evaluate(*inputs)

    return call


def _asked_for(ctx: Any) -> tuple[bool, ...]:
    """Which of the inputs' gradients this pass has a use for.

    ``torch.autograd.grad(y, x, create_graph=True)``, with which every gradient penalty begins, has no use for a
    weight's, which costs as much as the rest; ``ctx.needs_input_grad`` knows only which inputs require one. PyTorch's
    own ops ask the engine, by functions that are private: without an answer the gradient is computed.
    """
    needs = list(ctx.needs_input_grad)
    current_node = getattr(torch._C, "_current_autograd_node", None)
    will_execute = getattr(torch._C, "_will_engine_execute_node", None)
    # a node runs for some gradient, and of one there is nothing to ask, which takes as long as a small op
    if needs.count(True) == 1:
        return tuple(needs)
    # a node may be called by hand within another backward pass; the engine then answers for that pass
    if current_node is None or will_execute is None or torch.compiler.is_compiling() or current_node() is not ctx:
        return tuple(needs)
    for i, (node, _) in zip(ctx.tensor_inputs, ctx.next_functions, strict=True):
        if needs[i] and node is not None:
            # the engine refuses the question for a leaf whose gradient is returned and not accumulated
            with contextlib.suppress(RuntimeError):
                needs[i] = will_execute(node)
    return tuple(needs)
