"""The pictures of docs/training.md of a training on emoji, with and without augmentation, made of the runs' folders.

``python docs/emoji.py RUN_WITHOUT RUN_WITH``, after both were trained as docs/training.md says. Prints the Fréchet
distances.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image, ImageDraw, ImageFont

FOLDER = Path(__file__).parent / "gallery"
FIGURE = "fd_efficientnet-lite2"
NAMES = ("without augmentation", "with ADA")
#: how many sheets are shown, and how many rows of each; pixels between sheets, and of the text above; the enlargement
MOMENTS, ROWS, GAP, LINE, ZOOM = 5, 2, 12, 24, 2


def records(run: Path) -> list[dict[str, float]]:
    """What a run has recorded."""
    return [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]


def sheets(runs: list[Path]) -> Image.Image:
    """Samples of the same seeds at moments of both runs, the later the lower, and below them pictures of the data."""
    names = sorted(set.intersection(*({p.name for p in (run / "samples").glob("*.png")} for run in runs)))
    # each moment has about twice the images of the one before
    last = int(Path(names[-1]).stem)
    wanted = [last / 2**k for k in reversed(range(MOMENTS))]
    chosen = sorted({min(names, key=lambda name, at=at: abs(int(Path(name).stem) - at)) for at in wanted})
    rows = [[Image.open(run / "samples" / name) for run in runs] for name in chosen]
    real = Image.open(runs[0] / "reals.png")
    width, side = real.width, real.width // 8
    shown = [width, ROWS * side]
    size = (2 * ZOOM * width + GAP, (len(rows) + 1) * (LINE + ZOOM * shown[1]) + LINE)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for i, name in enumerate(NAMES):
        draw.text((i * (ZOOM * width + GAP), 2), name, "black", font)
    for k, (row, name) in enumerate(zip([*rows, [real, real]], [*chosen, ""], strict=True)):
        top = LINE + k * (LINE + ZOOM * shown[1])
        draw.text((0, top + 3), f"{int(Path(name).stem):,} images" if name else "pictures of the data", "black", font)
        for i, whole in enumerate(row):
            # of the data two different parts
            start = 0 if name else i * ROWS * side
            part = whole.convert("RGB").crop((0, start, width, start + shown[1]))
            part = part.resize((ZOOM * part.width, ZOOM * part.height), Image.Resampling.NEAREST)
            sheet.paste(part, (i * (ZOOM * width + GAP), top + LINE))
    return sheet


def curves(runs: list[Path], path: Path) -> None:
    """Fréchet distance and the augmentation's probability over the images shown."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for run, name in zip(runs, NAMES, strict=True):
        found = records(run)
        measured = [(r["images"] / 1000, r[FIGURE]) for r in found if FIGURE in r]
        axes[0].plot(*zip(*measured, strict=True), marker=".", label=name)
        if ps := [(r["images"] / 1000, r["augment_p"]) for r in found if "augment_p" in r]:
            axes[1].plot(*zip(*ps, strict=True), color="C1", label=name)
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
    both = [Path(name) for name in sys.argv[1:3]]
    sheets(both).save(FOLDER / "emoji.png", optimize=True)
    curves(both, FOLDER / "emoji-curves.png")
