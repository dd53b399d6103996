"""Encoders from the weight files that people have: the network and its layout are told by the keys."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError

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
#: what the names of Caffe's VGGs have that jcjohnson converted, which expect BGR from 0 to 255, and their own keys
_CAFFE = re.compile(r"00b39a1b|d01eb7cb|caffe", re.IGNORECASE)
_CAFFE_KEYS = {"classifier.1.weight", "classifier.4.weight"}
#: where a file keeps the weights beside other things, the likeliest first
_WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net", "weights", "params")
#: what DataParallel, torch.compile and modules around a network put before all of its keys
_PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.", "encoder.", "decoder.")
#: the convolutions of each block of torchvision's VGGs
_VGGS = {**DEPTHS, 13: (2, 2, 2, 2, 2), 11: (1, 1, 2, 2, 2)}
#: of torchvision's batch normalisation in VGGs
_VGG_EPS = 1e-5
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
    #: the file's tensors as the network's layers take them
    prepare: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda state: state


def load_encoder(
    weights: str | Path,
    *,
    pooling: str | None = None,
    padding_mode: str | None = None,
    preprocessing: str | None = None,
    frame: bool = True,
) -> nn.Module:
    """An encoder with the weights of a file, whose network and layout are told by its keys; in evaluation mode.

    These layouts are known: torchvision's vgg11 to vgg19 (of those with batch normalisation it is multiplied into the
    convolutions), googlenet and inception_v3; Caffe's VGGs, which expect BGR from 0 to 255, as jcjohnson and Gatys
    converted them; the normalised VGG-19 of AdaIN (Huang and Belongie 2017), whose first convolution prepares the
    colours; Inception v3 as of the FID. Classifiers are left out.

    torchvision's VGGs and Caffe's have the same keys but for the classifier: without it a file of Caffe's is known by
    its name (vgg19-d01eb7cb.pth, vgg16-00b39a1b.pth, or one with "caffe" in it), and else must be told by
    ``preprocessing``.

    Args:
        weights: a file of torch.save or safetensors; "default", a small VGG that ships with the package; or a name in
            :data:`DOWNLOADS`, which is downloaded once into the cache of torch.hub and checked.
        pooling, padding_mode, preprocessing: as the networks take them; None takes what the weights were trained with.
        frame: whether zero padding that the weights were trained with stays if no padding_mode is given. False takes
            "replicate" in its place: features at the edge are then like those of the middle, and what is painted by
            them gets no frame. The encoder that ships has none in any case. Default True.

    Raises:
        OSError: the file cannot be read, or a download fails.
        ValueError: it is no file of weights, or of no known layout; a key that is missing or of another shape, named.

    >>> load_encoder("nowhere/vgg19.pth")
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: 'nowhere/vgg19.pth'
    """
    if str(weights) in DOWNLOADS and not Path(weights).exists():
        state = _download(str(weights), DOWNLOADS[str(weights)])
    else:
        state = read_weights(find_weights(weights, {"default": "default_encoder"}))
    layout = find_layout(state, [*LAYOUTS, *_own_layout(state)], str(weights))
    options = dict(layout.options)
    if layout.build is VGG and _is_caffes(str(weights), state):
        options["preprocessing"] = "caffe"
    if not frame or str(weights) == "default":
        options.setdefault("padding_mode", "replicate")
    chosen = {"pooling": pooling, "padding_mode": padding_mode, "preprocessing": preprocessing}
    network = layout.build(**options | {key: value for key, value in chosen.items() if value is not None})
    load_layout(network, state, layout, f"{weights} ({layout.name})")
    return network.eval().requires_grad_(False)


def _download(name: str, url: str) -> dict[str, Tensor]:
    """The weights at an address, from the cache of torch.hub where they are already.

    Raises:
        OSError: they cannot be downloaded; says from where, and where a file from elsewhere goes.
    """
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except URLError as error:
        place = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
        raise OSError(
            f"{name}: cannot be downloaded from {url} ({error.reason}); put the file at {place}, or give its path as "
            "weights"
        ) from None


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
        if isinstance(error, (OSError, MemoryError, ImportError)):
            raise
        # zip, pickle and safetensors each raise their own on a damaged file
        raise ValueError(f"{path}: not a file of weights, or a damaged or truncated one") from None
    return _unwrapped(state, str(path))


def _unwrapped(state: Any, name: str) -> dict[str, Tensor]:
    """The tensors of what a file holds, by key, without what a training has put around them."""
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
    """The layout whose keys those of a file are.

    Args:
        state: the file's tensors.
        layouts: those that it may be of.
        name: of the file.

    Raises:
        ValueError: it has less than half of the keys of any.
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
    """Copy the tensors of a file into a network whose keys are others.

    Raises:
        ValueError: a key that is missing, of another shape, or that the network has no place for.
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
    options: dict[str, Any] = {
        "depth": [blocks[block] for block in sorted(blocks)],
        "widths": [len(weight) for weight in first],
    }
    if "input.weight" not in state and options["widths"] == [64, 128, 256, 512, 512]:
        plain: Callable[[str], str | None] = lambda key: None if key.startswith("input.") else key  # noqa: E731
        return [Layout("Caffe's VGG as Gatys names it", VGG, options | {"preprocessing": "caffe"}, plain)]
    return [Layout("imgops VGG", VGG, options, lambda key: key)] if all(options["widths"]) else []


def _is_caffes(name: str, state: Mapping[str, Tensor]) -> bool:
    """Whether a VGG's file is one that was converted from Caffe's, by its name or the places in its classifier."""
    return bool(_CAFFE.search(Path(name).name)) or not _CAFFE_KEYS.isdisjoint(state)


def _vgg_keys(depth: int, prefix: str, padded: bool, normed: bool = False) -> Callable[[str], str | None]:
    """The convolutions' places in a sequence that also holds ReLUs, pools and, if ``padded``, paddings, if ``normed``,
    batch normalisations."""
    places: dict[str, int] = {}
    at = 1 if padded else 0
    for block, convolutions in enumerate(_VGGS[depth], 1):
        for i in range(1, convolutions + 1):
            places[f"conv{block}_{i}"] = at + padded
            at += 2 + padded + normed
        at += 1
    if padded:
        # the first of all is a convolution that prepares the colours
        places["input"] = 0

    def file_key(key: str) -> str | None:
        layer, parameter = key.split(".")
        return f"{prefix}{places[layer]}.{parameter}" if layer in places else None

    return file_key


def _has_norms(state: Mapping[str, Tensor]) -> bool:
    return "features.1.running_mean" in state


def _without_norms(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A VGG's tensors with each batch normalisation multiplied into the convolution before it; where one of its tensors
    is missing, so are those of the convolution."""
    folded = dict(state)
    for key, weight in state.items():
        match = re.fullmatch(r"features\.(\d+)\.weight", key)
        if match is None or weight.ndim != 4:
            continue
        conv, norm = f"features.{match[1]}", f"features.{int(match[1]) + 1}"
        bias = folded.pop(f"{conv}.bias", None)
        parts = [folded.pop(f"{norm}.{name}", None) for name in ("weight", "bias", "running_mean", "running_var")]
        if bias is None or any(part is None for part in parts):
            folded.pop(key)
            continue
        gain, shift, mean, variance = (part.double() for part in parts if part is not None)
        gain = gain / (variance + _VGG_EPS).sqrt()
        folded[key] = (weight.double() * gain[:, None, None, None]).to(weight.dtype)
        folded[f"{conv}.bias"] = ((bias.double() - mean) * gain + shift).to(bias.dtype)
    return folded


def _googlenet_key(key: str) -> str | None:
    return None if key.startswith("input.") else key.replace("inception_", "inception")


def _inception_key(key: str) -> str | None:
    if key.startswith("input."):
        return None
    # branches of one convolution have no number, those of several count from 1
    key = re.sub(r"(branch1x1|Mixed_6a\.branch3x3)\.0\.", r"\1.", key).replace("branch_pool.1.", "branch_pool.")
    return re.sub(r"\.(\d)\.(?:([ab])\.)?(?=conv|bn)", lambda m: f"_{int(m[1]) + 1}{m[2] or ''}.", key)


LAYOUTS = (
    *(
        Layout(f"vgg{n}", VGG, {"depth": depth}, _vgg_keys(n, "features.", False), lambda state: not _has_norms(state))
        for n, depth in _VGGS.items()
    ),
    *(
        Layout(f"vgg{n}_bn", VGG, {"depth": depth}, _vgg_keys(n, "features.", False, True), _has_norms, _without_norms)
        for n, depth in _VGGS.items()
    ),
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
