"""Training: recipes, and the engine around them: processes, checkpoints that survive a kill, reports.

Names load on first use, so that the command line can list its options without loading torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .augment import AdaptivePseudoAugment as AdaptivePseudoAugment
    from .augment import AdaptiveStrength as AdaptiveStrength
    from .augment import AugmentPipe as AugmentPipe
    from .augment import DiffAugment as DiffAugment
    from .checkpoint import CheckpointError as CheckpointError
    from .checkpoint import find_checkpoint as find_checkpoint
    from .checkpoint import load_generator as load_generator
    from .grid import image_grid as image_grid
    from .loop import train as train
    from .recipes.stylegan2_config import TrainingConfig as TrainingConfig
    from .trainer import DivergenceError as DivergenceError
    from .trainer import Trainer as Trainer

_HOMES = {
    "AdaptivePseudoAugment": ".augment",
    "AdaptiveStrength": ".augment",
    "AugmentPipe": ".augment",
    "CheckpointError": ".checkpoint",
    "DiffAugment": ".augment",
    "DivergenceError": ".trainer",
    "Trainer": ".trainer",
    "TrainingConfig": ".recipes.stylegan2_config",
    "find_checkpoint": ".checkpoint",
    "image_grid": ".grid",
    "load_generator": ".checkpoint",
    "train": ".loop",
}

__all__ = [
    "AdaptivePseudoAugment",
    "AdaptiveStrength",
    "AugmentPipe",
    "CheckpointError",
    "DiffAugment",
    "DivergenceError",
    "Trainer",
    "TrainingConfig",
    "find_checkpoint",
    "image_grid",
    "load_generator",
    "train",
]

__getattr__ = lazy_names(__name__, _HOMES)
