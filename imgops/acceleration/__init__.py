"""Faster layers in any network, where they stand: :func:`accelerate`, :func:`restore` and :func:`accelerated`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import nn

from ..nn.joined import split
from .discovery import Block, Unit, parts_of
from .measuring import Row, Table, make_fast

__all__ = ["Row", "Table", "accelerate", "accelerated", "restore"]

_Network = TypeVar("_Network", bound=nn.Module)


def accelerate(
    model: _Network, example_inputs: Any = None, *, training: bool = False, verbose: bool = True
) -> _Network:
    """Make the layers of a network faster where they stand.

    Convolutions become :func:`imgops.conv2d`; in a module that calls them one after another, a convolution, the batch
    normalization after it (in evaluation) and the activation after these are one pass; instance normalizations are
    fused. Only classes of layers change: parameters, names in state dicts, hooks, shared layers, devices and references
    stay, and the network can be copied, saved, loaded, trained and compiled (``torch.compile`` after this) as before.
    Where a hook looks between layers, they run one by one. Networks of :mod:`imgops.models` are made so already, and
    stay so. :func:`restore` undoes it.

    Args:
        model: any network. It may be one that was accelerated before; that is undone first.
        example_inputs: a tensor, or a tuple of positional or a dict of named arguments of its forward. Each layer is
            then timed both ways on what it gets of them, in as many threads as PyTorch has, and changed only if that is
            faster; the outputs are compared at the end. None (default) changes every layer that can be, which needs a
            network on the CPU.
        training: time forward and backward with gradients, in training mode; else the forward in evaluation. Default
            False.
        verbose: print a :class:`Table` of the layers. Default True.

    Returns:
        The model.

    Raises:
        TypeError: model is no ``torch.nn.Module``, or is a TorchScript module; example_inputs are no tensor, tuple or
            dict.
        ValueError: model is compiled; it is on another device and there are no example_inputs, or on "meta".
        RuntimeError: the outputs are not those of before. After any error that its forward raises, too, the model has
            the classes that it had.

    >>> network = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())
    >>> imgops.accelerate(network, torch.randn(1, 32, 32, 32), verbose=False)(torch.randn(1, 32, 32, 32)).shape
    torch.Size([1, 32, 32, 32])
    """
    arguments = _checked(model, example_inputs)
    restore(model)
    if arguments is not None:
        table = make_fast(model, *arguments, training=training)
    else:
        units, blocks = parts_of(model)
        parts: list[Unit | Block] = [*units, *(block for block in blocks if block.functions)]
        table = Table([Row.unmeasured(part) for part in parts])
        for part in parts:
            if not part.reason:
                part.use()
    if verbose:
        print(table)
    return model


def restore(model: _Network) -> _Network:
    """Undo :func:`accelerate`: the layers have the classes that they had.

    Returns:
        The model.

    Raises:
        TypeError: model is no ``torch.nn.Module``.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"imgops.restore: model must be a torch.nn.Module; got {type(model).__name__}")
    split(model)
    return model


@contextlib.contextmanager
def accelerated(
    model: _Network, example_inputs: Any = None, *, training: bool = False, verbose: bool = False
) -> Iterator[_Network]:
    """Within it a network is what :func:`accelerate` makes of it, with the same arguments; :func:`restore` ends it.

    >>> with imgops.accelerated(nn.Conv2d(32, 32, 3)) as network:
    ...     y = network(torch.randn(1, 32, 16, 16))
    """
    accelerate(model, example_inputs, training=training, verbose=verbose)
    try:
        yield model
    finally:
        restore(model)


def _checked(model: Any, example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The arguments of the model's forward, if any; raises what :func:`accelerate` says."""
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise TypeError(f"imgops.accelerate: model must be a torch.nn.Module; got {type(model).__name__}")
    if hasattr(model, "_orig_mod") or model._compiled_call_impl is not None:
        raise ValueError("imgops.accelerate: model is compiled; accelerate it before torch.compile")
    devices = sorted({p.device.type for p in model.parameters()} - {"cpu"})
    if "meta" in devices:
        raise ValueError("imgops.accelerate: model must have values; got one on the device meta")
    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, (tuple, list)):
        return tuple(example_inputs), {}
    if isinstance(example_inputs, dict):
        return (), example_inputs
    if example_inputs is not None:
        raise TypeError(
            "imgops.accelerate: example_inputs must be a tensor, a tuple or a dict of a forward's arguments; "
            f"got {type(example_inputs).__name__}"
        )
    if devices:
        raise ValueError(
            f"imgops.accelerate: model is on {devices[0]}, where layers are timed before they are changed; "
            "give example_inputs"
        )
    return None
