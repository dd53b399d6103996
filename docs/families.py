"""The pictures and figures of docs/families.md: what each family learned in a few minutes, made of the runs' folders.

``python docs/families.py RUN ...`` after the runs were trained as docs/families.md says. Writes a sheet for each to
docs/gallery, and prints how far the network was from the data when it began, and is now.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from imgops.data import open_dataset
from imgops.metrics import Evaluator, equivariance
from imgops.metrics.motion import KINDS
from imgops.training import Trainer, load_generator
from imgops.training.grid import image_grid, seeded_classes, seeded_samples

FOLDER = Path(__file__).parent / "gallery"
#: samples that are compared, pictures of the data at most, and samples that are made at once
SAMPLES, REALS, BATCH = 2000, 4000, 50
#: of a sheet: samples in a row, rows of each part, pixels of a line of text, and of a small picture at least
COLUMNS, ROWS, LINE, SIDE = 16, 2, 22, 56
#: pictures that are moved, and the side that they must be above
MOVED, SHIFTED = 400, 32


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

    @torch.no_grad()
    def reproduction(self) -> float:
        """Of an autoencoder: the peak signal-to-noise ratio in dB of pictures that it was not shown."""
        config = self.config
        unseen = open_dataset(config.data, config.resolution, config.channels, seed=config.seed + 1)
        images = torch.stack([torch.as_tensor(unseen[i][0]) for i in range(SAMPLES)]).float() / 127.5 - 1
        errors = [(self.trained.reconstruct(x) - x).square().mean() for x in images.split(BATCH)]
        return float(10 * torch.log10(4 / torch.stack(errors).mean()))

    def moves(self) -> list[dict[str, float]]:
        """Of a StyleGAN3: how well the untrained and the trained network's pictures move and turn, in dB."""
        return [
            {kind: equivariance(of, kind, samples=MOVED) for kind in KINDS} for of in (self.untrained, self.trained)
        ]

    def sheet(self) -> Image.Image:
        """Samples of the same seeds, untrained and trained, above pictures of the data."""
        seeds = list(range(COLUMNS * ROWS))
        chosen = random.Random(0).sample(range(self.dataset.count), len(seeds))
        data = torch.stack([torch.as_tensor(self.dataset[i][0]) for i in chosen])
        parts = {
            "untrained": self.samples(self.untrained, seeds[:COLUMNS]),
            f"after {self.seen:,} pictures in {self.minutes:.0f} minutes": self.samples(self.trained, seeds),
            "pictures of the data": data,
        }
        zoom = -(-SIDE // data.shape[3])
        grids = {text: image_grid(images, COLUMNS, zoom=zoom) for text, images in parts.items()}
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
        if hasattr(run.trained, "reconstruct") and run.config.data.startswith("samples:"):
            print(f"{recipe}: reproductions of crops that were not shown {run.reproduction():.1f} dB")
        if recipe.startswith("stylegan3") and run.config.resolution > SHIFTED:
            for when, found in zip(("untrained", "trained"), run.moves(), strict=True):
                print(f"{recipe}, {when}: " + ", ".join(f"{kind} {value:.1f} dB" for kind, value in found.items()))
        ratios = ", ".join(f"{before[figure] / after[figure]:.1f}" for figure in before)
        print(
            f"{recipe}: {run.seen:,} pictures, {run.minutes:.1f} minutes; {'; '.join(told)} ({ratios} times)",
            flush=True,
        )
