"""The work of ``imgops metrics``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from torch import Tensor

from .._device import choose_device
from .._settings import resolution_text
from ..data import DataError, PictureFiles, open_dataset
from ..data.pictures.samples import PREFIX
from ..metrics import Evaluator
from ..metrics.names import parse_metrics
from ..training._progress import Bar
from ..training.checkpoint import CONFIG, checkpoints, find_checkpoint, load_generator
from ..training.grid import seeded_classes, seeded_samples
from ._options import Given
from ._pictures import warn_of_idle
from .metrics import Job

if TYPE_CHECKING:
    from ..models.stylegan2 import Generator

#: side of the pictures of free sets where nothing else tells one
SIDE = 64
#: characters of a line
LINE = 80


def measure(job: Job, given: Given) -> str:
    """The figures as text, or as JSON.

    Raises:
        ValueError: pictures or a checkpoint that cannot be used, or an option out of range.
    """
    metrics = parse_metrics(job.metrics)
    generator, fake = None, None
    if _is_run(job.fake):
        generator, meta = load_generator(job.fake, choose_device(job.device))
        resolution, channels = meta["config"].resolution, meta["config"].channels
        if job.resolution not in (None, resolution):
            raise ValueError(
                f"--resolution is {resolution_text(resolution)} for {job.fake}, which makes such pictures; leave it out"
            )
    else:
        resolution = job.resolution or _side_of(job.fake) or _side_of(job.real) or SIDE
        channels = 3
        fake = open_dataset(job.fake, resolution, channels, use_labels=False)
        warn_of_idle(given, ("seed",), "as no checkpoint makes the pictures")
    count = job.samples if fake is None or "samples" in given else fake.count
    # classes are those of a generator's pictures
    real = open_dataset(job.real, resolution, channels, use_labels=generator is not None and generator.c_dim > 0)
    console = Console(stderr=True)
    with Bar("comparing pictures", console, disable=not console.is_terminal, transient=True) as bar:
        evaluator = Evaluator(
            real,
            metrics,
            weights=job.weights,
            size=job.size,
            samples=job.samples,
            reals=job.reals,
            device=job.device,
            batch=job.batch,
            seed=job.seed,
            cache=None if job.cache else False,
            progress=lambda what, done, total: bar.show(done / total, f"{what}: {done:,} of {total:,}"),
        )
        if generator is not None:
            classes = real.labels if len(real.class_names) == generator.c_dim else None
            figures = evaluator(lambda seeds: _samples(generator, seeds, classes))
        else:
            assert fake is not None
            figures = evaluator.compare(fake, count)
    extractor = evaluator.extractor
    facts: dict[str, Any] = {
        "real": {"source": job.real, "pictures": evaluator.reals},
        "fake": {
            "source": str(find_checkpoint(job.fake)) if fake is None else job.fake,
            "pictures": count if fake is None else min(count, fake.count),
        },
        "encoder": {
            "name": extractor.name,
            "features": extractor.features,
            "size": extractor.side(real.height, real.width),
        },
        "width": real.width,
        "height": real.height,
    }
    return json.dumps({**figures, **facts}, indent=2) if job.json else _table(figures, facts)


def _samples(generator: Generator, seeds: Sequence[int], labels: Tensor | None) -> Tensor:
    """A picture of each seed, its class drawn as often as ``labels`` have it."""
    classes = seeded_classes(seeds, generator.c_dim, labels) if generator.c_dim else None
    return seeded_samples(generator, seeds, classes, batch=len(seeds))


def _is_run(path: str) -> bool:
    """Whether this is a checkpoint or the folder of a run, rather than pictures, beside which files of any name lie."""
    if checkpoints(Path(path)):
        return True
    try:
        table = json.loads((Path(path) / CONFIG).read_bytes())
        return "kimg" in {**table, **table.get("config", {})}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return False


def _side_of(source: str) -> int | None:
    """The largest power of two that the first picture has on both sides; None of a free set."""
    if source.startswith(PREFIX):
        return None
    files = open_dataset(source, 8, use_labels=False)
    assert isinstance(files, PictureFiles)
    side = min(files.original_size(0))
    if side < 8:
        raise DataError(f"{source}/{files.names[0]}: is smaller than 8 pixels")
    return int(2 ** min(12, side.bit_length() - 1))


def _table(figures: dict[str, float], facts: dict[str, Any]) -> str:
    """The figures and what they are of, in lines of at most 80 characters."""
    encoder = facts["encoder"]
    rows = {name: f"{value:.5g}" for name, value in figures.items()}
    rows |= {name: f"{facts[name]['pictures']:,} of {facts[name]['source']}" for name in ("real", "fake")}
    rows["encoder"] = f"{encoder['name']}, {encoder['features']:,} features"
    rows["size"] = f"{facts['width']}x{facts['height']} px, seen at {encoder['size']} px"
    return "\n".join(_lines(rows))


def _lines(rows: dict[str, str]) -> Iterator[str]:
    margin = max(map(len, rows)) + 2
    for name, text in rows.items():
        # the end of a path tells more than its start
        shown = text if margin + len(text) <= LINE else f"…{text[margin + len(text) - LINE + 1 :]}"
        yield f"{name:<{margin}}{shown}"
