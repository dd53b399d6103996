"""The pictures of docs/training.md of a training on emoji, with and without augmentation, made of the runs' folders.

``python docs/emoji.py RUN_WITHOUT RUN_WITH RUN_ON``, after all were trained as docs/training.md says; the last one
began with the one before it. Prints the Fréchet distances.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image, ImageDraw, ImageFont

FOLDER = Path(__file__).parent / "gallery"
FIGURE = "fd_efficientnet-lite2"
NAMES = ("without augmentation", "with ADA", "with ADA, continued")
#: how many sheets are shown, and how many rows of each; pixels between sheets, and of the text above; the enlargement
MOMENTS, ROWS, GAP, LINE, ZOOM = 5, 2, 12, 24, 2


def records(run: Path) -> list[dict[str, float]]:
    """What a run has recorded."""
    return [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]


def images_of(run: Path) -> int:
    """How many images a run has shown."""
    return int(records(run)[-1]["images"])


def sheets(runs: list[Path], on: Path) -> Image.Image:
    """Samples of the same seeds at moments of both runs, the later the lower, then those of the run that went on, and
    pictures of the data."""
    names = sorted(set.intersection(*({p.name for p in (run / "samples").glob("*.png")} for run in runs)))
    # each moment has about twice the images of the one before
    last = int(Path(names[-1]).stem)
    wanted = [last / 2**k for k in reversed(range(MOMENTS))]
    chosen = sorted({min(names, key=lambda name, at=at: abs(int(Path(name).stem) - at)) for at in wanted})
    rows = [[Image.open(run / "samples" / name) for run in runs] for name in chosen]
    real = Image.open(runs[0] / "reals.png")
    width, side = real.width, real.width // 8
    shown = [width, ROWS * side]
    size = (2 * ZOOM * width + GAP, (len(rows) + 2) * (LINE + ZOOM * shown[1]) + LINE)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for i, name in enumerate(NAMES):
        draw.text((i * (ZOOM * width + GAP), 2), name, "black", font)
    best = min((r for r in records(on) if FIGURE in r), key=lambda r: r[FIGURE])
    last = Image.open(on / "samples" / f"{int(best['images']):010}.png")
    labels = [f"{int(Path(name).stem):,} images" for name in chosen]
    labels += [f"{NAMES[2]}: {images_of(runs[1]) + int(best['images']):,} images", "pictures of the data"]
    for k, (row, label) in enumerate(zip([*rows, [last, last], [real, real]], labels, strict=True)):
        top = LINE + k * (LINE + ZOOM * shown[1])
        draw.text((0, top + 3), label, "black", font)
        for i, whole in enumerate(row):
            # of what is of both columns two different parts
            start = i * ROWS * side if k >= len(rows) else 0
            part = whole.convert("RGB").crop((0, start, width, start + shown[1]))
            part = part.resize((ZOOM * part.width, ZOOM * part.height), Image.Resampling.NEAREST)
            sheet.paste(part, (i * (ZOOM * width + GAP), top + LINE))
    return sheet


def curves(runs: list[Path], path: Path) -> None:
    """Fréchet distance and the augmentation's probability over the images shown; the last run begins where the one
    before it ended."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    begun = [0, 0, images_of(runs[1])]
    for i, (run, name, before) in enumerate(zip(runs, NAMES, begun, strict=True)):
        found = records(run)
        measured = [((before + r["images"]) / 1000, r[FIGURE]) for r in found if FIGURE in r]
        axes[0].plot(*zip(*measured, strict=True), marker=".", label=name)
        if ps := [((before + r["images"]) / 1000, r["augment_p"]) for r in found if "augment_p" in r]:
            axes[1].plot(*zip(*ps, strict=True), color=f"C{i}", label=name)
        best = min(measured, key=lambda pair: pair[1])
        print(
            f"{name}: {FIGURE} {measured[-1][1]:.1f} at {measured[-1][0]:.0f} kimg, best {best[1]:.1f} at {best[0]:.0f}"
        )
    axes[0].set(xlabel="thousands of images shown", ylabel="Fréchet distance (EfficientNet-Lite2)", ylim=(0, None))
    axes[1].set(xlabel="thousands of images shown", ylabel="p of the transforms", ylim=(0, None))
    axes[0].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    *both, on = [Path(name) for name in sys.argv[1:4]]
    sheets(both, on).save(FOLDER / "emoji.png", optimize=True)
    curves([*both, on], FOLDER / "emoji-curves.png")
