"""The pictures of docs/pictures.md, made anew from free ones: python docs/gallery.py [NAME ...]."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from imgops.data.pictures import read_picture, resize_picture
from imgops.data.textures import procedural_texture
from imgops.dream import DreamSettings, GuidedObjective, Objective, default_objectives, dream
from imgops.models.weights import load_encoder
from imgops.style.optimization import optimize
from imgops.style.settings import OptimizeSettings
from imgops.style.transfer import Transfer, TransferSettings
from imgops.training.encoder import random_network, sources

FOLDER = Path(__file__).parent / "gallery"
SIZE = 256
#: pixels between pictures, and of the text above each
GAP, LINE = 6, 18


def sample(name: str) -> Tensor:
    """A sample, or a procedural texture by its seed."""
    if name.isdigit():
        return procedural_texture(int(name)).float() / 255
    return read_picture(f"samples:{name}").pixels


def sheet(name: str, rows: Sequence[Sequence[tuple[str, Tensor]]]) -> None:
    """Pictures in rows, each in a square cell with its title above."""
    width = max(len(row) for row in rows) * (SIZE + GAP) - GAP
    image = Image.new("RGB", (width, len(rows) * (SIZE + LINE + GAP) - GAP), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    for y, row in enumerate(rows):
        for x, (title, picture) in enumerate(row):
            small = resize_picture(picture, SIZE)
            left, top = x * (SIZE + GAP), y * (SIZE + LINE + GAP)
            draw.text((left, top + 2), title, "black", font)
            pixels = (small.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
            image.paste(Image.fromarray(np.ascontiguousarray(pixels)), (left, top + LINE))
    FOLDER.mkdir(exist_ok=True)
    image.save(FOLDER / f"{name}.jpg", quality=88)
    print(f"{FOLDER / name}.jpg", flush=True)


def transferred(content: Tensor, styles: Sequence[Tensor], networks: Sequence[str] = (), **options: object) -> Tensor:
    """By :class:`imgops.style.Transfer`; ``steps`` and others of the optimisation go there."""
    own = {key: options.pop(key) for key in list(options) if key in OptimizeSettings.__dataclass_fields__}
    masks = options.pop("masks", None)
    settings = TransferSettings(size=SIZE, optimize=OptimizeSettings(**own), **options)  # type: ignore[arg-type]
    return Transfer(settings, networks)(content, styles, masks=masks)  # type: ignore[arg-type]


def methods() -> None:
    """Contents and styles by the three methods."""
    rows = []
    for content, style in (("chelsea", "hubble"), ("chelsea", "6"), ("astronaut", "retina"), ("coffee", "3")):
        x, s = sample(content), sample(style)
        row = [("content", x), ("style", s), ("optimize", transferred(x, [s]))]
        row.append(("optimize, wasserstein", transferred(x, [s], style_loss="wasserstein")))
        row.append(("adain", transferred(x, [s], method="adain")))
        if style == "hubble":
            row.append(("fast", transferred(x, [], [style], method="fast")))
        rows.append(row)
    sheet("methods", rows)


def options() -> None:
    """Colours, masks, mixtures."""
    x, s, t = sample("chelsea"), sample("hubble"), sample("6")
    left = (torch.arange(x.shape[2]) < x.shape[2] / 2).float().expand(1, *x.shape[1:])
    two = {"method": "adain"}
    sheet(
        "options",
        [
            [
                ("optimize", transferred(x, [t])),
                ("--keep-colours luma", transferred(x, [t], keep_colours="luma")),
                ("--keep-colours coral", transferred(x, [t], keep_colours="coral")),
                ("--keep-colours histogram", transferred(x, [t], keep_colours="histogram")),
            ],
            [
                ("two masks", transferred(x, [s, t], masks=[left, 1 - left])),
                ("adain --alpha 0.5", transferred(x, [t], alpha=0.5, **two)),
                ("adain --style-weights 1,1", transferred(x, [s, t], style_weights=(1.0, 1.0), **two)),
                ("--content-weight 5", transferred(x, [t], content_weight=5.0)),
            ],
        ],
    )


def dreams() -> None:
    """Dreams of a picture and of noise."""
    network = load_encoder("default")
    x, guide = resize_picture(sample("astronaut"), SIZE), resize_picture(sample("6"), 192)
    usual = default_objectives(network)
    layer = usual[0].layer
    noise = DreamSettings(parametrisation="fourier", steps=60, octaves=2)
    sheet(
        "dreams",
        [
            [
                ("samples:astronaut", x),
                ("imgops dream samples:astronaut", dream(x, network, usual)),
                ("--layer relu3_2", dream(x, network, [Objective("relu3_2")])),
                ("--layer relu5_2", dream(x, network, [Objective("relu5_2")])),
            ],
            [
                ("--guide (a texture)", dream(x, network, [GuidedObjective(layer, guide)])),
                ("--alpha 2", dream(x, network, usual, DreamSettings(alpha=2.0))),
                ("noise --fourier", dream(None, network, usual, noise, size=SIZE)),
                ("noise --fourier -l relu4_1:7", dream(None, network, [Objective("relu4_1", 7)], noise, size=SIZE)),
            ],
        ],
    )


def encoder() -> None:
    """The default encoder beside the same network with random weights."""
    torch.manual_seed(0)
    trained, random = load_encoder("default"), random_network(sources()[0], np.random.default_rng(0))
    x, s = sample("chelsea"), sample("6")
    settings = OptimizeSettings(size=SIZE)
    painted = [optimize(x, [s], network, settings) for network in (trained, random)]
    usual, small = default_objectives(trained), resize_picture(sample("astronaut"), SIZE)
    dreamt = [dream(small, network, usual) for network in (trained, random)]
    sheet(
        "encoder",
        [
            [("style", F.interpolate(s[None], SIZE)[0]), ("trained", painted[0]), ("random weights", painted[1])],
            [("picture", small), ("trained", dreamt[0]), ("random weights", dreamt[1])],
        ],
    )


SHEETS = {"methods": methods, "options": options, "dreams": dreams, "encoder": encoder}

if __name__ == "__main__":
    for chosen in sys.argv[1:] or SHEETS:
        SHEETS[chosen]()
