"""The parts of a step that are functions of tensors alone, which torch.compile can take as wholes."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., Any])

#: how often a phase is compiled for other sizes before that counts as a failure
RECOMPILED = 64


def phase(differentiates: bool = False) -> Callable[[Function], Function]:
    """Make a method of a recipe a phase, which the recipe's ``phases`` run.

    A phase takes and returns tensors, in tuples or alone. It draws no random numbers, changes nothing but by the
    gradients of what it returns, and never waits for the device.

    Args:
        differentiates: whether it calls ``torch.autograd.grad``, as penalties on gradients do.
    """

    def made(function: Function) -> Function:
        @functools.wraps(function)
        def run(recipe: Any, *tensors: Any) -> Any:
            return recipe.phases.run(function, differentiates, recipe, *tensors)

        return run  # type: ignore[return-value]

    return made


class Phases:
    """Runs phases, each compiled as one graph at its first call where that is asked for.

    A phase that torch cannot compile, for want of a C++ compiler for example, is told by a warning, and from then on
    none is compiled; the results are the same to rounding.

    Args:
        compiling: whether phases are compiled.
    """

    #: of ``torch.compile``
    backend = "inductor"

    def __init__(self, compiling: bool) -> None:
        self.compiling = compiling
        self.compiled: dict[Callable[..., Any], Callable[..., Any]] = {}

    def run(self, function: Callable[..., Any], differentiates: bool, *arguments: Any) -> Any:
        """What a phase returns."""
        if not self.compiling or (differentiates and not traces_gradients()):
            return function(*arguments)
        from torch._dynamo import config, exc

        if function not in self.compiled:
            self.compiled[function] = torch.compile(function, fullgraph=True, dynamic=False, backend=self.backend)
        try:
            # networks that grow have two graphs for each resolution
            settings = {"recompile_limit": RECOMPILED, **({"trace_autograd_ops": True} if traces_gradients() else {})}
            with config.patch(settings):
                return self.compiled[function](*arguments)
        except (exc.TorchDynamoException, exc.FailOnRecompileLimitHit) as error:
            self.compiling = False
            # of a compiler's failure the first line alone says no more than that it failed
            inner = getattr(error, "inner_exception", error)
            reason = (str(inner).strip() or type(inner).__name__).splitlines()[0]
            name = function.__name__.strip("_").replace("_", " ")
            warnings.warn(f"torch.compile cannot take the {name} ({reason}); the run goes on uncompiled", stacklevel=2)
            return function(*arguments)

    def advice(self) -> dict[str, str]:
        """What a run says of it at its beginning."""
        if not self.compiling:
            return {}
        left_out = "" if traces_gradients() else f"; not of R1 and path length, which torch {torch.__version__} cannot"
        return {"compile": f"each phase at its first call, which takes minutes{left_out}"}


def traces_gradients() -> bool:
    """Whether this torch compiles functions that call ``torch.autograd.grad``; 2.10 does not."""
    import torch._dynamo.config

    return hasattr(torch._dynamo.config, "trace_autograd_ops")
