"""Distances between a dataset and generated pictures, in one process or many."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import ImageDataset
from ..nn._checks import check_size
from ._cache import cache_file, cache_folder, read_cached, write_cached
from ._summary import DISTANCES, PROJECTIONS, SEED, Summary
from .features import FeatureExtractor
from .names import check_metrics

#: called with what is worked on, how much of it is done, and how much there is
Progress = Callable[[str, int, int], Any]


class Evaluator:
    """The distances of generated pictures from those of a dataset, in the features of an encoder.

    The figures are "fd_NAME", the Fréchet distance, and "swd_NAME", the sliced Wasserstein distance, NAME that of the
    encoder: figures of different encoders, sizes or numbers of samples do not compare. The dataset's pictures are taken
    before mirroring. Its features are computed once, at the first evaluation, and cached by the content of its files.

    Under torch.distributed every process of the default group makes its share of the features, and gets the figures of
    all; each has to make the same calls. They equal those of one process to rounding.

    Args:
        dataset: what the pictures should look like.
        metrics: one or several of "fd" and "swd". Default both.
        weights, size, device, batch: see :class:`FeatureExtractor`.
        samples: how many pictures are generated for an evaluation. Default 10,000.
        reals: how many pictures of the dataset are taken at most, evenly spread; None: all.
        seed: the first of the seeds that are generated from. Default 0.
        cache: the folder where statistics of the data are kept; None: ``IMGOPS_CACHE_DIR``, else ``imgops`` in
            ``XDG_CACHE_HOME`` or ``~/.cache``; False: nowhere.
        progress: called with what is worked on ("data" or "samples"), how much of it this process has done, and its
            share. Default None.
        group: a process group on the CPU, of all processes, over which they wait while the first one looks through the
            files of the data, which may take longer than exchanges of GPUs wait. Default None, the default group.

    Attributes:
        extractor: the :class:`FeatureExtractor`.
        figures: names of the figures, in the order of ``metrics``.

    Raises:
        TypeError, ValueError: an argument of another type or out of range; what FeatureExtractor raises.

    Warns:
        UserWarning: the dataset or the samples are fewer than the features, so that "fd" is biased upwards.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        metrics: Sequence[str] = ("fd", "swd"),
        *,
        weights: str | Path | None = None,
        size: int | None = None,
        samples: int = 10_000,
        reals: int | None = None,
        device: str = "auto",
        batch: int = 32,
        seed: int = 0,
        cache: str | os.PathLike[str] | bool | None = None,
        progress: Progress | None = None,
        group: Any = None,
    ) -> None:
        self.metrics = check_metrics(metrics)
        self.samples = check_size("Evaluator", "samples", samples, 2)
        self.reals = min(dataset.count, dataset.count if reals is None else check_size("Evaluator", "reals", reals, 2))
        self.seed = check_size("Evaluator", "seed", seed, 0, 2**63 - 1 - self.samples)
        if self.reals < 2:
            raise ValueError(f"Evaluator: dataset must have 2 pictures or more; {dataset.name} has {dataset.count}")
        self.dataset, self.progress, self._group = dataset, progress, group
        self._cache = None if cache is False else cache_folder() if cache is None or cache is True else Path(cache)
        self.extractor = FeatureExtractor(weights, size=size, device=device, batch=batch)
        self.figures = tuple(f"{metric}_{self.extractor.name}" for metric in self.metrics)
        # the summary of the dataset, once known: None in the processes that need none, as the first one read it
        self._known = False
        self._real: Summary | None = None
        self._few: set[str] = set()
        self._warn_of_few(self.reals, "pictures of the data")

    def __call__(self, generate: Callable[[Sequence[int]], Tensor]) -> dict[str, float]:
        """The figures of pictures that ``generate`` makes of seeds, at most ``batch`` at once: uint8 [N, C, H, W].

        Raises:
            TypeError, ValueError: it returns something else; a feature that is not finite; the dataset's features are
                all alike.
        """
        seeds = range(self.seed, self.seed + self.samples)
        self._warn_of_few(self.samples, "samples")

        def generated() -> Iterator[Tensor]:
            for part in _batches(_share(seeds), self.extractor.batch):
                pictures = generate(list(part))
                if len(pictures) != len(part):
                    raise ValueError(f"generate must return a picture per seed; got {len(pictures)} for {len(part)}")
                yield pictures

        return self._compared("samples", len(_share(seeds)), generated())

    def compare(self, dataset: ImageDataset, samples: int | None = None) -> dict[str, float]:
        """The figures of the pictures of another dataset, at most ``samples`` of them, evenly spread; None: all.

        Raises:
            ValueError: there are fewer than 2; a feature that is not finite; the dataset's features are all alike.
        """
        if dataset.count < 2:
            raise ValueError(f"Evaluator: dataset must have 2 pictures or more; {dataset.name} has {dataset.count}")
        count = dataset.count if samples is None else check_size("Evaluator", "samples", samples, 2)
        indices = _share(_spread(dataset.count, count))
        self._warn_of_few(min(count, dataset.count), "samples")
        return self._compared("samples", len(indices), _pictures(dataset, indices, self.extractor.batch))

    def _warn_of_few(self, count: int, of: str) -> None:
        """Warn, once, where "fd" is of fewer pictures than features."""
        features, told = self.extractor.features, of in self._few
        if "fd" in self.metrics and count < features and not told and _rank() == 0:
            self._few.add(of)
            warnings.warn(
                f"fd_{self.extractor.name} of {count:,} {of} in {features:,} features is biased upwards: take more, or "
                f"compare only figures of as many",
                stacklevel=3,
            )

    def _compared(self, what: str, count: int, pictures: Iterable[Tensor]) -> dict[str, float]:
        real = self._reference()
        fake = self._summary(what, count, pictures)
        found = [0.0] * len(self.metrics)
        if _rank() == 0:
            assert real is not None
            found = [DISTANCES[metric](real, fake) for metric in self.metrics]
        return dict(zip(self.figures, self._of_first(found), strict=True))

    def _of_first(self, values: list[float]) -> list[float]:
        """The first process's values, in all of them."""
        if _world() == 1:
            return values
        device = self.extractor.device if self._group is None else "cpu"
        shared = torch.tensor(values, dtype=torch.float64, device=device)
        torch.distributed.broadcast(shared, 0, group=self._group)
        return shared.tolist()  # type: ignore[no-any-return]

    def _reference(self) -> Summary | None:
        """The summary of the dataset; only the first process has it where it comes from the cache."""
        if self._known:
            return self._real
        found, path = None, None
        if _rank() == 0 and self._cache is not None:
            key = self.dataset.content_hash(), self.extractor.fingerprint(), self.reals, PROJECTIONS, SEED
            path = cache_file(self._cache, *key)
            found = self._loaded(path)
        # the others may not see this process's cache
        (known,) = self._of_first([float(found is not None)])
        if not known:
            indices = _share(_spread(self.dataset.count, self.reals))
            pictures = _pictures(self.dataset, indices, self.extractor.batch)
            found = self._summary("data", len(indices), pictures)
            if not bool(found.statistics.scatter.any()):
                raise ValueError(
                    f"{self.dataset.name}: all its pictures have the same features of {self.extractor.name}; where the "
                    f"pictures differ, a larger size helps"
                )
            if path is not None:
                write_cached(path, found.state_dict())
        self._known, self._real = True, found
        return found

    def _loaded(self, path: Path) -> Summary | None:
        tensors = read_cached(path)
        if tensors is None:
            return None
        summary = Summary(self.extractor.features, self.extractor.device)
        try:
            summary.load_state_dict(tensors)
        except ValueError:
            return None
        return summary

    def _summary(self, what: str, count: int, pictures: Iterable[Tensor]) -> Summary:
        """The summary of all processes' pictures, of which this one has ``count``."""
        summary = Summary(self.extractor.features, self.extractor.device)
        for batch in pictures:
            summary.update(self.extractor(batch))
            if self.progress is not None:
                self.progress(what, summary.count, count)
        summary.all_reduce()
        return summary


def _pictures(dataset: ImageDataset, indices: Sequence[int], batch: int) -> Iterator[Tensor]:
    """The dataset's pictures in batches, uint8 [N, C, R, R]; threads read the next one."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        coming = None
        for part in _batches(indices, batch):
            ready, coming = coming, pool.map(dataset.picture, part)
            if ready is not None:
                yield torch.stack(list(ready))
        if coming is not None:
            yield torch.stack(list(coming))


def _batches(values: Sequence[int], batch: int) -> list[Sequence[int]]:
    return [values[i : i + batch] for i in range(0, len(values), batch)]


def _spread(count: int, most: int) -> list[int]:
    """At most so many of the indices below a count, at even distances."""
    taken = min(count, most)
    return [i * count // taken for i in range(taken)]


def _share(values: Sequence[int]) -> Sequence[int]:
    """This process's part of values."""
    return values[_rank() :: _world()]


def _rank() -> int:
    return torch.distributed.get_rank() if _distributed() else 0


def _world() -> int:
    return torch.distributed.get_world_size() if _distributed() else 1


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
