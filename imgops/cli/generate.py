"""``imgops generate``: pictures from a checkpoint."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from .._settings import SEED, Bounds
from ..training._data import check_apart
from ..training.checkpoint import load_generator
from ..training.grid import image_grid, png_bytes, seeded_samples, to_pil
from ._pictures import choose_device

#: images in a row of the grid where there is no class to make rows of
COLUMNS = 8
#: how many seeds one call takes; its pictures are held in memory for the grid
MOST_SEEDS = 100_000
TRUNCATION, BATCH = Bounds(0, most=1000), Bounds(1, most=65536)


def parse_seeds(text: str) -> list[int]:
    """``"0-3,7"`` to [0, 1, 2, 3, 7].

    Raises:
        ValueError: the text is not a list of numbers and ranges, or they are too large or too many.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise ValueError(f"--seeds takes numbers and ranges like 0-15 or 3,7,20-29; got {text!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        SEED.check("--seeds", last)
        if len(seeds) + last - first >= MOST_SEEDS:
            raise ValueError(f"--seeds takes at most {MOST_SEEDS:,} at once; got {text!r}")
        seeds.extend(range(first, last + 1))
    return seeds


def parse_class(text: str | None, names: list[str], c_dim: int) -> list[int]:
    """The classes to show: the one that ``text`` names or numbers, or all of them; [] for a network without.

    Raises:
        ValueError: there is no such class.
    """
    if text is None:
        return list(range(c_dim))
    if c_dim == 0:
        raise ValueError("--class: this network was trained without classes")
    if text in names:
        return [names.index(text)]
    if text.isdecimal() and int(text) < c_dim:
        return [int(text)]
    raise ValueError(f"--class must be 0 to {c_dim - 1} or one of {', '.join(names)}; got {text!r}")


def generate(
    checkpoint: str,
    seeds: str = "0-15",
    trunc: float = 1.0,
    class_: str | None = None,
    out: str = "generated",
    noise: str = "random",
    batch: int = 16,
    device: str = "auto",
) -> str:
    """Write a PNG for each class and seed, and grid.png with a class a row; return a line that says where.

    A seed gives the same latent for every class, on every device, and with random noise the same noise.

    Raises:
        ValueError: a checkpoint that cannot be used, or an option out of range.
    """
    numbers = parse_seeds(seeds)
    TRUNCATION.check("--trunc", trunc)
    BATCH.check("--batch", batch)
    generator, meta = load_generator(checkpoint, choose_device(device))
    names = meta["class_names"]
    classes = parse_class(class_, names, meta["c_dim"])
    check_apart(out, meta["config"].data, sheets=True)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    shown: list[int | None] = [*classes] or [None]
    images = []
    for k in shown:
        made = seeded_samples(generator, numbers, k, trunc, noise, batch)
        for image, seed in zip(made, numbers, strict=True):
            prefix = "" if k is None else f"{names[k]}-"
            (folder / f"{prefix}seed{seed:04d}.png").write_bytes(png_bytes(to_pil(image)))
        images.append(made)
    many = torch.cat(images)
    if len(classes) > 1:
        grid = image_grid(many, len(numbers), [names[k] for k in classes])
    else:
        columns = min(COLUMNS, len(many))
        # the last row is filled up with white
        many = torch.cat([many, many.new_full([-len(many) % columns, *many.shape[1:]], 255)])
        grid = image_grid(many, columns)
    (folder / "grid.png").write_bytes(png_bytes(grid))
    return f"{len(shown) * len(numbers)} pictures and grid.png in {folder}"
