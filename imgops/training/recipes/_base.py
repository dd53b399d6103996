"""What the engine asks of a recipe."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from .._draws import Draws, seed_of
from ..config import RunConfig
from ..ema import PowerAverages
from ..processes import Processes


class Moment(NamedTuple):
    """Where a run is when it takes a step.

    Attributes:
        seen: real images shown before the step.
        step: the step's number, from 0.
        images: the numbers, within the step's batch, of the images that this process computes.
        seed: the run's.
    """

    seen: int
    step: int
    images: Sequence[int]
    seed: int

    def draws(self, phase: str, images: Iterable[int], device: torch.device) -> Draws:
        """Random numbers for a phase of the step, each image's own; images are numbers within the batch."""
        return Draws([seed_of(self.seed, self.step, phase, image) for image in images], device)


class Recipe(ABC):
    """Networks and how they are trained. A recipe opens no file, and sees its own share of the batch alone.

    Every process has a recipe; what each computes of a step must be averaged over the processes before it is used
    (:meth:`Processes.average_`).

    Args:
        config: the recipe's settings, resolved.
        labels: int64 [count], the classes of the data; None without.
        class_names: a name for each class; empty without.
        processes: those that train together.

    Attributes:
        networks: by name; each becomes a file of a checkpoint.
        averages: of the network :attr:`result`, for averages of any length afterwards; None: none are kept.
        half_precision: whether layers run in half precision, where gradients overflow now and then; what is not finite
            in them is left out of the step.
        result: the name of the network that a finished run is loaded as.
    """

    result: ClassVar[str]
    networks: dict[str, nn.Module]
    averages: PowerAverages | None = None
    half_precision: bool = False

    @abstractmethod
    def __init__(
        self, config: RunConfig, labels: Tensor | None, class_names: Sequence[str], processes: Processes
    ) -> None: ...

    @classmethod
    @abstractmethod
    def finished(cls, config: RunConfig, c_dim: int) -> nn.Module:
        """The network :attr:`result`, as it is built, for the weights of a checkpoint."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Tensors beside the networks that a run needs to go on, such as those of its optimizers."""

    @abstractmethod
    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` gave; what is missing stays as it is."""

    @abstractmethod
    def state_bytes(self) -> int:
        """About the size of :meth:`state` after the first steps."""

    @abstractmethod
    def step(self, real: Tensor, labels: Tensor, moment: Moment) -> dict[str, Tensor]:
        """Take a step.

        Args:
            real: uint8 [n, C, H, W], this process's share of the batch.
            labels: int64 [n], their classes.
            moment: where the run is.

        Returns:
            What was measured, as scalar tensors.
        """

    @abstractmethod
    def samples(self, seeds: Sequence[int], label: int | None = None) -> Tensor:
        """What the recipe makes of some seeds, and of a class, now: uint8 [len(seeds), C, H, W] on the CPU."""

    def drawn(self, seeds: Sequence[int]) -> Tensor:
        """What is compared with the data: as :meth:`samples`, of classes that are as frequent as in the data."""
        return self.samples(seeds)

    @property
    def tensors(self) -> int:
        """How many tensors the networks have."""
        return sum(len(network.state_dict()) for network in self.networks.values())

    def start_from(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> int:
        """Take over what fits of other networks' weights, by the names of networks and tensors, and by their shapes.

        Returns:
            How many tensors fitted.
        """
        taken = 0
        for name, network in self.networks.items():
            own, others = network.state_dict(), tensors.get(name, {})
            fitting = {key: others[key] for key, t in own.items() if key in others and others[key].shape == t.shape}
            network.load_state_dict({**own, **fitting})
            taken += len(fitting)
        return taken

    @property
    def intervals(self) -> Mapping[str, int]:
        """{what a step does not always do: every how many steps it does, from the first on}, where it takes time."""
        return {}

    def advice(self) -> Mapping[str, str]:
        """{name: text} of what a run says of its settings at its beginning."""
        return {}
