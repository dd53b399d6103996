"""The work of ``imgops generate``."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from .. import __version__
from .._device import choose_device
from .._settings import SEED
from ..data.files import write_file
from ..data.pictures import read_settings
from ..training._data import check_apart
from ..training.checkpoint import find_checkpoint, load_generator, network_file
from ..training.grid import Between, image_grid, png_bytes, seeded_samples, to_pil
from .generate import Job

#: images per row of the grid of a network without classes, which else are its rows
COLUMNS = 8
GRID = "grid.png"
#: most pictures of a class in one call, which are held in memory for the grid
MOST = 100_000


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
        if len(seeds) + last - first >= MOST:
            raise ValueError(f"--seeds takes at most {MOST:,} at once; got {text!r}")
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


class _Plan(NamedTuple):
    """A picture to be made: of what, its file's name without the class, what the file tells."""

    sample: int | Between
    name: str
    told: dict[str, Any]


def _plans(seeds: Sequence[int], steps: int) -> list[_Plan]:
    """The pictures of seeds, and so many on the way from each to the next."""
    plans = []
    for seed, following in itertools.zip_longest(seeds, seeds[1:]):
        plans.append(_Plan(seed, f"seed{seed:04d}", {"seed": seed}))
        for k in range(1, steps + 1) if following is not None else ():
            share, digits = k / (steps + 1), len(str(steps + 1))
            name = f"seed{seed:04d}-seed{following:04d}-{k:0{digits}d}of{steps + 1}"
            plans.append(_Plan(Between(seed, following, share), name, {"seed": seed, "to": following, "share": share}))
    return plans


def _check_ways(seeds: Sequence[int], steps: int) -> None:
    """Raise ValueError unless there are ways between seeds, and not too many pictures on them."""
    if len(seeds) < 2:
        raise ValueError(f"--interpolate needs --seeds of two or more; got {seeds[0]}")
    if (count := len(seeds) + (len(seeds) - 1) * steps) > MOST:
        raise ValueError(f"--interpolate makes at most {MOST:,} pictures of a class at once; got {count:,}")


def generate(job: Job) -> str:
    """Write a PNG for each class and seed, and grid.png with a class per row; return a line that says where.

    A seed gives the same latent for every class, on every device, and with random noise the same noise. With
    ``interpolate`` there are pictures on the way from each seed to the next, and grid.png has a row for each way. The
    pictures tell what made them. Where ``out`` holds those of another checkpoint, truncation or noise, a folder inside
    is taken.

    Raises:
        ValueError: a checkpoint that cannot be used, or an option out of range.
    """
    checkpoint, out, trunc, noise, steps = job.checkpoint, job.out, job.trunc, job.noise, job.interpolate or 0
    numbers = parse_seeds(job.seeds)
    if steps:
        _check_ways(numbers, steps)
    generator, meta = load_generator(checkpoint, choose_device(job.device))
    if noise != "random" and not getattr(getattr(generator, "synthesis", None), "noise_shapes", ()):
        raise ValueError(f"--noise must be random, as this network has no noise; got {noise!r}")
    if steps and not generator.smooth:
        raise ValueError(f"--interpolate must not be given, as this network draws codes one by one; got {steps}")
    names = meta["class_names"]
    classes = parse_class(job.class_, names, meta["c_dim"])
    check_apart(out, meta["config"].data, sheets=True)
    origin = _origin(checkpoint, meta["seen"], trunc, noise)
    folder = _folder(Path(out), origin)
    folder.mkdir(parents=True, exist_ok=True)
    shown: list[int | None] = [*classes] or [None]
    files, plans, images = _file_names(names), _plans(numbers, steps), []
    for k in shown:
        made = seeded_samples(generator, [plan.sample for plan in plans], k, trunc, noise, job.batch)
        for image, plan in zip(made, plans, strict=True):
            name = f"{plan.name}.png" if k is None else f"{files[k]}-{plan.name}.png"
            about = {**origin, "class": None if k is None else names[k], **plan.told}
            write_file(folder / name, png_bytes(to_pil(image), about))
        images.append(made)
    shown_names = [names[k] for k in classes]
    grid = _ways_grid(images, numbers, steps, shown_names) if steps else _grid(images, shown_names)
    about = {**origin, "class": shown_names, "seed": numbers, **({"interpolate": steps} if steps else {})}
    write_file(folder / GRID, png_bytes(grid, about))
    why = "" if folder == Path(out) else f" ({out} holds pictures of another checkpoint, truncation or noise)"
    return f"{len(shown) * len(plans)} pictures and {GRID} in {folder}{why}"


def _grid(images: Sequence[Tensor], names: Sequence[str]) -> Image.Image:
    """A row for each class; the pictures of one class, or without, in rows of a fixed length."""
    many = torch.cat(list(images))
    if len(images) > 1:
        return image_grid(many, len(images[0]), names)
    columns = min(COLUMNS, len(many))
    # the last row is filled up with white
    return image_grid(torch.cat([many, many.new_full([-len(many) % columns, *many.shape[1:]], 255)]), columns)


def _ways_grid(images: Sequence[Tensor], seeds: Sequence[int], steps: int, names: Sequence[str]) -> Image.Image:
    """A row for each way from a seed to the next, and class."""
    # each way ends where the next begins
    rows = [made[i : i + steps + 2] for made in images for i in range(0, len(made) - 1, steps + 1)]
    ways = [f"{seed}-{following}" for seed, following in itertools.pairwise(seeds)]
    labels = [f"{name} {way}" for name in names for way in ways] if len(names) > 1 else ways
    return image_grid(torch.cat(rows), steps + 2, labels)


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
