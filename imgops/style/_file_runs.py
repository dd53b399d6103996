"""Runs of a recipe whose result is one file, with the folder of the run beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from ..training import checkpoint as files
from ..training.loop import train
from ..training.processes import restarted
from ..training.trainer import Trainer
from ._network_recipe import NetworkRecipe
from .training_config import NetworkConfig
from .training_recipes import StyleRecipe

#: called after each step with its number, the number of steps, the losses by name, and, at steps that save, a picture
#: [3, H, W] that the network makes now; a true answer stops the training
OnStep = Callable[[int, int, dict[str, float], Tensor | None], bool | None]
#: {setting: what the trainings of one network call it}
_CALLED = {"resolution": "size"}


def state_path(out: str | Path) -> Path:
    """The folder of the run of a training that writes its network to ``out``."""
    return Path(f"{out}.state")


def run(
    config: NetworkConfig,
    recipe: type[NetworkRecipe] | None = None,
    *,
    resume: bool = False,
    on_step: OnStep | None = None,
    quiet: bool = False,
) -> Tensor | None:
    """Train a network, or train it on, and write it to the file that the settings name.

    Args:
        config: the settings; of a run that is continued those that may change count, and the others must be the same.
        recipe: with what Python gives in place of files; None: the files of the settings.
        resume: go on from the run's newest checkpoint, as is done where torchrun starts the processes again.
        on_step: see :data:`OnStep`.
        quiet: print nothing.

    Returns:
        The picture of the last step, where there was one.

    Raises:
        ValueError, OSError, FloatingPointError: what :func:`imgops.training.train` raises.
    """
    state, network = Path(config.out), Path(config.network or "")
    if network.suffix != ".safetensors":
        raise ValueError(f"out must end in .safetensors; got {network}")
    if state.is_file():
        raise ValueError(f"{state}: is of an earlier version of imgops, which cannot be continued; remove it")
    there = files.checkpoints(state)
    resume = resume or (restarted() and bool(there))
    if resume and not there:
        raise ValueError(f"{state}: there is no training to resume")
    if not resume and (network.exists() or there):
        raise ValueError(f"{network}: a training is there; resume it, or give another name")
    if resume:
        config = _continued(there[-1], config, recipe)
    picture: Tensor | None = None

    def told(trainer: Trainer, measured: dict[str, Tensor]) -> bool | None:
        nonlocal picture
        if isinstance(trainer.recipe, StyleRecipe):
            picture = trainer.recipe.picture
        if on_step is None:
            return None
        losses = {name.removeprefix("loss_"): float(value) for name, value in measured.items()}
        trainer.check_measured(losses)
        saving = trainer.seen >= config.total or trainer.seen % round(1000 * config.checkpoint_kimg) == 0
        return on_step(trainer.steps, config.total // config.batch, losses, picture if saving else None)

    train(config, resume=resume, quiet=quiet, on_step=told, recipe=recipe)
    return picture


def _continued(newest: Path, config: NetworkConfig, recipe: type[NetworkRecipe] | None) -> NetworkConfig:
    """The settings of a run, with those that may change.

    Raises:
        ValueError: another one differs, or, of a run that is finished, what it was trained for.
    """
    meta = files.read_meta(newest)
    begun: NetworkConfig = meta["config"]
    if begun.recipe != config.recipe:
        raise ValueError(f"{newest.parent}: is of a run of the recipe {begun.recipe}, not of {config.recipe}")
    for name, called in _CALLED.items():
        then, now = getattr(begun, name), getattr(config, name)
        if then != now:
            raise ValueError(f"{called} cannot change when a run is continued; it is {then}, got {now}")
    config = begun.changed({field.name: getattr(config, field.name) for field in dataclasses.fields(config)})
    if meta["seen"] >= config.total:
        # nothing will be trained, so that nothing else compares it
        Trainer(config.resolve(), recipe=recipe).load(newest)
    return config
