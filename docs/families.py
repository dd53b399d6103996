"""The pictures and figures of docs/families.md: what each family learned in a few minutes, made of the runs' folders.

``python docs/families.py RUN ...`` after the runs were trained as docs/families.md says. Writes a sheet for each to
docs/gallery, and prints how far the network was from the data when it began, and is now.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from imgops.data import open_dataset
from imgops.metrics import Evaluator
from imgops.training import Trainer, load_generator
from imgops.training.grid import image_grid, seeded_classes, seeded_samples

FOLDER = Path(__file__).parent / "gallery"
#: samples that are compared, pictures of the data at most, and samples that are made at once
SAMPLES, REALS, BATCH = 2000, 4000, 50
#: of a sheet: samples in a row, rows of each part, pixels of a line of text, the enlargement
COLUMNS, ROWS, LINE, ZOOM = 16, 2, 22, 2


class Run:
    """A finished run: its data, its network when it began, and as it is now."""

    def __init__(self, folder: Path) -> None:
        self.trained, about = load_generator(folder)
        config: Any = about["config"]
        self.config, self.seen, self.class_names = config, about["seen"], about["class_names"]
        self.dataset = open_dataset(config.data, config.resolution, config.channels, config.mirror, config.labels)
        recipe: Any = Trainer(config, self.dataset.labels, self.dataset.class_names).recipe
        self.untrained = recipe.networks[recipe.result].eval()
        self.minutes = json.loads((folder / "stats.jsonl").read_text().splitlines()[-1])["seconds"] / 60

    def samples(self, network: nn.Module, seeds: Sequence[int]) -> Tensor:
        """Samples of classes that are as frequent as in the data."""
        labels = self.dataset.labels
        classes = None if labels is None else seeded_classes(seeds, int(labels.max()) + 1, labels)
        return seeded_samples(network, seeds, classes, batch=BATCH)

    def distances(self) -> list[dict[str, float]]:
        """The figures of the untrained network and of the trained one."""
        evaluate = Evaluator(self.dataset, samples=SAMPLES, reals=REALS, batch=BATCH)
        return [evaluate(lambda seeds, of=of: self.samples(of, seeds)) for of in (self.untrained, self.trained)]

    def sheet(self) -> Image.Image:
        """Samples of the same seeds, untrained and trained, above pictures of the data."""
        seeds = list(range(COLUMNS * ROWS))
        step = self.dataset.count // len(seeds)
        data = torch.stack([torch.as_tensor(self.dataset[i * step][0]) for i in seeds])
        # of each class as many, where there are some
        parts = {
            "untrained": self.samples(self.untrained, seeds[:COLUMNS]),
            f"after {self.seen:,} pictures in {self.minutes:.0f} minutes": self.samples(self.trained, seeds),
            "pictures of the data": data,
        }
        grids = {text: image_grid(images, COLUMNS, zoom=ZOOM) for text, images in parts.items()}
        size = max(grid.width for grid in grids.values()), sum(LINE + grid.height for grid in grids.values())
        sheet, top = Image.new("RGB", size, "white"), 0
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
        for text, grid in grids.items():
            draw.text((2, top + 2), text, "black", font)
            sheet.paste(grid, (0, top + LINE))
            top += LINE + grid.height
        return sheet


if __name__ == "__main__":
    for name in sys.argv[1:]:
        run = Run(Path(name))
        recipe = run.config.recipe
        run.sheet().save(FOLDER / f"family-{recipe}.png", optimize=True)
        before, after = run.distances()
        told = [f"{figure} {before[figure]:.4g} -> {after[figure]:.4g}" for figure in before]
        ratios = ", ".join(f"{before[figure] / after[figure]:.1f}" for figure in before)
        print(
            f"{recipe}: {run.seen:,} pictures, {run.minutes:.1f} minutes; {'; '.join(told)} ({ratios} times)",
            flush=True,
        )
