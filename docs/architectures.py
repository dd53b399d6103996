"""The figures of docs/families: the layers of each family's networks, drawn from the networks themselves.

``python docs/architectures.py`` writes docs/gallery/architecture-RECIPE.png, of networks of the preset tiny for 32
pixels and three classes. A bar is a layer, in the order of calls; the wider it is the more pixels its output has.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from imgops.models.network import Layer, Network
from imgops.training.config import GeneratorConfig
from imgops.training.recipes import RECIPES, config_class, recipe_class

FOLDER = Path(__file__).parent / "gallery"
SIDE, CLASSES = 32, 3
#: pixels: height of a bar, width of the widest, of the text beside it, and of the space around both
BAR, WIDEST, TEXT, SPACE = 17, 150, 430, 14


def networks(recipe: str) -> dict[str, Network]:
    """The networks of a recipe, by what they are called."""
    made: Any = config_class(recipe)(data="", out="", preset="tiny", resolution=SIDE, device="cpu")
    config, kind = made.resolve(), recipe_class(recipe)
    found = {"generator": kind.finished(config, CLASSES)}
    if hasattr(kind, "discriminator"):
        found["discriminator"] = kind.discriminator(config, CLASSES)
    else:
        found = {"network": found["generator"]}
    return found


def color(kind: str, kinds: Sequence[str]) -> tuple[int, int, int]:
    """The same for all layers of a kind, and far from that of the kind before."""
    hue = kinds.index(kind) * 0.618 % 1
    return tuple(round(255 * v) for v in colorsys.hls_to_rgb(hue, 0.75, 0.6))  # type: ignore[return-value]


def layers_of(network: Network) -> list[Layer]:
    """The layers that are called."""
    return [layer for layer in network.summary().layers if layer.shape]


def column(title: str, network: Network, kinds: Sequence[str]) -> Image.Image:
    """The bars of a network, one below the other, and beside each what it is."""
    layers = layers_of(network)
    picture = Image.new("RGB", (WIDEST + TEXT + 3 * SPACE, (len(layers) + 2) * (BAR + 2) + SPACE), "white")
    draw, font, heading = ImageDraw.Draw(picture), ImageFont.load_default(12), ImageFont.load_default(15)
    total = f"{title}: {network.num_parameters:,} parameters"
    draw.text((SPACE, SPACE // 2), total, "black", heading)
    for i, layer in enumerate(layers):
        top = SPACE + 18 + i * (BAR + 2)
        width = _width(layer)
        left = SPACE + (WIDEST - width) // 2
        draw.rectangle((left, top, left + width, top + BAR - 1), color(layer.kind, kinds), "gray")
        shape = " x ".join(map(str, layer.shape))
        draw.text((2 * SPACE + WIDEST, top + 1), f"{layer.name}", "black", font)
        draw.text((2 * SPACE + WIDEST + 230, top + 1), f"{layer.kind}, {shape}", "dimgray", font)
    return picture


def _width(layer: Layer) -> int:
    side = layer.shape[1] if len(layer.shape) == 3 else 1
    return round(WIDEST * (0.12 + 0.88 * math.log2(side + 1) / math.log2(2 * SIDE)))


if __name__ == "__main__":
    for recipe in RECIPES:
        if issubclass(config_class(recipe), GeneratorConfig):
            parts = networks(recipe)
            kinds = list(dict.fromkeys(layer.kind for network in parts.values() for layer in layers_of(network)))
            columns = [column(title, network, kinds) for title, network in parts.items()]
            size = sum(part.width for part in columns), max(part.height for part in columns)
            figure, left = Image.new("RGB", size, "white"), 0
            for part in columns:
                figure.paste(part, (left, 0))
                left += part.width
            figure.quantize(64).save(FOLDER / f"architecture-{recipe}.png", optimize=True)
