"""The data of training: reading and decoding a batch, against the quickest step that takes it."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from imgops.data import (
    EndlessSampler,
    ImageFolder,
    PrepareSettings,
    prepare_dataset,
    read_picture,
    resize_picture,
    write_picture,
)
from imgops.models.stylegan2 import Discriminator, Generator

from .comparison import Comparison, names, time_side

RESOLUTION, BATCH, PICTURES = 64, 16, 256
#: longer side of photographs that are decoded and resized each time that they are shown
PHOTO = 1024


@functools.cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """Where the pictures lie until the program ends."""
    return tempfile.TemporaryDirectory()


@functools.cache
def prepared() -> Path:
    """A zip as ``imgops data`` makes it."""
    out = Path(folder().name) / "prepared.zip"
    settings = PrepareSettings(resolution=RESOLUTION, limit=PICTURES)
    prepare_dataset("samples:pictures", out, settings)
    return out


@functools.cache
def photographs() -> Path:
    """JPEGs as they come from a camera, but smaller."""
    for name in "astronaut", "chelsea", "coffee", "rocket":
        photo = resize_picture(read_picture(f"samples:{name}").pixels, PHOTO)
        write_picture(Path(folder().name) / "photos" / f"{name}.jpg", photo)
    return Path(folder().name) / "photos"


def step(real: Tensor) -> Tensor:
    """Gradients of both losses for a batch, uint8 [N, 3, H, W], which is returned: no regularizers, no optimizer."""
    generator, discriminator = networks()
    fake = generator(torch.randn(len(real), generator.z_dim))
    F.softplus(-discriminator(fake)).mean().backward()
    F.softplus(discriminator(fake.detach())).mean().backward()
    F.softplus(-discriminator(real.float() / 127.5 - 1)).mean().backward()
    return real


@functools.cache
def networks() -> tuple[Generator, Discriminator]:
    """The small ones that a CPU trains: those of docs/training.md, which no published network is quicker than."""
    small = {"channel_base": 1024, "channel_max": 64, "mapping_layers": 2}
    return Generator(64, 0, 64, RESOLUTION, 3, **small), Discriminator(0, RESOLUTION, 3, **small)


def batch(path: Path) -> Tensor:
    """The first batch of a run whose data is read in the process that trains; nothing is decoded before."""
    dataset = ImageFolder(path, RESOLUTION)
    pictures, _ = next(iter(DataLoader(dataset, BATCH, sampler=EndlessSampler(len(dataset)))))
    return pictures


def comparison(name: str, path: Callable[[], Path]) -> Comparison:
    """A batch by the loader, and the step for a batch that is there."""
    # made when it is asked for, as most who look at a comparison want its name
    first = functools.cache(lambda: batch(path()))
    return Comparison(
        "training data",
        f"{BATCH} of {RESOLUTION} px from {name}, against the step",
        {"imgops": lambda: batch(path()).float(), "eager": lambda: step(first()).float()},
        goal=1.0,
        tolerance=1e-9,
    )


def comparisons() -> list[Comparison]:
    """One comparison for a prepared set, and one for photographs."""
    return [comparison("a prepared zip", prepared), comparison(f"JPEGs of {PHOTO} px", photographs)]


@pytest.mark.parametrize(("problem", "side"), names(comparisons))
def test_data(benchmark, problem, side):
    time_side(benchmark, comparisons, problem, side)
