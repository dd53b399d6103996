"""The pictures of docs/pictures.md, docs/gallery.md and docs/training.md, made anew from free ones.

``python docs/gallery.py PICTURES [NAME ...]``; docs/training_pictures.py fills the folder PICTURES. The sheets of 6
contents in 6 styles keep each result in PICTURES/results, and take it from there the next time: remove that folder
after a change of defaults. They stand beside results of the networks of before, which are in the history::

    mkdir -p PICTURES/before
    git show 81bc505:imgops/models/encoders/default_encoder.safetensors > PICTURES/before/encoder.safetensors
    git show 81bc505:imgops/models/style/default_adain.safetensors > PICTURES/before/decoder.safetensors
    git show 81bc505:imgops/models/style/fast_hubble.safetensors > PICTURES/before/fast.safetensors
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from imgops.data.datasets.textures import procedural_texture
from imgops.data.pictures import fill_hidden, read_picture, resize_picture, write_picture
from imgops.data.pictures.colors import keep_colors
from imgops.dream import DreamSettings, GuidedObjective, Objective, default_objectives, dream, parse_class
from imgops.models.encoders import default_weights, load_encoder
from imgops.style.encoder_training import held_out_sources, random_network
from imgops.style.optimization import optimize
from imgops.style.presets import PRESETS, with_preset
from imgops.style.settings import OptimizeSettings
from imgops.style.transfer import Transfer, TransferSettings
from imgops.training import AugmentPipe, DiffAugment
from imgops.training.augment import PIPES

FOLDER = Path(__file__).parent / "gallery"
SIZE = 256
#: pixels between pictures, and of the text above each
GAP, LINE = 6, 18
#: the mean luma that a picture may have to lead, and the standard deviation that it must have
LIGHT, CONTRAST = (0.25, 0.75), 0.12
#: a drawing by Enrique, openclipart.org, public domain
ROOM = "gallery/van_gogh_s_room_enrique__01.png"
#: the contents and styles of the picture that leads
PAIRS = (("chelsea", ROOM), ("coffee", "47"), ("camera", "retina"))
#: of the sheets of each method, by their titles
CONTENTS = {
    "cat": "chelsea",
    "cup": "coffee",
    "astronaut": "astronaut",
    "flower": "contents/flower.png",
    "pagoda": "test-contents/china.png",
    "mountains": "contents/picosdeeuropa_by_Aitzol_Berasategi.png",
}
STYLES = {
    "room": ROOM,
    "lozenges": "test-styles/licorice-l.png",
    "strings": "test-styles/string.png",
    "gravel": "gravel",
    "brick": "brick",
    "hubble": "hubble",
}
#: the side of a picture on these sheets
SMALL = 160
#: seeds of transforms that draw what is well seen, where 1 does not
AUGMENTED = {
    "xint": 3, "scale": 14, "aniso": 4, "xfrac": 5, "lumaflip": 8, "hue": 4, "saturation": 7, "imgfilter": 4,
}  # fmt: skip
#: the folder of the pictures that are no samples
pictures = Path()


def sample(name: str) -> Tensor:
    """The middle square of a sample, of a file of the folder of pictures, or of a procedural texture by its seed."""
    if name.isdigit():
        return procedural_texture(int(name)).float() / 255
    picture = read_picture(pictures / name if name.endswith(".png") else f"samples:{name}")
    pixels = fill_hidden(picture.pixels, picture.alpha)
    side = min(pixels.shape[1:])
    top, left = ((length - side) // 2 for length in pixels.shape[1:])
    return pixels[:, top : top + side, left : left + side]


def check_light(title: str, picture: Tensor) -> None:
    """Refuse a picture [3, H, W], RGB in [0, 1], of which too little would be seen at the head of a page.

    Raises:
        ValueError: nearly black, nearly white, or nearly flat.
    """
    luma = torch.einsum("chw,c->hw", picture.clamp(0, 1), picture.new_tensor([0.299, 0.587, 0.114]))
    mean, deviation = luma.mean().item(), luma.std().item()
    if not LIGHT[0] <= mean <= LIGHT[1] or deviation < CONTRAST:
        raise ValueError(
            f"{title}: mean luma must be {LIGHT[0]} to {LIGHT[1]}, and its standard deviation at least {CONTRAST}; "
            f"got {mean:.2f} and {deviation:.2f}"
        )


def sheet(name: str, rows: Sequence[Sequence[tuple[str, Tensor]]], side: int = SIZE) -> None:
    """Pictures in rows, each in a square cell with its title above; an empty one leaves its cell blank."""
    width = max(len(row) for row in rows) * (side + GAP) - GAP
    image = Image.new("RGB", (width, len(rows) * (side + LINE + GAP) - GAP), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    for y, row in enumerate(rows):
        for x, (title, picture) in enumerate(row):
            left, top = x * (side + GAP), y * (side + LINE + GAP)
            draw.text((left, top + 2), title, "black", font)
            if picture.numel() == 0:
                continue
            small = resize_picture(picture, side)
            pixels = (small.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
            image.paste(Image.fromarray(np.ascontiguousarray(pixels)), (left, top + LINE))
    FOLDER.mkdir(exist_ok=True)
    image.save(FOLDER / f"{name}.jpg", quality=88)
    print(f"{FOLDER / name}.jpg", flush=True)


def transferred(content: Tensor, styles: Sequence[Tensor], networks: Sequence[str] = (), **options: object) -> Tensor:
    """By :class:`imgops.style.Transfer`; ``steps`` and others of the optimization go there."""
    own = {key: options.pop(key) for key in list(options) if key in OptimizeSettings.__dataclass_fields__}
    masks = options.pop("masks", None)
    optimizing = OptimizeSettings(**own)  # type: ignore[arg-type]
    settings = TransferSettings(size=SIZE, optimize=optimizing, **options)  # type: ignore[arg-type]
    return Transfer(settings, networks)(content, styles, masks=masks)  # type: ignore[arg-type]


def methods() -> None:
    """Contents and styles by each method, and a dream; it leads the README."""
    rows = []
    for content, style in PAIRS:
        x, s = sample(content), sample(style)
        made = [(method, transferred(x, [s], method=method)) for method in ("optimize", "nnst", "adain")]
        rows.append([("content", x), ("style", s), *made])
    cup, picture = sample("coffee"), resize_picture(sample("astronaut"), SIZE)
    network = load_encoder(default_weights(), frame=False)
    fast = transferred(cup, [], ["hubble"], method="fast", keep_colors="coral")
    dreamt = dream(picture, network, default_objectives(network))
    rows.append([("picture", picture), ("dream", dreamt), ("content", cup), ("fast (hubble), in its colors", fast)])
    for title, picture in (cell for row in rows for cell in row):
        if title not in ("content", "style", "picture"):
            check_light(title, picture)
    sheet("methods", rows)


def nnst() -> None:
    """Contents in textures by the method nnst."""
    rows = []
    for content, style in (("chelsea", "gravel"), ("coffee", "brick"), ("chelsea", ROOM)):
        x, s = sample(content), sample(style)
        rows.append([("content", x), ("style", s), ("nnst", transferred(x, [s], method="nnst"))])
    sheet("nnst", rows)


def result(folder: str, content: str, style: str, **given: object) -> Tensor:
    """A content in a style, made unless this folder of PICTURES/results has it, by :func:`transferred`."""
    file = pictures / "results" / folder / f"{content}-{style}.png"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        made = transferred(sample(CONTENTS[content]), **given)  # type: ignore[arg-type]
        write_picture(file, made)
    return read_picture(file).pixels


def all_pairs(method: str, **before: object) -> None:
    """Each content in each style by a method; below each, where there were other networks before, by those."""
    empty = ("", torch.empty(0))
    rows = [[empty, *((name, sample(style)) for name, style in STYLES.items())]]
    for content in CONTENTS:
        x = sample(CONTENTS[content])
        cells = [result(method, content, name, styles=[sample(s)], method=method) for name, s in STYLES.items()]
        rows.append([(content, x), *(("", cell) for cell in cells)])
        if before:
            given = {"method": method, **before}
            old = [result(f"{method} before", content, name, styles=[sample(s)], **given) for name, s in STYLES.items()]
            rows.append([empty, *(("before", cell) for cell in old)])
    sheet(f"{method}-all", rows, SMALL)


def presets() -> None:
    """Contents in styles by each preset."""
    rows = []
    for content, style in (("cat", "strings"), ("pagoda", "room"), ("flower", "lozenges")):
        x, s = sample(CONTENTS[content]), sample(STYLES[style])
        made = []
        for name in PRESETS:
            settings = with_preset(TransferSettings(size=SIZE), name)
            made.append((f"--preset {name}", Transfer(settings)(x, [s])))
        rows.append([(content, x), (style, s), *made])
    sheet("presets", rows)


def large() -> None:
    """A print of 1024 pixels, in tiles, at its own size."""
    file = pictures / "results" / "print.png"
    content, style = (read_picture(pictures / name).pixels for name in (CONTENTS["mountains"], STYLES["strings"]))
    if not file.exists():
        settings = TransferSettings(size=1024, optimize=OptimizeSettings(tile=512))
        write_picture(file, Transfer(settings)(content, [style]))
    write_picture(FOLDER / "print.jpg", read_picture(file).pixels, quality=88)
    print(FOLDER / "print.jpg", flush=True)


def optimize_all() -> None:
    """6 contents in 6 styles by optimize."""
    all_pairs("optimize", weights=str(pictures / "before" / "encoder.safetensors"), content_weight=1.0)


def nnst_all() -> None:
    """6 contents in 6 styles by nnst."""
    all_pairs("nnst")


def adain_all() -> None:
    """6 contents in 6 styles by adain."""
    before = pictures / "before"
    all_pairs("adain", weights=str(before / "encoder.safetensors"), decoder=str(before / "decoder.safetensors"))


def fast_all() -> None:
    """6 contents in the style whose network comes along, by fast."""
    titled, own = [], {"styles": [], "method": "fast"}
    for title, method, network, more in (
        ("before", "fast before", str(pictures / "before" / "fast.safetensors"), {}),
        ("hubble", "fast", "hubble", {}),
        ("coral", "fast coral", "hubble", {"keep_colors": "coral"}),
    ):
        cells = [result(method, content, "hubble", networks=[network], **own, **more) for content in CONTENTS]
        titled.append([(title, cell) for cell in cells])
    sheet("fast-all", [[(content, sample(name)) for content, name in CONTENTS.items()], *titled], SMALL)


def options() -> None:
    """Colors, masks, mixtures."""
    x, s, t = sample("chelsea"), sample("retina"), sample("24")
    left = (torch.arange(x.shape[2]) < x.shape[2] / 2).float().expand(1, *x.shape[1:])
    painted = transferred(x, [sample(ROOM)])
    own, two = {"method": "fast"}, {"method": "adain"}
    sheet(
        "options",
        [
            [
                ("optimize", painted),
                ("--keep-colors luma", keep_colors(painted, resize_picture(x, SIZE), "luma")),
                ("fast (hubble)", transferred(x, [], ["hubble"], **own)),
                ("--keep-colors coral", transferred(x, [], ["hubble"], keep_colors="coral", **own)),
            ],
            [
                ("adain, two masks", transferred(x, [s, t], masks=[left, 1 - left], **two)),
                ("adain --style-weights 1,1", transferred(x, [s, t], style_weights=(1.0, 1.0), **two)),
                ("adain --alpha 0.5", transferred(x, [t], alpha=0.5, **two)),
                ("adain --keep-colors coral", transferred(x, [t], keep_colors="coral", **two)),
            ],
        ],
    )


def dreams() -> None:
    """Dreams of pictures by layer and intensity, towards a guide, and of noise by class."""
    network = load_encoder("efficientnet-lite2", frame=False, classifier=True)
    x, cat, cup = (resize_picture(sample(name), SIZE) for name in ("astronaut", "chelsea", "coffee"))
    usual = default_objectives(network)
    guided = GuidedObjective(usual[0].layer, resize_picture(sample("coffee"), 192))
    tabby, flamingo, daisy = (
        default_objectives(network, [parse_class(name)]) for name in ("tabby", "flamingo", "daisy")
    )
    sheet(
        "dreams",
        [
            [
                ("samples:astronaut", x),
                ("--layer blocks_5", dream(x, network, [Objective("blocks_5")])),
                ("--layer blocks_9", dream(x, network, [Objective("blocks_9")])),
                ("--layer blocks_13 (the default)", dream(x, network, usual)),
            ],
            [
                ("samples:chelsea", dream(cat, network, usual)),
                ("--intensity 0.3", dream(cat, network, usual, DreamSettings(intensity=0.3))),
                ("--guide samples:coffee", dream(cat, network, [guided])),
                ("samples:coffee", dream(cup, network, usual)),
            ],
            [
                ('noise --class "tabby"', dream(None, network, tabby, size=SIZE)),
                ('noise --class "flamingo"', dream(None, network, flamingo, size=SIZE)),
                ('noise --class "daisy"', dream(None, network, daisy, size=SIZE)),
                ("noise", dream(None, network, usual, size=SIZE)),
            ],
        ],
    )


def encoder() -> None:
    """The default encoder beside the same network with random weights."""
    torch.manual_seed(0)
    trained, random = load_encoder("embedded"), random_network(held_out_sources(), np.random.default_rng(0))
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


def augmentations() -> None:
    """Each transform of the augmentation pipe alone, the usual pipe, and DiffAugment, at 128 px."""
    x = resize_picture(sample("chelsea"), 128)[None] * 2 - 1

    def seen(augment: torch.nn.Module, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return augment(x)[0] / 2 + 0.5

    # seeds that draw what is well seen
    cells = [(name, seen(AugmentPipe(**{name: 1.0}), AUGMENTED.get(name, 1))) for name in PIPES["bgcfnc"]]
    cells += [(f"bgc {seed}", seen(AugmentPipe.preset("bgc"), seed)) for seed in range(3)]
    cells += [("DiffAugment", seen(DiffAugment(), 3))]
    cells = [("picture", x[0] / 2 + 0.5), *cells]
    sheet("augmentations", [cells[i : i + 5] for i in range(0, len(cells), 5)], SMALL)


SHEETS = {
    "methods": methods, "nnst": nnst, "options": options, "dreams": dreams, "encoder": encoder,
    "presets": presets, "print": large, "optimize-all": optimize_all, "nnst-all": nnst_all,
    "adain-all": adain_all, "fast-all": fast_all, "augmentations": augmentations,
}  # fmt: skip

if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python docs/gallery.py PICTURES [NAME ...]")
    pictures = Path(sys.argv[1])
    for chosen in sys.argv[2:] or SHEETS:
        SHEETS[chosen]()
