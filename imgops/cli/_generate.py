"""The work of ``imgops generate``."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from .._device import choose_device
from .._settings import SEED
from ..data.files import write_file
from ..data.pictures import read_settings
from ..training._data import check_apart
from ..training.checkpoint import find_checkpoint, load_generator, network_file
from ..training.grid import image_grid, png_bytes, seeded_samples, to_pil
from .generate import Job

#: images per row of the grid of a network without classes, which else are its rows
COLUMNS = 8
GRID = "grid.png"
#: most seeds of one call, whose pictures are held in memory for the grid
MOST_SEEDS = 100_000


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


def generate(job: Job) -> str:
    """Write a PNG for each class and seed, and grid.png with a class per row; return a line that says where.

    A seed gives the same latent for every class, on every device, and with random noise the same noise. The pictures
    tell what made them. Where ``out`` holds those of another checkpoint, truncation or noise, a folder inside is taken.

    Raises:
        ValueError: a checkpoint that cannot be used, or an option out of range.
    """
    checkpoint, out, trunc, noise = job.checkpoint, job.out, job.trunc, job.noise
    numbers = parse_seeds(job.seeds)
    generator, meta = load_generator(checkpoint, choose_device(job.device))
    if noise != "random" and not getattr(getattr(generator, "synthesis", None), "noise_shapes", ()):
        raise ValueError(f"--noise must be random, as this network has no noise; got {noise!r}")
    names = meta["class_names"]
    classes = parse_class(job.class_, names, meta["c_dim"])
    check_apart(out, meta["config"].data, sheets=True)
    origin = _origin(checkpoint, meta["seen"], trunc, noise)
    folder = _folder(Path(out), origin)
    folder.mkdir(parents=True, exist_ok=True)
    shown: list[int | None] = [*classes] or [None]
    files, images = _file_names(names), []
    for k in shown:
        made = seeded_samples(generator, numbers, k, trunc, noise, job.batch)
        for image, seed in zip(made, numbers, strict=True):
            name = f"seed{seed:04d}.png" if k is None else f"{files[k]}-seed{seed:04d}.png"
            about = {**origin, "class": None if k is None else names[k], "seed": seed}
            write_file(folder / name, png_bytes(to_pil(image), about))
        images.append(made)
    many = torch.cat(images)
    if len(classes) > 1:
        grid = image_grid(many, len(numbers), [names[k] for k in classes])
    else:
        columns = min(COLUMNS, len(many))
        # the last row is filled up with white
        many = torch.cat([many, many.new_full([-len(many) % columns, *many.shape[1:]], 255)])
        grid = image_grid(many, columns)
    about = {**origin, "class": [names[k] for k in classes], "seed": numbers}
    write_file(folder / GRID, png_bytes(grid, about))
    why = "" if folder == Path(out) else f" ({out} holds pictures of another checkpoint, truncation or noise)"
    return f"{len(shown) * len(numbers)} pictures and {GRID} in {folder}{why}"


def _origin(checkpoint: str, seen: int, trunc: float, noise: str) -> dict[str, Any]:
    """What all pictures of a folder have in common, as their metadata tell it."""
    place = find_checkpoint(checkpoint)
    # the same place may hold another network later
    digest = hashlib.sha256(network_file(place).read_bytes()).hexdigest()
    about = {"checkpoint": str(place), "sha256": digest, "images": seen}
    return {"imgops": __version__, "command": "generate", **about, "truncation": trunc, "noise": noise}


def _folder(out: Path, origin: Mapping[str, Any]) -> Path:
    """The folder itself, if it has no pictures of another origin; or else a folder inside, named by the origin."""
    inside = f"{Path(origin['checkpoint']).name}-trunc{origin['truncation']:g}-{origin['noise']}"
    numbered = (out / f"{inside}-{i}" for i in itertools.count(2))
    return next(folder for folder in itertools.chain([out, out / inside], numbered) if _fits(folder, origin))


def _fits(folder: Path, origin: Mapping[str, Any]) -> bool:
    """Whether all generated pictures in a folder, told by their names, have this origin."""
    for path in [*folder.glob("*seed*.png"), *folder.glob(GRID)]:
        try:
            told = read_settings(path) or {}
        except (OSError, ValueError):
            told = {}
        if any(told.get(key) != origin[key] for key in ("sha256", "truncation", "noise")):
            return False
    return True


def _file_names(names: Sequence[str]) -> list[str]:
    """Names of files for the classes: without characters that file systems refuse, and all different."""
    plain = [re.sub(r'[\\/:*?"<>|\x00-\x1f\ud800-\udfff]', "_", name).strip(". ") for name in names]
    alike = Counter(name.casefold() for name in plain)
    return [name if name and alike[name.casefold()] == 1 else f"{k}-{name}".strip("-") for k, name in enumerate(plain)]
