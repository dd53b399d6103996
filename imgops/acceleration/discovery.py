"""What in a network can run faster: convolutions and group normalizations with what comes after them, and instance
normalizations.

Which layers a module calls one after another is read from its forward by ``torch.fx``, module by module, with all
modules inside it as they are; of a module whose forward cannot be traced, convolutions are found one by one.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch.fx
from torch import nn
from torch.nn.utils import parametrize

from ..nn.joined import Chain, ConvChain, base_class, chains_of, fuse_norm, is_convolution, join


@dataclass
class Unit:
    """A part of a network that can be made faster.

    Attributes:
        name: of its first layer.
        first: that layer.
        kind: the classes of its layers.
        chain: the layers; None of an instance normalization.
        caller: the module that calls the chain's layers one after another; None where there is only one.
        reason: why it is left as it is; "" where it is not.
    """

    name: str
    first: nn.Module
    kind: str
    chain: Chain | None = None
    caller: nn.Module | None = None
    reason: str = ""

    def use(self) -> None:
        """Make it fast in the network."""
        if self.chain is not None:
            join(self.chain, self.caller)
        else:
            fuse_norm(self.first)  # type: ignore[arg-type]


def units_of(network: nn.Module) -> list[Unit]:
    """All parts of a network that could be made faster, in its order; a layer with several names once."""
    chains: dict[nn.Module, tuple[Chain | None, nn.Module | None]] = {}
    for caller in network.modules():
        for run in _runs(caller):
            for chain in chains_of(run):
                if len(chain.layers) > 1 and chain.first not in chains:
                    chains[chain.first] = chain, caller
    found = []
    for name, layer in network.named_modules():
        if layer in chains or is_convolution(layer):
            joined, called_by = chains.get(layer, (None, None))
            joined = joined or ConvChain(layer)  # type: ignore[arg-type]
            kind = " + ".join(base_class(part).__name__ for part in joined.layers)
            found.append(Unit(name, layer, kind, joined, called_by))
        elif type(layer) is nn.InstanceNorm2d and not layer.track_running_stats:
            found.append(Unit(name, layer, type(layer).__name__))
        elif isinstance(layer, (nn.Conv2d, nn.InstanceNorm2d)) and type(layer).__module__.startswith("imgops"):
            continue
        elif isinstance(layer, nn.Conv2d):
            reason = "has a parametrization" if parametrize.is_parametrized(layer) else "has a forward of its own"
            found.append(Unit(name, layer, type(layer).__name__, reason=reason))
    return found


def _runs(caller: nn.Module) -> list[list[nn.Module]]:
    """Layers that a module calls one after another, each with nothing but what the one before gives, which nothing else
    takes; layers that it calls more than once are in none but as activations."""
    if type(caller).forward is nn.Sequential.forward:
        layers: list[Any] = list(caller._modules.values())
        runs, calls = [layers], Counter(layers)
    elif next(caller.children(), None) is None or type(caller).__module__.startswith("torch.nn."):
        return []
    else:
        # in training, and without arguments that may be left out, a forward may call others
        graphs = [_graph(caller, *how) for how in itertools.product((False, True), (False, True))]
        if None in graphs:
            return []
        (runs, calls), *others = (_runs_of(caller, graph) for graph in graphs if graph is not None)
        runs = [run for run in runs if all(run in found for found, _ in others)]
    return [run for run in runs if all(calls[layer] == 1 or not _begins(layer) for layer in run)]


def _begins(layer: nn.Module) -> bool:
    return is_convolution(layer) or isinstance(layer, nn.GroupNorm)


def _runs_of(caller: nn.Module, graph: torch.fx.Graph) -> tuple[list[list[nn.Module]], Counter[nn.Module]]:
    runs, calls = [], Counter[nn.Module]()
    for node in graph.nodes:
        if node.op != "call_module":
            continue
        calls[caller.get_submodule(node.target)] += 1
        if _before(node) is None:
            run = [node]
            while (follower := _after(run[-1])) is not None:
                run.append(follower)
            runs.append([caller.get_submodule(each.target) for each in run])
    return runs, calls


def _after(node: torch.fx.Node) -> torch.fx.Node | None:
    """The layer that alone takes the result of this one, as its only argument."""
    users = list(node.users)
    follows = len(users) == 1 and users[0].op == "call_module" and users[0].args == (node,) and not users[0].kwargs
    return users[0] if follows else None


def _before(node: torch.fx.Node) -> torch.fx.Node | None:
    (before, *_) = [*node.all_input_nodes, None]
    return before if before is not None and before.op == "call_module" and _after(before) is node else None


class _Shallow(torch.fx.Tracer):
    """Records the calls of modules, and does not look into them."""

    traced_func_name = "_traced"

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _graph(caller: nn.Module, training: bool, all_arguments: bool) -> torch.fx.Graph | None:
    """The calls in a module's forward, with or without the arguments that have defaults; None where it does more than
    can be recorded."""
    kind = type(caller)
    try:
        parameters = list(inspect.signature(kind.forward).parameters.values())[1:]
        # tracing knows no arguments beyond those that have names
        names = [
            p.name
            for p in parameters
            if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and (all_arguments or p.default is p.empty)
        ]
        given = ", ".join(f"{name}={name}" for name in names)
        forward = eval(f"lambda {', '.join(['self', *names])}: forward(self, {given})", {"forward": kind.forward})
        # what a forward sets or counts it sets in a copy
        copied = copy.copy(caller)
        copied._buffers = {name: None if b is None else b.clone() for name, b in caller._buffers.items()}
        copied.training = training
        copied.__class__ = type(kind.__name__, (_Traced, kind), {_Shallow.traced_func_name: forward})
        with (
            warnings.catch_warnings(),
            torch.random.fork_rng(),
            # a checkpoint calls its layers twice, the second time outside of the forward
            torch.autograd.graph.disable_saved_tensors_hooks("a checkpoint"),
        ):
            warnings.simplefilter("ignore")
            return _Shallow().trace(copied)
    except Exception:
        # a forward can raise anything when it gets no tensors
        return None


class _Traced:
    """The first base of a class that is made for tracing: what the other does when somebody inherits is not for it."""

    def __init_subclass__(cls, **more: Any) -> None:
        pass
