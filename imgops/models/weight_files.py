"""Reads weight files: finds those that ship with the package, tells a file's layout by its keys, and loads it."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

#: where a file keeps the weights beside other things, the likeliest first
_WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net", "weights", "params")
#: prefixes that DataParallel, torch.compile and modules around a network add to all of its keys
_PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.", "encoder.", "decoder.")
#: keys of the parts that encoders leave out: classifiers, and the counters of batch normalization
_UNUSED = re.compile(r"(classifier|_?fc|aux1|aux2|AuxLogits)\.|.*\.num_batches_tracked$")
#: the folder of the families; a weight file that ships lies in that of the family that loads it
_MODELS = Path(__file__).parent


class Layout(NamedTuple):
    """A kind of weight file: which network it holds, and by which key it holds each of the network's tensors."""

    name: str
    #: builds the network; ``options`` are the arguments that the weights decide, the caller may give others
    build: Callable[..., nn.Module]
    options: dict[str, Any]
    #: the file's key for a key of the network; None for a tensor that such a file does not hold
    file_key: Callable[[str], str | None]
    #: tells a file of this layout from one of another layout with the same keys
    marks: Callable[[Mapping[str, Tensor]], bool] = lambda state: True
    #: converts the file's tensors to those that the network has
    prepare: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda state: state


def shipped(name: str) -> Path | None:
    """The path of a weight file that ships with the package, by a name such as default_encoder; None: there is none.

    >>> shipped("nothing_of_this_name") is None
    True
    """
    return next((path for path in _shipped_files() if path.stem == name), None)


def shipped_names() -> list[str]:
    """Names of all files of weights that ship with the package."""
    return sorted(path.stem for path in _shipped_files())


def _shipped_files() -> Iterator[Path]:
    return (path for path in _MODELS.glob("*/*.safetensors") if not path.name.startswith("."))


def find_weights(weights: str | Path, names: Mapping[str, str]) -> Path:
    """The path of a weight file that is given as a path, or by a name that stands for a file of the package.

    Args:
        weights: a path, or a key of ``names``; an existing file of that name takes precedence.
        names: for each name, the name that :func:`shipped` takes.

    Raises:
        ValueError: a name whose file this installation lacks.
    """
    if str(weights) not in names or Path(weights).is_file():
        return Path(weights)
    path = shipped(names[str(weights)])
    if path is None:
        raise ValueError(
            f"{weights}: this installation lacks {names[str(weights)]}.safetensors; give the path of a file of weights"
        )
    return path


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors in a file that torch.save or safetensors wrote, by key; no code in it is executed.

    Raises:
        OSError: it cannot be read.
        ValueError: it is empty, truncated, a web page, or holds something else.
    """
    path = Path(path)
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise ValueError(f"{path}: the file is empty")
    if start.lstrip()[:1] == b"<":
        raise ValueError(f"{path}: a web page, not weights; download the file itself")
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            state: Any = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "global" in str(error).lower():
            raise ValueError(f"{path}: holds more than tensors, which is not loaded as it could run code") from None
        raise ValueError(f"{path}: not a file of weights, or a damaged one") from None
    except Exception as error:
        if isinstance(error, (OSError, MemoryError, ImportError)):
            raise
        # on a damaged file zip, pickle and safetensors raise many kinds of exceptions
        raise ValueError(f"{path}: not a file of weights, or a damaged or truncated one") from None
    return _unwrapped(state, str(path))


def _unwrapped(state: Any, name: str) -> dict[str, Tensor]:
    """The tensors in a loaded object, by key, without the dictionaries and prefixes that a training put around them."""
    while isinstance(state, Mapping) and not _is_state(state):
        inner = {str(key): value for key, value in state.items() if isinstance(value, Mapping) and _has_state(value)}
        known = [key for key in _WRAPPERS if key in inner] or list(inner)
        if not inner:
            break
        if len(known) > 1 and known[0] not in _WRAPPERS:
            raise ValueError(f"{name}: holds several state dicts ({', '.join(known)}); save the one that is meant")
        state = inner[known[0]]
    if not isinstance(state, Mapping) or not _is_state(state):
        raise ValueError(f"{name}: holds no state dict, but {type(state).__name__}")
    found = {str(key): value for key, value in state.items()}
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in found)), None):
        found = {key.removeprefix(prefix): value for key, value in found.items()}
    return found


def _is_state(state: Mapping[Any, Any]) -> bool:
    return bool(state) and all(isinstance(value, Tensor) for value in state.values())


def _has_state(state: Mapping[Any, Any]) -> bool:
    return _is_state(state) or any(isinstance(value, Mapping) and _has_state(value) for value in state.values())


def find_layout(state: Mapping[str, Tensor], layouts: Sequence[Layout], name: str) -> Layout:
    """The layout whose keys match those of a file best.

    Args:
        state: the file's tensors.
        layouts: the candidates.
        name: of the file, for messages.

    Raises:
        ValueError: the file has fewer than half of the keys of every layout.
    """

    def missing(layout: Layout) -> float:
        if not layout.marks(state):
            return 1.0
        with torch.device("meta"):
            keys = _file_keys(layout.build(**layout.options), layout)
        return len(keys.keys() - layout.prepare(state).keys()) / len(keys)

    layout = min(layouts, key=missing)
    if missing(layout) > 0.5:
        known = ", ".join(layout.name for layout in layouts)
        raise ValueError(
            f"{name}: no known layout of weights ({known}); its keys are {', '.join(list(state)[:4])}, ..."
        )
    return layout


def load_layout(network: nn.Module, state: Mapping[str, Tensor], layout: Layout, name: str) -> None:
    """Copy a file's tensors into a network, translating their keys.

    Raises:
        ValueError: a key is missing, has another shape, or has no place in the network.
    """
    own, wanted = network.state_dict(), _file_keys(network, layout)
    state = layout.prepare(state)
    if missing := [key for key in wanted if key not in state]:
        raise ValueError(f"{name}: {len(missing)} keys are missing, the first is {missing[0]}")
    if unknown := [key for key in state if key not in wanted and not _UNUSED.match(key)]:
        raise ValueError(f"{name}: {len(unknown)} keys have no place in the network, the first is {unknown[0]}")
    for key, target in wanted.items():
        if state[key].shape != own[target].shape:
            raise ValueError(
                f"{name}: {key} has shape {tuple(state[key].shape)} where {tuple(own[target].shape)} is needed"
            )
        own[target].copy_(state[key])


def _file_keys(network: nn.Module, layout: Layout) -> dict[str, str]:
    """The network's key for each key that a file of the layout has."""
    pairs = ((layout.file_key(key), key) for key in network.state_dict() if not key.endswith("num_batches_tracked"))
    return {theirs: ours for theirs, ours in pairs if theirs is not None}
