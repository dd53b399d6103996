"""What is kept of the features of a set of pictures, from which its distance to another set is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .frechet import frechet_distance
from .sliced import project, seeded_directions, squared_distances
from .statistics import FeatureStatistics

#: directions of the sliced Wasserstein distance, and the seed of these
PROJECTIONS, SEED = 256, 0


class Summary:
    """Mean and covariance of a set's features, and each feature vector's positions along random directions.

    Args:
        features: the number of features.
        device: where they are.
    """

    def __init__(self, features: int, device: torch.device) -> None:
        self.statistics = FeatureStatistics(features, device)
        self._directions = seeded_directions(features, PROJECTIONS, SEED).to(device)
        self._parts: list[Tensor] = []

    @property
    def count(self) -> int:
        return self.statistics.count

    @property
    def projections(self) -> Tensor:
        """float32 [count, PROJECTIONS]."""
        if len(self._parts) != 1:
            self._parts = [torch.cat([self._directions.new_zeros(0, PROJECTIONS, dtype=torch.float32), *self._parts])]
        return self._parts[0]

    def update(self, features: Tensor) -> None:
        """Add features [N, D]."""
        self.statistics.update(features)
        self._parts.append(project(features, self._directions).float())

    def all_reduce(self) -> None:
        """Make the summary of each process that of all processes' features, as
        :meth:`FeatureStatistics.all_reduce` does."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        own, world = self.projections, torch.distributed.get_world_size()
        counts = [torch.zeros(1, dtype=torch.int64, device=own.device) for _ in range(world)]
        torch.distributed.all_gather(counts, torch.tensor([len(own)], device=own.device))
        # all processes send as many rows
        most = int(torch.cat(counts).max())
        padded = torch.cat([own, own.new_zeros(most - len(own), PROJECTIONS)])
        gathered = [torch.zeros_like(padded) for _ in range(world)]
        torch.distributed.all_gather(gathered, padded)
        self._parts = [part[: int(count)] for part, count in zip(gathered, counts, strict=True)]
        self.statistics.all_reduce()

    def state_dict(self) -> dict[str, Tensor]:
        """All there is to save."""
        return {**self.statistics.state_dict(), "projections": self.projections}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`state_dict` gave.

        Raises:
            ValueError: a tensor is missing or does not fit.
        """
        self.statistics.load_state_dict(state)
        rows = state.get("projections")
        if rows is None or rows.shape != (self.count, PROJECTIONS) or not bool(rows.isfinite().all()):
            raise ValueError(f"projections must be [{self.count}, {PROJECTIONS}] and finite")
        self._parts = [rows.to(self._directions.device, torch.float32)]


def _frechet(real: Summary, fake: Summary) -> float:
    a, b = real.statistics, fake.statistics
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


def _sliced(real: Summary, fake: Summary) -> float:
    x, y = (summary.projections.double().sort(dim=0).values for summary in (real, fake))
    return math.sqrt(float(squared_distances(x, y).mean()))


#: {metric: the distance between two summaries}
DISTANCES: dict[str, Callable[[Summary, Summary], float]] = {"fd": _frechet, "swd": _sliced}
