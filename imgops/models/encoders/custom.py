"""Encoders that the user has: what a function of theirs returns, and networks of timm by name.

A function, named like ``package.module:function`` or ``folder/file.py:function``, takes no arguments and returns any
:class:`torch.nn.Module` that takes pictures [N, 3, H, W], RGB in [0, 1], of any size. Its layers are those that
``named_modules`` names. It may have these attributes:

==================================  ====================================================================================
``preprocessing``                   how its input differs from RGB in [0, 1]: a name that :class:`Colors` takes, such as
                                    "imagenet", or (mean, std), three numbers each; a layer ``input`` then comes first
``content_layers``,                 {layer: weight}, the defaults of style transfer; without them, the last layer of
``style_layers``                    each stride
``fields``                          {layer: (stride, reach)} in pixels, see
                                    :class:`~imgops.models.encoders.tiling.Field`, for tiles; of an ``nn.Sequential`` of
                                    convolutions, pools and pointwise layers they are worked out
==================================  ====================================================================================
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from ..._install import MissingPackage
from ...nn._checks import check_choice
from ...ops.conv2d import PADDING_MODES
from ._layers import Colors

#: the prefix of timm's names
TIMM = "timm:"
_FUNCTION = re.compile(r"(?P<source>.+):(?P<function>[^\W\d]\w*)")


def names_custom(weights: str | Path) -> bool:
    """Whether this names a function, or a network of timm; a path of Windows (C:\\a.pth) and a file do not.

    >>> [names_custom(name) for name in ("net:make", "my_net.py:make", "timm:resnet50", "vgg19", "C:/vgg.pth")]
    [True, True, True, False, False]
    """
    name = str(weights)
    return not Path(name).exists() and (name.startswith(TIMM) or _FUNCTION.fullmatch(name) is not None)


def load_custom(weights: str, *, padding_mode: str | None = None, preprocessing: str | None = None) -> nn.Module:
    """The network of a name that :func:`names_custom` tells, in evaluation mode.

    Args:
        weights: ``module:function``, looked for in the working directory too; ``file.py:function``; or ``timm:NAME``,
            whose pretrained weights timm downloads once.
        padding_mode: of its convolutions that pad with zeros; None leaves them.
        preprocessing: in the place of the network's own; None: what its attribute says, of timm's its configuration.

    Raises:
        ModuleNotFoundError: timm is not installed.
        OSError: timm cannot download the weights.
        TypeError, ValueError: there is no such module, function or network of timm; it returns no ``nn.Module``; an
            unknown preprocessing or padding mode.
        RuntimeError: the module or function raises; says what.
    """
    if padding_mode is not None:
        check_choice("load_encoder", "padding_mode", padding_mode, PADDING_MODES)
    network = _of_timm(weights) if weights.startswith(TIMM) else network_of(weights)
    told: Any = getattr(network, "preprocessing", None)
    if weights.startswith(TIMM):
        told = network.pretrained_cfg["mean"], network.pretrained_cfg["std"]  # type: ignore[index]
    told = told if preprocessing is None else preprocessing
    if told is not None:
        network = _with_colors(network, told, weights)
    for layer in network.modules():
        if padding_mode is not None and isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros":
            layer.padding_mode = padding_mode  # type: ignore[assignment]
    return network.eval().requires_grad_(False)


def _of_timm(weights: str) -> nn.Module:
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise MissingPackage(f"{weights}: the package timm", "imgops[timm]") from None
    name = weights.removeprefix(TIMM)
    try:
        network: nn.Module = timm.create_model(name, pretrained=True)
    except Exception as error:
        if "Unknown model" in str(error):
            near = ", ".join(timm.list_models(f"*{name.partition('.')[0]}*")[:4])
            raise ValueError(f"{weights}: timm has no such network" + (f"; it has {near}" if near else "")) from None
        # the hub and its transports raise many kinds of exceptions
        raise OSError(
            f"{weights}: timm could not get its weights ({_line(error)}); where there is no network, put them into the "
            "cache of Hugging Face first, or name a function that loads a file (module:function)"
        ) from error
    return network


def network_of(weights: str) -> nn.Module:
    """What a function returns that is named like ``package.module:function`` or ``file.py:function``.

    Raises:
        ValueError, TypeError, OSError, RuntimeError: as of :func:`load_custom`.
    """
    match = _FUNCTION.fullmatch(weights)
    if match is None:
        raise ValueError(f"a network is named like package.module:function or file.py:function; got {weights!r}")
    source, name = match["source"], match["function"]
    with _naming(weights):
        module = _module_of_file(Path(source)) if source.endswith(".py") else _module(source)
    function = getattr(module, name, None)
    if not callable(function):
        has = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ValueError(f"{weights}: {source} has no function {name}; it has {', '.join(has) or 'none'}")
    with _naming(weights):
        network = function()
    if not isinstance(network, nn.Module):
        raise TypeError(f"{weights}: must return a torch.nn.Module; got {type(network).__name__}")
    return network


def _module_of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: No such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _module(name: str) -> ModuleType:
    # a command that pip installed does not look in the working directory by itself
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(f"there is no module {name}, neither installed nor in {os.getcwd()}") from None
    finally:
        sys.path.remove(os.getcwd())


@contextlib.contextmanager
def _naming(weights: str) -> Iterator[None]:
    """Within it errors of the user's code become one line that names it."""
    try:
        yield
    except ModuleNotFoundError:
        # the package that is missing is named elsewhere
        raise
    except Exception as error:
        kind = type(error) if isinstance(error, (ValueError, OSError)) else RuntimeError
        told = "" if isinstance(error, (ValueError, OSError)) else f"raised {type(error).__name__}: "
        raise kind(f"{weights}: {told}{_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _with_colors(network: nn.Module, preprocessing: Any, weights: str) -> nn.Module:
    """The network with a layer ``input`` before it that prepares the colors."""
    try:
        colors = Colors(preprocessing)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{weights}: {error}") from None
    if "input" in dict(network.named_children()):
        raise ValueError(f"{weights}: preprocessing adds a layer input, and the network has one of this name")
    if type(network).forward is nn.Sequential.forward:
        made = nn.Sequential(OrderedDict(input=colors, **dict(network.named_children())))
        made.__dict__ |= {key: value for key, value in vars(network).items() if key not in vars(made)}
        return made
    network.add_module("input", colors)
    network.register_forward_pre_hook(_prepare)
    return network


def _prepare(network: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    prepare: Callable[[Any], Any] = network.get_submodule("input")
    return (prepare(inputs[0]), *inputs[1:])
