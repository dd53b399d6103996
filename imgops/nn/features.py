"""Activations of named layers of any network."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .joined import call_chains, chains_called_by


class Features(nn.Module):
    """Activations of named layers of a network, which is evaluated only up to the deepest of these layers.

    Args:
        network: any module. Its parameters are left as they are.
        layers: names as :func:`layer_names` lists them. What differs only in ``_``, ``.``, ``/`` or case, or in an
            ``/output`` at the end, is the same name: ``inception_4c``, ``inception4c`` and ``inception_4c/output``.

    Shapes: whatever the network takes -> {name as it was asked for: Tensor}. A layer that is called more than once is
        taken at its first call.

    Raises:
        TypeError: layers is no list of names; in the forward, a layer whose output is no tensor.
        ValueError: a layer that the network lacks, with the nearest names; none; in the forward, a layer that was not
            called, or that a later layer overwrites in place.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> {name: tuple(y.shape) for name, y in Features(network, ["1"])(torch.randn(1, 3, 8, 8)).items()}
    {'1': (1, 8, 6, 6)}
    """

    def __init__(self, network: nn.Module, layers: Sequence[str]) -> None:
        super().__init__()
        if isinstance(layers, str) or not all(isinstance(name, str) for name in layers):
            raise TypeError(f"Features: layers must be a list of names; got {layers!r}")
        if not layers:
            raise ValueError("Features: layers must name one layer at least")
        self.network = network
        #: the module of each name
        self.layers = {name: find_layer(network, name) for name in layers}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        paths = set(self.layers.values())
        if isinstance(self.network, nn.Sequential) and not any("." in path for path in paths):
            found = self._follow(x, paths)
        else:
            found = self._listen(x, paths)
        for path, (output, version) in found.items():
            if _version(output) != version:
                raise ValueError(f"Features: a layer after {path} overwrites its output in place; ask for that one")
        return {name: found[path][0] for name, path in self.layers.items()}

    def _follow(self, x: Tensor, paths: set[str]) -> dict[str, tuple[Tensor, int]]:
        """Outputs of layers of a sequence, with how often each was written to; this way can be compiled."""
        wanted = {self.network.get_submodule(path) for path in paths}
        chains = [chain for chain in chains_called_by(self.network) if wanted.isdisjoint(chain.layers[:-1])]
        return call_chains(chains, self.network, partial(self._walk, x, paths))

    def _walk(self, x: Tensor, paths: set[str]) -> dict[str, tuple[Tensor, int]]:
        found = {}
        for path, layer in self.network.named_children():
            x = layer(x)
            if path in paths:
                found[path] = x, _version(x)
                if len(found) == len(paths):
                    break
        return found

    def _listen(self, x: Tensor, paths: set[str]) -> dict[str, tuple[Tensor, int]]:
        """Outputs of layers anywhere in a network, likewise, by hooks; an exception stops it after the last layer."""
        found: dict[str, tuple[Tensor, int]] = {}

        def keep(path: str, output: Any) -> None:
            if path in found:
                return
            if not isinstance(output, Tensor):
                raise TypeError(f"Features: the output of layer {path} is no tensor but {type(output).__name__}")
            found[path] = output, _version(output)
            if len(found) == len(paths):
                raise _Deepest

        hooks = [
            self.network.get_submodule(path).register_forward_hook(
                lambda module, inputs, output, path=path: keep(path, output)  # type: ignore[misc]
            )
            for path in paths
        ]
        try:
            self.network(x)
        except _Deepest:
            return found
        finally:
            for hook in hooks:
                hook.remove()
        raise ValueError(f"Features: the network does not call {', '.join(sorted(paths - set(found)))}")


def _version(x: Tensor) -> int:
    """How often a tensor has been written to, if PyTorch counts it."""
    return 0 if torch.compiler.is_compiling() or x.is_inference() else x._version


class _Deepest(Exception):
    """The last layer that was asked for has been evaluated."""


def layer_names(network: nn.Module) -> list[str]:
    """Names of a network's layers, in the order of its definition."""
    return [name for name, _ in network.named_modules() if name]


def find_layer(network: nn.Module, name: str) -> str:
    """The layer's name as :func:`layer_names` has it.

    Raises:
        ValueError: there is none, with the nearest names; or several that differ only in punctuation.
    """
    names = layer_names(network)
    if name in names:
        return name
    matching = [other for other in names if _plain(other) == _plain(name)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise ValueError(f"layer {name!r} may be any of {', '.join(matching)}; write one of them")
    plain = {_plain(other): other for other in reversed(names)}
    near = [plain[key] for key in difflib.get_close_matches(_plain(name), plain, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(names[:8])}, ..."
    raise ValueError(f"{type(network).__name__} has no layer {name!r}; {hint}")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().removesuffix("/output"))
