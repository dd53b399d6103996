"""What the recipes of one network have in common: an optimizer, losses that are summed, and a file of the network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from .._optimizer_state import load_optimizer_tensors, optimizer_tensors
from ..data.files import naming, scrap_of, write_file
from ..nn.convolving import picture_format
from ..training.config import RunConfig
from ..training.processes import Processes
from ..training.recipes._base import Moment, Recipe
from .training_config import NetworkConfig


class NetworkRecipe(Recipe):
    """A network that minimizes the sum of losses.

    Attributes:
        network: that is trained.
        optimizer: of the network.
    """

    result = "network"
    remedy: ClassVar[str] = "try a smaller lr"
    config: NetworkConfig
    network: nn.Module

    def __init__(
        self, config: RunConfig, labels: Tensor | None, class_names: Sequence[str], processes: Processes
    ) -> None:
        assert isinstance(config, NetworkConfig)
        self.config, self.processes = config, processes
        self.device = torch.device(config.device)
        self.prepare()
        # encoders draw random numbers, too: the weights at first are the seed's whatever was built before
        torch.manual_seed(config.seed)
        self.network = self.build().to(self.device)
        self.format = picture_format(self.network, self.device)
        # PyTorch's annotations leave this overload out
        self.network.to(memory_format=self.format)  # type: ignore[call-overload]
        self.networks = self.networks_of(self.network)
        self.optimizer = self.make_optimizer()

    @abstractmethod
    def prepare(self) -> None:
        """Make what the losses need."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Make the network."""

    def networks_of(self, trained: nn.Module) -> dict[str, nn.Module]:
        """The networks of a checkpoint, by name: the one that is trained, and what is made of it."""
        return {self.result: trained}

    @abstractmethod
    def make_optimizer(self) -> torch.optim.Optimizer:
        """Make the optimizer of the network, at its place."""

    @abstractmethod
    def set_rate(self, step: int) -> None:
        """Give the optimizer the learning rate of a step, from 0."""

    @abstractmethod
    def losses(self, crops: Sequence[Tensor], moment: Moment) -> dict[str, Tensor]:
        """The weighted losses of a batch, by name."""

    def state(self) -> dict[str, Tensor]:
        """The optimizer's."""
        return optimizer_tensors(self.optimizer, "optimizer")

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` gave."""
        load_optimizer_tensors(self.optimizer, "optimizer", tensors)

    def state_bytes(self) -> int:
        """The size of two moments of each parameter."""
        return 2 * sum(p.nbytes for p in self.network.parameters())

    def step(self, *args: Tensor | Moment) -> dict[str, Tensor]:
        """A step of the optimizer.

        Returns:
            loss_total, and each loss with its weight, as loss_content.
        """
        *crops, moment = args
        assert isinstance(moment, Moment)
        self.set_rate(moment.step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            parts = self.losses([self.laid_out(x) for x in crops], moment)
        total = torch.stack(list(parts.values())).sum()
        self.optimizer.zero_grad()
        total.backward()
        self.processes.average_([p.grad for p in self.network.parameters() if p.grad is not None])
        self.optimizer.step()
        return {f"loss_{name}": value.detach() for name, value in {"total": total, **parts}.items()}

    def laid_out(self, x: Tensor | Moment) -> Tensor:
        """A batch on the device, as its pictures suit the network."""
        assert isinstance(x, Tensor)
        return x.to(self.device, non_blocking=True).contiguous(memory_format=self.format)

    @classmethod
    def check_results(cls, config: RunConfig, resume: bool) -> None:
        """Make the folder of the network's file, and check that the file can be written and takes no other's place."""
        place = _place(config)
        if place.parent == Path(config.out):
            # the run makes its folder when it begins
            return
        if place.exists() and not resume:
            raise ValueError(f"network must be a new file; {place} is there")
        with naming(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            scrap_of(place).touch()
            scrap_of(place).unlink()

    @classmethod
    def deliver(cls, config: RunConfig, checkpoint: Path) -> None:
        """Write the network's file anew, unless it holds the checkpoint's already."""
        place, trained = _place(config), (checkpoint / f"{cls.result}.safetensors").read_bytes()
        if not place.is_file() or place.read_bytes() != trained:
            write_file(place, trained)


def _place(config: RunConfig) -> Path:
    assert isinstance(config, NetworkConfig)
    return Path(config.out) / "network.safetensors" if config.network is None else Path(config.network)


def image_bytes(pictures: Tensor) -> Tensor:
    """RGB in [0, 1] as uint8."""
    return (pictures.clamp(0, 1) * 255).round().byte()
