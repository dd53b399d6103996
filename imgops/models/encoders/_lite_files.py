"""The layouts of EfficientNet-Lite's weight files: of its first conversion to PyTorch, and of timm."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from ..weight_files import Layout
from .efficientnet_lite import SCALES, EfficientNetLite, blocks_of, channels_of

#: a block's number in either layout: counted through, or of the stage and within it
_BLOCK = re.compile(r"_blocks\.(\d+)\.|blocks\.(\d+\.\d+)\.")
#: {part: its convolution and normalization}, of the network's ends and of a block
_ENDS = {"conv_stem": ("_conv_stem", "_bn0"), "conv_head": ("_conv_head", "_bn1")}
_PARTS = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}
#: the same of timm, whose blocks without an expansion number their parts from the depthwise one
_TIMM_ENDS = {"conv_stem": ("conv_stem", "bn1"), "conv_head": ("conv_head", "bn2")}
_TIMM_PARTS = {"expand": ("conv_pw", "bn1"), "depthwise": ("conv_dw", "bn2"), "project": ("conv_pwl", "bn3")}
_TIMM_FIRST = {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2")}


def _key(key: str) -> str | None:
    """The file's key as the first conversion has it."""
    layer, *rest = key.split(".")
    if layer == "input":
        return None
    if layer == "classifier":
        return f"_fc.{rest[0]}"
    if layer in _ENDS:
        return _within(_ENDS[layer], rest)
    return f"_blocks.{layer.removeprefix('blocks_')}.{_within(_PARTS[rest[0]], rest[1:])}"


def _timm_key(variant: int) -> Callable[[str], str | None]:
    """The file's key as timm has it, which numbers the blocks of each stage."""
    places = [f"{stage}.{i}" for stage, blocks in enumerate(blocks_of(variant)) for i in range(blocks)]

    def file_key(key: str) -> str | None:
        layer, *rest = key.split(".")
        if layer == "input":
            return None
        if layer == "classifier":
            return key
        if layer in _TIMM_ENDS:
            return _within(_TIMM_ENDS[layer], rest)
        place = places[int(layer.removeprefix("blocks_"))]
        parts = _TIMM_FIRST if place == "0.0" else _TIMM_PARTS
        return f"blocks.{place}.{_within(parts[rest[0]], rest[1:])}"

    return file_key


def _within(names: tuple[str, str], rest: list[str]) -> str:
    """The end of a key: the convolution or its normalization, and the parameter."""
    return f"{names[rest[0] == 'bn']}.{rest[1]}"


def _is_variant(variant: int, head: str) -> Callable[[Mapping[str, Tensor]], bool]:
    """Tells a variant from one whose keys it has too, by the number of its blocks and the width of the last, which
    the weight ``head`` takes."""
    blocks, width = sum(blocks_of(variant)), channels_of(320, SCALES[variant].width)

    def marks(state: Mapping[str, Tensor]) -> bool:
        found = {match[0] for key in state if (match := _BLOCK.match(key))}
        weight = state.get(head)
        return len(found) == blocks and (weight is None or weight.ndim != 4 or weight.shape[1] == width)

    return marks


LITE_LAYOUTS = tuple(
    layout
    for n in range(len(SCALES))
    for layout in (
        Layout(f"efficientnet-lite{n}", EfficientNetLite, {"variant": n}, _key, _is_variant(n, "_conv_head.weight")),
        Layout(
            f"timm's tf_efficientnet_lite{n}",
            EfficientNetLite,
            {"variant": n},
            _timm_key(n),
            _is_variant(n, "conv_head.weight"),
        ),
    )
)
