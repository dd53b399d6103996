"""A run's recipe, and how far it has come: one step, what is not finite, and checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from . import checkpoint as files
from ._draws import seed_of
from .config import RunConfig
from .processes import Processes
from .recipes import recipe_class
from .recipes._base import Moment, Recipe


class DivergenceError(RuntimeError, FloatingPointError):
    """A loss or a weight is no longer a finite number."""


class Trainer:
    """The networks of a recipe, trained step by step.

    Args:
        config: resolved settings.
        labels: int64 [count], the classes of the dataset, from which those of the fakes are drawn; None trains without.
        class_names: a name for each class; empty without classes.
        processes: those that train together; None: this one alone.
        recipe: its class; None: the one that the settings are of.

    Attributes:
        recipe: whose settings the configuration is of. Its networks are attributes too, by their names: of StyleGAN2
            ``G``, ``D`` and ``G_ema``, which is in eval mode.
        seen: real images shown so far, by all processes.
        steps: steps done so far.
        class_counts: how many pictures of each class there are; empty without classes.
        seconds: how long the steps took, without interruptions; set by the caller.
        data: what checkpoints record of the data; set by the caller.
    """

    def __init__(
        self,
        config: RunConfig,
        labels: Tensor | None = None,
        class_names: Sequence[str] = (),
        processes: Processes | None = None,
        recipe: type[Recipe] | None = None,
    ) -> None:
        self.config, self.class_names = config, list(class_names)
        self.processes = processes or Processes()
        self.device = torch.device(config.device)
        self.c_dim = 0 if labels is None else int(labels.max()) + 1
        self.class_counts = [] if labels is None else torch.bincount(labels).tolist()
        torch.manual_seed(config.seed)
        self.recipe = (recipe or recipe_class(config.recipe))(config, labels, class_names, self.processes)
        self.seen = self.steps = 0
        self.seconds = 0.0
        self.data: dict[str, Any] | None = None

    def __getattr__(self, name: str) -> Any:
        networks = self.recipe.networks if name != "recipe" else {}
        if name in networks:
            return networks[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name}; its networks are {', '.join(networks)}")

    @property
    def images(self) -> range:
        """The numbers, within a step's batch, of the images that this process computes."""
        return range(self.processes.rank, self.config.batch, self.processes.count)

    def step(self, *batch: Tensor) -> dict[str, Tensor]:
        """Show a batch.

        Args:
            batch: as the recipe's data gives it; of several processes, each gives the images of its :attr:`images`. Of
                StyleGAN2 the pictures, uint8 [batch, C, H, W], and their classes, int64 [batch], which are ignored
                where there are none.

        Returns:
            What the recipe measured, as scalar tensors; of this process alone.
        """
        # what draws from torch's own generator does not depend on the steps before either
        torch.manual_seed(seed_of(self.config.seed, self.steps, self.processes.rank))
        moment = Moment(self.seen, self.steps, self.images, self.config.seed)
        measured = self.recipe.step(*batch, moment)
        self.seen += self.config.batch
        self.steps += 1
        return measured

    def checkpoint_bytes(self) -> int:
        """Size of a checkpoint on disk, to within a percent."""
        tensors = [t for network in self.recipe.networks.values() for t in network.state_dict().values()]
        return sum(t.nbytes for t in tensors) + self.recipe.state_bytes()

    def check_finite(self, measured: dict[str, float]) -> None:
        """Raise DivergenceError where a measured value or a weight is NaN or infinite."""
        self.check_measured(measured)
        weights = {f"{k}.{name}": p for k, m in self.recipe.networks.items() for name, p in m.named_parameters()}
        # one copy from the device for all of them: each copy waits for it
        finite = torch.stack([p.isfinite().all() for p in weights.values()]).tolist()
        for name, good in zip(weights, finite, strict=True):
            if not good:
                raise DivergenceError(f"{name} is no longer finite after {self.seen} images; {self.recipe.remedy}")

    def check_measured(self, measured: dict[str, float]) -> None:
        """Raise DivergenceError where a measured value is NaN or infinite."""
        for name, value in measured.items():
            if not -float("inf") < value < float("inf"):
                raise DivergenceError(f"{name} became {value} after {self.seen} images; {self.recipe.remedy}")

    def save(self, out: Path) -> Path:
        """Write a checkpoint into the run's folder, whole or not at all, and return its place.

        Raises:
            DivergenceError: a weight is not finite; nothing is written.
        """
        if (place := files.checkpoint_path(out, self.seen)).exists():
            return place
        self.recipe.before_saving()
        self.check_finite({})
        tensors = {name: network.state_dict() for name, network in self.recipe.networks.items()}
        meta = {
            "imgops": __version__,
            "steps": self.steps,
            "seconds": self.seconds,
            "c_dim": self.c_dim,
            "class_names": self.class_names,
            "class_counts": self.class_counts,
            "data": self.data,
            "config": self.config.as_json(),
        }
        checkpoint = files.save(out, self.seen, {**tensors, "state": self.recipe.state()}, meta, self.config.keep)
        self.recipe.deliver(self.config, checkpoint)
        return checkpoint

    def load(self, checkpoint: Path) -> None:
        """Continue from a checkpoint as if the run had never stopped.

        Raises:
            CheckpointError: it is missing or damaged, or does not fit this run.
        """
        meta = files.read_meta(checkpoint)
        if meta["c_dim"] != self.c_dim:
            raise files.CheckpointError(
                f"{checkpoint}: was trained on {meta['c_dim']} classes; the data now has {self.c_dim}"
            )
        for name, network in self.recipe.networks.items():
            files.load_into(network, checkpoint, name)
        state = files.read_tensors(checkpoint, "state")
        try:
            self.recipe.load_state(state)
        except (KeyError, ValueError, IndexError, RuntimeError) as error:
            raise files.CheckpointError(f"{checkpoint}/state.safetensors: does not fit this run ({error})") from None
        self.seen, self.steps = meta["seen"], meta["steps"]
        # older checkpoints lack these
        self.seconds, self.data = meta.get("seconds", 0.0), meta.get("data")
