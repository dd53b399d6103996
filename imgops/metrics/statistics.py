"""Mean and covariance of features that arrive in batches, in one process or many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..nn._checks import check_size


class FeatureStatistics:
    """Mean and covariance of features, updated batch by batch, in float64.

    Sums of deviations from the mean are kept, not of squares, and partial ones are merged as Chan et al. (1982) do: a
    mean that is large beside the deviation costs no digits of the covariance.

    Args:
        features: the number D of features.
        device: where the statistics are. Default "cpu".

    Attributes:
        count: how many samples there were.
        mean: float64 [D].
        scatter: float64 [D, D], the sum of the outer products of the deviations from the mean.

    >>> statistics = FeatureStatistics(2)
    >>> statistics.update(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    >>> statistics.mean.tolist(), statistics.covariance.tolist()
    ([2.0, 4.0], [[2.0, 4.0], [4.0, 8.0]])
    """

    def __init__(self, features: int, device: str | torch.device = "cpu") -> None:
        features = check_size("FeatureStatistics", "features", features)
        self.count = 0
        self.mean = torch.zeros(features, dtype=torch.float64, device=device)
        self.scatter = torch.zeros(features, features, dtype=torch.float64, device=device)

    @property
    def features(self) -> int:
        """The number D of features."""
        return len(self.mean)

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance, float64 [D, D].

        Raises:
            ValueError: there were fewer than 2 samples.
        """
        if self.count < 2:
            raise ValueError(f"FeatureStatistics: a covariance needs 2 samples or more; got {self.count}")
        return self.scatter / (self.count - 1)

    @torch.no_grad()
    def update(self, features: Tensor) -> None:
        """Add samples.

        Args:
            features: [N, D] of any floating-point dtype; N may be 0.

        Raises:
            TypeError: no floating-point tensor.
            ValueError: another D, or values that are not finite.
        """
        if not isinstance(features, Tensor) or not features.is_floating_point():
            kind = features.dtype if isinstance(features, Tensor) else type(features).__name__
            raise TypeError(f"FeatureStatistics: features must be a floating-point tensor; got {kind}")
        if features.ndim != 2 or features.shape[1] != self.features:
            raise ValueError(f"FeatureStatistics: features must be [N, {self.features}]; got {list(features.shape)}")
        if len(features) == 0:
            return
        if not bool(features.isfinite().all()):
            raise ValueError("FeatureStatistics: features has values that are not finite")
        features = features.to(self.mean)
        mean = features.mean(dim=0)
        deviations = features - mean
        # the mean was rounded; what it is off by is a part of no deviation
        deviations -= deviations.mean(dim=0)
        self._add(len(features), mean, deviations.T @ deviations)

    def merge(self, other: FeatureStatistics) -> None:
        """Add the samples of other statistics, which stay as they are.

        Raises:
            ValueError: another D.
        """
        if other.features != self.features:
            raise ValueError(f"FeatureStatistics: other must have {self.features} features; got {other.features}")
        if other.count > 0:
            self._add(other.count, other.mean.to(self.mean), other.scatter.to(self.scatter))

    def _add(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total, difference = self.count + count, mean - self.mean
        self.scatter += scatter
        self.scatter.addr_(difference, difference, alpha=self.count * count / total)
        self.mean += difference * (count / total)
        self.count = total

    def all_reduce(self, group: Any = None) -> None:
        """Make the statistics of each process of a group of torch.distributed those of all processes' samples.

        Every process of the group has to call it. Without an initialized group it does nothing. With NCCL the
        statistics must be on a GPU.

        Args:
            group: a process group; None: the default one.
        """
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        counts = self.mean.new_tensor([self.count])
        torch.distributed.all_reduce(counts, group=group)
        total = int(counts)
        if total == 0:
            return
        mean = self.mean * (self.count / total)
        torch.distributed.all_reduce(mean, group=group)
        # deviations from the own mean become those from the common mean
        difference = self.mean - mean
        scatter = self.scatter.addr(difference, difference, alpha=self.count)
        torch.distributed.all_reduce(scatter, group=group)
        self.count, self.mean, self.scatter = total, mean, scatter

    def state_dict(self) -> dict[str, Tensor]:
        """The count (int64, no dimensions), ``mean`` and ``scatter``: all there is to save."""
        return {"count": torch.tensor(self.count), "mean": self.mean, "scatter": self.scatter}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`state_dict` gave.

        Raises:
            ValueError: a tensor is missing, of another shape, or not finite; names it.
        """
        for name, own in self.state_dict().items():
            value = state.get(name)
            if value is None or value.shape != own.shape or not bool(value.isfinite().all()):
                said = "nothing" if value is None else f"{list(value.shape)}, finite: {bool(value.isfinite().all())}"
                raise ValueError(f"FeatureStatistics: {name} must be {list(own.shape)} and finite; got {said}")
        self.count = int(state["count"])
        # clones, or a later update would change the tensors of the caller
        self.mean, self.scatter = state["mean"].to(self.mean).clone(), state["scatter"].to(self.scatter).clone()
