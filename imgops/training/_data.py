"""The data of a run: it is opened, kept apart from what the run writes, and recorded, so that changes are noticed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from ..data import EndlessSampler, ImageDataset, ImageFolder, PictureFiles, SampleSet, open_dataset
from ..data.apart import leading_to, within
from ..data.files import write_file
from .config import GeneratorConfig
from .grid import COLUMNS, ROWS, grid_classes, image_grid
from .processes import Processes

#: seconds that reading processes go on after a termination signal
_OUTLIVE = 5
#: number of names that a message lists
_SHOWN = 3


class RunData(ABC):
    """What a run is trained on, as the engine asks for it.

    Attributes:
        labels: int64 [count], the class of each picture; None without classes.
        class_names: a name for each class; empty without.
        checked: how many pictures :meth:`check` decodes.
    """

    labels: Tensor | None = None
    class_names: Sequence[str] = ()
    checked: int = 0

    @abstractmethod
    def describe(self) -> str:
        """The data in one line."""

    @abstractmethod
    def record(self) -> DataRecord:
        """What identifies the data, so that changes are noticed."""

    def check(self, each: Callable[[], None]) -> None:  # noqa: B027
        """Decode every picture once, so that none fails hours later; ``each`` is called after each."""

    @abstractmethod
    def batches(self, start: int, processes: Processes) -> Iterator[tuple[Tensor, ...]]:
        """This process's share of each batch without end: of the images from number ``start`` on every n-th one, from
        that of the process's number on."""

    @abstractmethod
    def imagined(self, count: int) -> tuple[Tensor, ...]:
        """Random numbers in the place of such a share of ``count`` images."""

    @abstractmethod
    def sheet(self) -> Image.Image:
        """Some of the data as a picture, laid out as the sheets of samples are."""


