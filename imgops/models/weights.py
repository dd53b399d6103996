"""Encoders from the weight files that people have: the network and its layout are told by the keys."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .googlenet import GoogLeNet
from .inception_v3 import InceptionV3
from .vgg import DEPTHS, VGG

#: weights that can be named, downloaded once into the cache of torch.hub; the file's name ends in its SHA-256
DOWNLOADS = {
    "vgg16": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "vgg19": "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
    "googlenet": "https://download.pytorch.org/models/googlenet-1378be20.pth",
    "inception_v3": "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
}
#: keys of parts of a network that encoders are without
_UNUSED = re.compile(r"(classifier|fc|aux1|aux2|AuxLogits)\.|.*\.num_batches_tracked$")
#: where the weights lie that ship with the package
_PACKAGE = Path(__file__).parent


class Layout(NamedTuple):
    """A kind of weight file: the network that it is of, and the file's key for each key of the network."""

    name: str
    #: the network, and what of its options the weights decide; the others are the caller's
    build: Callable[..., nn.Module]
    options: dict[str, Any]
    #: None for what such a file does not hold
    file_key: Callable[[str], str | None]
    #: whether a file with these keys is of this layout, where another has the same ones
    marks: Callable[[Mapping[str, Tensor]], bool] = lambda state: True


def load_encoder(
    weights: str | Path,
    *,
    pooling: str | None = None,
    padding_mode: str | None = None,
    preprocessing: str | None = None,
) -> nn.Module:
    """An encoder with the weights of a file, whose network and layout are told by its keys; in evaluation mode.

    These layouts are known: torchvision's vgg16, vgg19, googlenet and inception_v3; the normalised VGG-19 of AdaIN
    (Huang and Belongie 2017), whose first convolution prepares the colours; Inception v3 as of the FID. Classifiers
    are left out.

    Args:
        weights: a file of torch.save or safetensors; "default", a small VGG that ships with the package; or a name in
            :data:`DOWNLOADS`, which is downloaded once into the cache of torch.hub and checked.
        pooling, padding_mode, preprocessing: as the networks take them; None takes what the weights were trained with.

    Raises:
        OSError: the file cannot be read, or a download fails.
        ValueError: it is no file of weights, or of no known layout; a key that is missing or of another shape, named.

    >>> load_encoder("nowhere/vgg19.pth")
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: 'nowhere/vgg19.pth'
    """
    if str(weights) in DOWNLOADS and not Path(weights).exists():
        state = torch.hub.load_state_dict_from_url(
            DOWNLOADS[str(weights)], map_location="cpu", check_hash=True, weights_only=True
        )
    else:
        state = read_weights(find_weights(weights, {"default": "default_encoder"}))
    layout = find_layout(state, [*LAYOUTS, *_own_layout(state)], str(weights))
    options = {"pooling": pooling, "padding_mode": padding_mode, "preprocessing": preprocessing}
    network = layout.build(**layout.options | {k: v for k, v in options.items() if v is not None})
    load_layout(network, state, layout, f"{weights} ({layout.name})")
    return network.eval().requires_grad_(False)


def shipped(name: str) -> Path | None:
    """The file of weights that ships with the package under a name, such as default_encoder; None if it has none.

    >>> shipped("nothing_of_this_name") is None
    True
    """
    path = _PACKAGE / f"{name}.safetensors"
    return path if path.is_file() else None


def shipped_names() -> list[str]:
    """Names of all files of weights that ship with the package."""
    return sorted(path.stem for path in _PACKAGE.glob("*.safetensors") if not path.name.startswith("."))


