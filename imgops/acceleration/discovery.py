"""What in a network can run faster: convolutions and group normalizations with what comes after them, instance
normalizations, and modules that compute with the results of convolutions, or make their inputs.

Which layers and functions a module calls one after another is read from its forward by ``torch.fx``, module by module,
with all modules inside it as they are; of a module whose forward cannot be traced, convolutions are found one by one.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch.fx
from torch import nn
from torch.nn.utils import parametrize

from ..nn.chains import Chain, ConvChain, activation_of, base_class, chains_of, is_convolution
from ..nn.deferred import CHANNELS, COMBINED
from ..nn.joined import defer, fuse_norm, join


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


@dataclass
class Block:
    """A module that computes with the results of convolutions that it calls, or makes their inputs, by functions.

    Attributes:
        name: of the module.
        module: it.
        convs: the convolutions, and how many functions one after another each alone take the result of the one before.
        functions: the names of those functions, and of others that make a convolution's input; empty where tracing
            does not tell.
        reason: why it is left as it is; "" where it is not.
    """

    name: str
    module: nn.Module
    convs: dict[nn.Module, int]
    functions: list[str]
    reason: str = ""

    @property
    def kind(self) -> str:
        """The class of the module and the functions."""
        return " + ".join([base_class(self.module).__name__, *self.functions])

    def use(self) -> None:
        """Make it fast in the network."""
        defer(self.module, self.convs)


class Parts(NamedTuple):
    """What of a network could be made faster."""

    units: list[Unit]
    blocks: list[Block]


def parts_of(network: nn.Module) -> Parts:
    """All parts of a network that could be made faster, in its order; a layer with several names once."""
    chains: dict[nn.Module, tuple[Chain | None, nn.Module | None]] = {}
    blocks = []
    for name, caller in network.named_modules():
        if isinstance(caller, torch.jit.ScriptModule):
            continue
        graphs = _graphs(caller)
        for run in _runs(caller, graphs):
            for chain in chains_of(run):
                if len(chain.layers) > 1 and chain.first not in chains:
                    chains[chain.first] = chain, caller
        # compiled code calls no functions that could be seen
        block = None if any(map(_is_compiled, caller.modules())) else _block(name, caller, graphs)
        if block is not None:
            blocks.append(block)
    return Parts(_units(network, chains), blocks)


def _units(network: nn.Module, chains: dict[nn.Module, tuple[Chain | None, nn.Module | None]]) -> list[Unit]:
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


def _is_compiled(module: nn.Module) -> bool:
    script = isinstance(module, torch.jit.ScriptModule)
    return script or hasattr(module, "_orig_mod") or module._compiled_call_impl is not None


_Graphs = list[torch.fx.Graph] | None


def _graphs(caller: nn.Module) -> _Graphs:
    """What a module's forward calls: in evaluation and in training, without and with the arguments that may be left
    out. None where it cannot be traced; empty of modules that call none, of PyTorch's, and of sequences."""
    of_pytorch = type(caller).__module__.startswith("torch.nn.")
    if type(caller).forward is nn.Sequential.forward or next(caller.children(), None) is None or of_pytorch:
        return []
    graphs = [_graph(caller, *how) for how in itertools.product((False, True), (False, True))]
    found = [graph for graph in graphs if graph is not None]
    return found if len(found) == len(graphs) else None


def _runs(caller: nn.Module, graphs: _Graphs) -> list[list[nn.Module]]:
    """Layers that a module calls one after another, each with nothing but what the one before gives, which nothing else
    takes; layers that it calls more than once are in none but as activations."""
    if type(caller).forward is nn.Sequential.forward:
        layers: list[Any] = list(caller._modules.values())
        runs, calls = [layers], Counter(layers)
    elif not graphs:
        return []
    else:
        (runs, calls), *others = (_runs_of(caller, graph) for graph in graphs)
        runs = [run for run in runs if all(run in found for found, _ in others)]
    return [run for run in runs if all(calls[layer] == 1 or not _begins(layer) for layer in run)]


def _block(name: str, caller: nn.Module, graphs: _Graphs) -> Block | None:
    if graphs is None:
        # it may make inputs of convolutions, which is seen when it runs
        return Block(name, caller, {}, []) if any(map(is_convolution, caller.children())) else None
    if type(caller).forward is nn.Sequential.forward:
        layers: list[Any] = list(caller._modules.values())
        enlarged = any(_enlarges(x) and is_convolution(y) for x, y in itertools.pairwise(layers))
        return Block(name, caller, {}, ["interpolate"]) if enlarged else None
    found = [_functions(caller, graph) for graph in graphs]
    if not found:
        return None
    # what all graphs have
    common = [conv for conv in found[0].taken if all(conv in each.taken for each in found)]
    convs = {conv: min(len(each.taken[conv]) for each in found) for conv in common}
    functions = set.intersection(*(each.made for each in found)).union(*(found[0].taken[conv] for conv in convs)) - {""}
    return Block(name, caller, convs, sorted(functions)) if functions else None


class _Functions(NamedTuple):
    """Of a graph: by convolution, the functions that take its result one after another, each alone, "" for an
    activation's layer after the first; and those that alone make a convolution's input."""

    taken: dict[nn.Module, list[str]]
    made: set[str]


def _functions(caller: nn.Module, graph: torch.fx.Graph) -> _Functions:
    taken: dict[nn.Module, list[str]] = {}
    made: set[str] = set()
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        if node.op == "call_module" and is_convolution(caller.get_submodule(node.target)):
            last = node
            while (after := _after(last)) is not None and type(caller.get_submodule(str(after.target))) in _BETWEEN:
                last = after
            names: list[str] = []
            while (name := _taker(caller, last)) is not None and (name or names):
                names.append(name)
                (last,) = last.users
            if names and calls[node.target] == 1:
                taken[caller.get_submodule(node.target)] = names
        elif len(node.users) == 1:
            (user,) = node.users
            name = _function_of(node)
            if node.op == "call_module" and _enlarges(caller.get_submodule(node.target)):
                name = "interpolate"
            takes = user.op == "call_module" and user.args == (node,) and not user.kwargs
            if takes and name in CHANNELS and is_convolution(caller.get_submodule(user.target)):  # type: ignore[arg-type]
                made.add(name)
    return _Functions(taken, made)


#: layers that may stand between a convolution and the function that takes its result
_BETWEEN: tuple[type[nn.Module], ...] = (nn.BatchNorm2d, nn.Identity)


def _taker(caller: nn.Module, node: torch.fx.Node) -> str | None:
    """The name of the function that alone takes what a node gives, and can become a part of a convolution; "" of an
    activation's layer."""
    if len(node.users) != 1:
        return None
    (user,) = node.users
    if user.op == "call_module":
        return "" if activation_of(caller.get_submodule(str(user.target))) else None
    name = _function_of(user)
    return name if name in COMBINED else None


def _enlarges(layer: nn.Module) -> bool:
    return type(layer) in (nn.Upsample, nn.UpsamplingNearest2d) and layer.mode.startswith("nearest")  # type: ignore[operator, union-attr]


def _function_of(node: torch.fx.Node) -> str:
    """The name of a function or a method of tensors that a node calls; "" where it calls none."""
    if node.op == "call_method":
        return str(node.target).rstrip("_")
    return node.target.__name__ if node.op == "call_function" else ""  # type: ignore[union-attr]


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