class Pictures(RunData):
    """A dataset of pictures of one size, with their classes: batches of uint8 [n, C, H, W] and int64 [n].

    Args:
        config: of the run.
        dataset: opened.
    """

    def __init__(self, config: GeneratorConfig, dataset: ImageDataset) -> None:
        self.config, self.dataset = config, dataset
        self.labels, self.class_names = dataset.labels, dataset.class_names
        self.checked = dataset.count if isinstance(dataset, PictureFiles) else 0

    def describe(self) -> str:
        """The dataset's description."""
        return self.dataset.describe()

    def record(self) -> DataRecord:
        """The names and classes of the pictures; of a free set, of the source pictures and not of each crop."""
        dataset, classes = self.dataset, list(self.class_names)
        if isinstance(dataset, PictureFiles):
            labels = None if dataset.labels is None else dataset.labels.tolist()
            return DataRecord(dataset.count, list(dataset.names), labels, classes)
        names = [dataset.name]
        if isinstance(dataset, SampleSet):
            names = [f"{dataset.name}/{picture.name}" for picture in dataset.pictures]
        return DataRecord(dataset.count, names, None, classes)

    def check(self, each: Callable[[], None]) -> None:
        """Decode the pictures of files."""
        if isinstance(self.dataset, PictureFiles):
            self.dataset.check(each)

    def batches(self, start: int, processes: Processes) -> Iterator[tuple[Tensor, ...]]:
        """Shuffled anew each epoch; read by other processes where there are workers."""
        config, dataset = self.config, self.dataset
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_size=config.share(processes.count),
            sampler=EndlessSampler(len(dataset), config.seed, start, processes.rank, processes.count),
            num_workers=config.workers,
            pin_memory=torch.device(config.device).type == "cuda",
            worker_init_fn=_leave_signals,
            # the loader has a generator of its own: drawing from torch's would make a resumed run differ
            generator=torch.Generator(),
        )
        return (tuple(batch) for batch in _iterating(loader))

    def imagined(self, count: int) -> tuple[Tensor, ...]:
        """Random pixels, and each class in turn."""
        dataset = self.dataset
        shape = (count, dataset.channels, dataset.height, dataset.width)
        classes = 1 if self.labels is None else int(self.labels.max()) + 1
        return torch.randint(0, 256, shape, dtype=torch.uint8), torch.arange(count) % classes

    def sheet(self) -> Image.Image:
        """The first pictures of each class, one class per row; without classes pictures from all over the set."""
        classes, dataset, number = grid_classes(len(self.class_names)), self.dataset, COLUMNS * ROWS
        rows = [dataset.first_of_class(k, COLUMNS) for k in classes] or [
            torch.stack([dataset.picture(i * dataset.count // number) for i in range(number)])
        ]
        return image_grid(torch.cat(rows), COLUMNS, [self.class_names[k] for k in classes])


def _leave_signals(worker: int) -> None:
    """Reading processes leave Ctrl-C to the one that trains, and outlive a termination signal, which may reach all, by
    the time that it needs to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_OUTLIVE))


def _iterating(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's iterator. torch's handler of the death of a reading process would raise in the midst of a step or of
    a save; without it the next batch tells."""
    here = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD")
    before = signal.getsignal(signal.SIGCHLD) if here else None
    iterator = iter(loader)
    if here:
        signal.signal(signal.SIGCHLD, before)
    return iterator


def open_pictures(config: GeneratorConfig) -> Pictures:
    """Open the pictures of a run.

    Raises:
        ValueError: they and the run's folder lie in one another; what :func:`~imgops.data.open_dataset` raises.
    """
    check_apart(config.out, config.data)
    dataset = open_dataset(
        config.data, config.resolution, config.channels, config.mirror, config.labels, seed=config.seed
    )
    if isinstance(dataset, ImageFolder) and dataset.path.is_dir():
        _check_links(config.out, dataset)
    return Pictures(config, dataset)


def check_apart(out: str | os.PathLike[str], data: str, sheets: bool = False) -> None:
    """Raise ValueError if what is written to ``out`` would become a part of the folder ``data``.

    Args:
        out: the folder of a run, or of the pictures of a generator.
        data: what a run is trained on; a zip or a free set never conflicts.
        sheets: whether ``out`` is only written to; data in a folder inside it is then allowed.
    """
    for name, value in (("out", out), ("data", data)):
        if not os.fspath(value).strip():
            raise ValueError(f"{name} must be a path; got {value!r}")
    if Path(out).exists() and not Path(out).is_dir():
        raise ValueError(f"out must be a folder; {out} is a file")
    if not Path(data).is_dir():
        return
    if within(out, data):
        raise ValueError(
            f"out {out} lies inside the data {data}: what is written there would be trained on; choose another place"
            + ("" if sheets else " (a run can be moved: --resume finds it by its new --out)")
        )
    if not sheets and within(data, out):
        raise ValueError(
            f"data {data} lies inside the run's folder {out}, which the run writes to; choose another --out, or move "
            f"the pictures"
        )


def _check_links(out: str, dataset: ImageFolder) -> None:
    """Raise ValueError if links among the pictures lead into the run's folder, or to a folder that contains it."""
    place = leading_to(out, dataset.path, dataset.names)
    if place is not None:
        raise ValueError(
            f"{place} in the data leads to {os.path.realpath(place)}, so that what the run writes to {out} would "
            f"be trained on; choose another --out, or remove the link"
        )


class DataRecord(NamedTuple):
    """What identifies a set of pictures: how many there are, their names and classes (but not their pixels)."""

    size: int
    names: list[str]
    labels: list[int] | None
    classes: list[str]

    @property
    def digest(self) -> str:
        """SHA-256 of everything in it."""
        # JSON in ASCII, so that names of any bytes can be encoded
        return hashlib.sha256(json.dumps(self).encode()).hexdigest()

    def summary(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"count": self.size, "classes": self.classes, "sha256": self.digest}

    def write(self, out: Path) -> None:
        """Write the names into the run's folder, so that a later difference can be described."""
        path = _path(out, self.digest)
        if not path.exists():
            write_file(path, json.dumps(self._asdict()).encode())

    def changes(self, then: dict[str, Any], out: Path) -> str:
        """Describe what differs from the summary in a checkpoint of the run's folder; empty if nothing does."""
        if then["sha256"] == self.digest:
            return ""
        said = [] if then["count"] == self.size else [f"{then['count']:,} pictures then, {self.size:,} now"]
        try:
            old = DataRecord(**json.loads(_path(out, then["sha256"]).read_text()))
        except (OSError, ValueError, TypeError):
            said.append("which names differ is not known")
        else:
            before, now = old._classes(), self._classes()
            said += _counted("added", now.keys() - before.keys()) + _counted("removed", before.keys() - now.keys())
            said += _counted("of another class", [k for k in now.keys() & before.keys() if now[k] != before[k]])
        if then["classes"] != self.classes:
            said.append(f"classes {_listed(then['classes'])} then, {_listed(self.classes)} now")
        return "; ".join(said)

    def _classes(self) -> dict[str, int | None]:
        labels: Sequence[int | None] = [None] * len(self.names) if self.labels is None else self.labels
        return dict(zip(self.names, labels, strict=True))


def _path(out: Path, digest: str) -> Path:
    return out / f"data-{digest[:12]}.json"


def _counted(what: str, names: Iterable[str]) -> list[str]:
    some = sorted(names)
    return [f"{len(some):,} {what} ({_listed(some)})"] if some else []


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    # names need not be valid text
    return shown.encode("utf-8", "replace").decode() or "none"