def find_weights(weights: str | Path, names: Mapping[str, str]) -> Path:
    """The file that is meant by a path, or by a name that stands for a file of the package.

    Args:
        weights: a path, which comes first where there is such a file, or a key of ``names``.
        names: for each name, what :func:`shipped` knows it by.

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
    """The tensors of a file of torch.save or safetensors, by key; nothing in it is executed.

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
        if isinstance(error, (OSError, MemoryError)):
            raise
        # zip, pickle and safetensors each raise their own on a damaged file
        raise ValueError(f"{path}: not a file of weights, or a damaged or truncated one") from None
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: holds no state dict, but {type(state).__name__}")
    # what DataParallel saves
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def find_layout(state: Mapping[str, Tensor], layouts: Sequence[Layout], name: str) -> Layout:
    """The layout whose keys those of a file are.

    Args:
        state: the file's tensors.
        layouts: those that it may be of.
        name: of the file.

    Raises:
        ValueError: it has less than half of the keys of any.
    """

    def missing(layout: Layout) -> float:
        with torch.device("meta"):
            keys = _file_keys(layout.build(**layout.options), layout)
        return len(keys.keys() - state.keys()) / len(keys) if layout.marks(state) else 1.0

    layout = min(layouts, key=missing)
    if missing(layout) > 0.5:
        known = ", ".join(layout.name for layout in layouts)
        raise ValueError(
            f"{name}: no known layout of weights ({known}); its keys are {', '.join(list(state)[:4])}, ..."
        )
    return layout


def load_layout(network: nn.Module, state: Mapping[str, Tensor], layout: Layout, name: str) -> None:
    """Copy the tensors of a file into a network whose keys are others.

    Raises:
        ValueError: a key that is missing, of another shape, or that the network has no place for.
    """
    own, wanted = network.state_dict(), _file_keys(network, layout)
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
    """The network's key for each key of a file."""
    pairs = ((layout.file_key(key), key) for key in network.state_dict() if not key.endswith("num_batches_tracked"))
    return {theirs: ours for theirs, ours in pairs if theirs is not None}


def _own_layout(state: Mapping[str, Tensor]) -> list[Layout]:
    """That of a VGG of any size as this package saves it, if the keys are such."""
    blocks: dict[int, int] = {}
    for key in state:
        if match := re.fullmatch(r"conv(\d+)_(\d+)\.weight", key):
            blocks[int(match[1])] = max(blocks.get(int(match[1]), 0), int(match[2]))
    if not blocks or sorted(blocks) != list(range(1, len(blocks) + 1)):
        return []
    first = [state.get(f"conv{block}_1.weight", torch.empty(0)) for block in sorted(blocks)]
    options = {"depth": [blocks[block] for block in sorted(blocks)], "widths": [len(weight) for weight in first]}
    return [Layout("imgops VGG", VGG, options, lambda key: key)] if all(options["widths"]) else []


def _vgg_keys(depth: int, prefix: str, padded: bool) -> Callable[[str], str | None]:
    """The convolutions' places in a sequence that also holds ReLUs, pools and, if ``padded``, paddings."""
    places: dict[str, int] = {}
    at = 1 if padded else 0
    for block, convolutions in enumerate(DEPTHS[depth], 1):
        for i in range(1, convolutions + 1):
            places[f"conv{block}_{i}"] = at + padded
            at += 2 + padded
        at += 1
    if padded:
        # the first of all is a convolution that prepares the colours
        places["input"] = 0

    def file_key(key: str) -> str | None:
        layer, parameter = key.split(".")
        return f"{prefix}{places[layer]}.{parameter}" if layer in places else None

    return file_key


def _googlenet_key(key: str) -> str | None:
    return None if key.startswith("input.") else key.replace("inception_", "inception")


def _inception_key(key: str) -> str | None:
    if key.startswith("input."):
        return None
    # branches of one convolution have no number, those of several count from 1
    key = re.sub(r"(branch1x1|Mixed_6a\.branch3x3)\.0\.", r"\1.", key).replace("branch_pool.1.", "branch_pool.")
    return re.sub(r"\.(\d)\.(?:([ab])\.)?(?=conv|bn)", lambda m: f"_{int(m[1]) + 1}{m[2] or ''}.", key)


LAYOUTS = (
    Layout("vgg16", VGG, {"depth": 16}, _vgg_keys(16, "features.", False)),
    Layout("vgg19", VGG, {"depth": 19}, _vgg_keys(19, "features.", False)),
    Layout(
        "AdaIN's normalised vgg19",
        VGG,
        {"depth": 19, "padding_mode": "reflect", "ceil_mode": True},
        _vgg_keys(19, "", True),
    ),
    Layout("googlenet", GoogLeNet, {}, _googlenet_key),
    Layout(
        "inception_v3 of the FID",
        InceptionV3,
        {"fid": True},
        _inception_key,
        lambda state: "fc.weight" in state and len(state["fc.weight"]) == 1008,
    ),
    Layout("inception_v3", InceptionV3, {}, _inception_key),
)
