"""What the recipes of generators have in common: pictures of a dataset as data, samples by seeds, distances."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from ...metrics import Evaluator
from ...metrics.names import parse_metrics
from .._data import Pictures, RunData, open_pictures
from ..config import GeneratorConfig, RunConfig
from ..grid import COLUMNS, ROWS, grid_classes, image_grid
from ..processes import Processes
from ._base import Measurement, Recipe

#: what the averages' keys begin with in a run's state
AVERAGES = "averages."


class GeneratorRecipe(Recipe):
    """A recipe whose network makes pictures like those of a dataset from random numbers.

    Attributes:
        config, processes: the settings, and those that train together.
        c_dim: how many classes there are; 0 without.
    """

    config: GeneratorConfig
    processes: Processes
    c_dim: int
    #: the network whose running average :attr:`result` is
    trained: ClassVar[str]
    remedy: ClassVar[str] = (
        "begin a new run with --init and the last checkpoint, a lower learning rate or a higher --r1-gamma"
    )

    @classmethod
    def open_data(cls, config: RunConfig) -> Pictures:
        """Open the pictures."""
        assert isinstance(config, GeneratorConfig)
        return open_pictures(config)

    def start_from(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> int:
        """As of all recipes; an average that comes alone, as imgops ema makes it, is the trained network, too."""
        alone = {self.trained: tensors[self.result]} if self.result in tensors and self.trained not in tensors else {}
        return super().start_from({**tensors, **alone})

    def averages_state(self) -> dict[str, Tensor]:
        """Of the averages that are kept for later."""
        kept = {} if self.averages is None else self.averages.state_dict()
        return {f"{AVERAGES}{key}": value for key, value in kept.items()}

    def load_averages(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`averages_state` gave."""
        if self.averages is not None:
            own = {key.removeprefix(AVERAGES): t for key, t in tensors.items() if key.startswith(AVERAGES)}
            self.averages.load_state_dict(own)

    @classmethod
    @abstractmethod
    def finished(cls, config: RunConfig, c_dim: int) -> nn.Module:
        """The network :attr:`result`, as it is built, for the weights of a checkpoint."""

    @abstractmethod
    def samples(self, seeds: Sequence[int], label: int | None = None) -> Tensor:
        """What the recipe makes of some seeds, and of a class, now: uint8 [len(seeds), C, H, W] on the CPU."""

    def drawn(self, seeds: Sequence[int]) -> Tensor:
        """What is compared with the data: as :meth:`samples`, of classes that are as frequent as in the data."""
        return self.samples(seeds)

    def sheet(self, data: RunData) -> Image.Image:
        """Samples of fixed seeds: one seed per column, one class per row."""
        classes = grid_classes(self.c_dim)
        seeds = list(range(COLUMNS if classes else COLUMNS * ROWS))
        rows = [self.samples(seeds, k) for k in classes] or [self.samples(seeds)]
        return image_grid(torch.cat(rows), COLUMNS, [data.class_names[k] for k in classes])

    @property
    def measures(self) -> bool:  # type: ignore[override]
        """Whether there are --metrics."""
        return self.config.metrics is not None

    def measurement(self, data: RunData) -> Measurement | None:
        """The distances of --metrics."""
        config = self.config
        if config.metrics is None:
            return None
        assert isinstance(data, Pictures)
        evaluator = Evaluator(
            data.dataset,
            parse_metrics(config.metrics),
            weights=config.metrics_weights,
            samples=config.metrics_samples,
            device=config.device,
            group=self.processes.control,
        )
        return Measurement(evaluator, config.metrics_kimg, self.drawn)
