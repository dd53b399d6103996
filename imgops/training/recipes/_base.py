"""What the engine asks of a recipe."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from ...metrics import Evaluator
from .._data import RunData
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


class Measurement(NamedTuple):
    """What a run measures its network by.

    Attributes:
        evaluator: of the run's data; the best checkpoint is that of its first figure.
        kimg: it measures every so many thousand images.
        draw: makes a picture of each seed, uint8 [seeds, C, H, W].
    """

    evaluator: Evaluator
    kimg: float
    draw: Callable[[Sequence[int]], Tensor]


class Recipe(ABC):
    """Networks and how they are trained. A recipe sees its own share of the batch alone.

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
        averages_kimg: they are written every so many thousand images.
        measures: whether there is a :meth:`measurement`.
        half_precision: whether layers run in half precision, where gradients overflow now and then; what is not finite
            in them is left out of the step.
        slow_start: whether the first step takes minutes more than others, as one that is compiled does; it says nothing
            of the speed of a run then.
        result: the name of the network that a run is for.
        remedy: what to try when a run diverges.
    """

    result: ClassVar[str]
    remedy: ClassVar[str] = "a lower learning rate"
    networks: dict[str, nn.Module]
    averages: PowerAverages | None = None
    averages_kimg: float | None = None
    measures: bool = False
    half_precision: bool = False
    slow_start: bool = False

    @abstractmethod
    def __init__(
        self, config: RunConfig, labels: Tensor | None, class_names: Sequence[str], processes: Processes
    ) -> None: ...

    @classmethod
    @abstractmethod
    def open_data(cls, config: RunConfig) -> RunData:
        """Open what a run is trained on.

        Raises:
            ValueError, OSError: it cannot be used; named.
        """

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
    def step(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Take a step: ``step(*batch, moment)``.

        Args:
            batch: the tensors of this process's share of the batch, as :meth:`RunData.batches` gives them.
            moment: a :class:`Moment`, where the run is.

        Returns:
            What was measured, as scalar tensors.
        """

    @abstractmethod
    def sheet(self, data: RunData) -> Image.Image | None:
        """What the networks make now, always of the same inputs, as a picture; None where they make no pictures."""

    def measurement(self, data: RunData) -> Measurement | None:
        """What measures how far the network's pictures are from the data, if the settings ask for it.

        Raises:
            ValueError, OSError: its encoder cannot be used.
        """
        return None

    def take(self, data: RunData) -> None:  # noqa: B027
        """Called with the data before the first step, for what a recipe measures on it."""

    @classmethod  # noqa: B027
    def renew(cls, network: nn.Module, class_counts: Sequence[int], config: RunConfig, images: int) -> None:
        """Called with the network :attr:`result` whose parameters were replaced, for buffers that follow from them.

        Args:
            network: is changed.
            class_counts: how many pictures of each class the data has; empty without classes.
            config: the run's settings.
            images: how many images the run had shown when its parameters were these.
        """

    def before_saving(self) -> None:  # noqa: B027
        """Called in the first process before each checkpoint, for networks that follow from others."""

    @classmethod  # noqa: B027
    def check_results(cls, config: RunConfig, resume: bool) -> None:
        """Called in the first process before a run: check that what it writes beside checkpoints can be written.

        Raises:
            ValueError, OSError: it cannot; named.
        """

    @classmethod  # noqa: B027
    def deliver(cls, config: RunConfig, checkpoint: Path) -> None:
        """Called in the first process with each new checkpoint, and with the last one of a run that is finished: write
        what is made of it beside the checkpoints."""

    @property
    def measured_at(self) -> int:
        """The images that a run has shown when its steps take the most, where they do not all take the same."""
        return 0

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
