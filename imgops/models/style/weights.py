"""Loads the networks of feed-forward style transfer from the weight files that people have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from ..weight_files import Layout, find_layout, find_weights, load_layout, read_weights, shipped_names
from .adain_decoder import AdaINDecoder
from .transform_net import TransformNet

Network = TypeVar("Network", bound=nn.Module)
#: prefix of the names of the single-style networks that ship
FAST = "fast_"
#: keys that files of fast_neural_style from before PyTorch 0.4 hold beside the weights
_LEGACY = re.compile(r"(res\d+\.)?in\d+\.(running_mean|running_var|num_batches_tracked)")


def load_transform_net(weights: str | Path) -> TransformNet:
    """Load a network of one style, as wide and deep as the weights in the file; it is in evaluation mode.

    Args:
        weights: a file of torch.save or safetensors, of fast_neural_style or of this package; or the name of one of
            :func:`fast_styles`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no file of weights, or of no such network; a key that is missing or of another shape, named.

    >>> load_transform_net("nowhere/mosaic.pth")
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: 'nowhere/mosaic.pth'
    """
    names = {name: FAST + name for name in fast_styles()}
    # a single word that is no file was meant as a name
    if re.fullmatch(r"[\w-]+", str(weights)) and str(weights) not in names and not Path(weights).exists():
        raise ValueError(
            f"{weights}: neither a file nor a style that ships with imgops ({', '.join(names) or 'there is none'})"
        )
    read = read_weights(find_weights(weights, names))
    state = {key: value for key, value in read.items() if not _LEGACY.fullmatch(key)}
    widths = [_size(state, f"conv{i}.conv2d.weight", 0, width) for i, width in enumerate((32, 64, 128), 1)]
    blocks = {match[1] for key in state if (match := re.match(r"res(\d+)\.", key))}
    options = {"widths": widths, "blocks": len(blocks) or 5}
    layout = Layout("fast_neural_style", TransformNet, options, lambda key: key)
    return _load(TransformNet, state, [layout], str(weights))


def fast_styles() -> list[str]:
    """Names of the networks of one style that ship with the package."""
    return [name.removeprefix(FAST) for name in shipped_names() if name.startswith(FAST)]


def load_adain_decoder(weights: str | Path) -> AdaINDecoder:
    """Load a decoder, for the encoder whose shape the weights in the file tell; it is in evaluation mode.

    Args:
        weights: a file of torch.save or safetensors, of AdaIN's ``decoder.pth`` (Huang and Belongie 2017) for VGG-19
            or of this package; or "default", the decoder of the embedded encoder.

    Raises: as :func:`load_transform_net`.
    """
    state = read_weights(find_weights(weights, {"default": "default_adain"}))
    deepest = max((int(match[1]) for key in state if (match := re.match(r"conv([2-9])_1\.", key))), default=4)
    blocks = [
        max((i for i in range(1, 10) if f"conv{block}_{i}.weight" in state), default=1) for block in range(1, deepest)
    ]
    # the first convolution of a decoder block has the output channels of the encoder's block before
    widths = [_size(state, f"conv{block + 1}_1.weight", 0, 64) for block in range(1, deepest)]
    widths.append(_size(state, f"conv{deepest}_1.weight", 1, 512))
    layer = {"layer": _text(state["layer_name"], str(weights))} if "layer_name" in state else {}
    layouts = [
        Layout("AdaIN's decoder", AdaINDecoder, {}, _adain_keys()),
        Layout("imgops AdaIN decoder", AdaINDecoder, {"depth": blocks, "widths": widths} | layer, lambda key: key),
    ]
    return _load(AdaINDecoder, state, layouts, str(weights))


def _text(codes: Tensor, name: str) -> str:
    """The text whose bytes a tensor holds."""
    try:
        return bytes(codes.tolist()).decode()
    except (TypeError, ValueError):
        raise ValueError(f"{name}: layer_name must hold the bytes of a text; got {codes.dtype}") from None


def _adain_keys() -> Callable[[str], str | None]:
    """The file's key of each convolution: its index among paddings, convolutions, ReLUs and up-samplings."""
    places, at = {}, 0
    for name, layer in AdaINDecoder(widths=(1, 1, 1, 1)).named_children():
        if isinstance(layer, nn.Conv2d):
            places[name] = at + 1
        # each convolution is preceded by a padding
        at += 2 if isinstance(layer, nn.Conv2d) else 1

    def file_key(key: str) -> str | None:
        layer, parameter = key.split(".")
        return f"{places[layer]}.{parameter}"

    return file_key


def _size(state: Mapping[str, Tensor], key: str, dim: int, default: int) -> int:
    """Channels of a convolution in a file; the default if there is no such convolution, which loading reports later."""
    return state[key].shape[dim] if key in state and state[key].ndim == 4 and state[key].numel() else default


def _load(build: type[Network], state: Mapping[str, Tensor], layouts: list[Layout], name: str) -> Network:
    layout = find_layout(state, layouts, name)
    network = build(**layout.options)
    load_layout(network, state, layout, f"{name} ({layout.name})")
    return network.eval().requires_grad_(False)
