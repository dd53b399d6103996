"""Style transfer: by optimization of the picture, to statistics of the styles or to their nearest parts, by a network
of one style, and by one for all styles.

Names load on first use, so that the command line can list its options without loading torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .adain import stylize_adain as stylize_adain
    from .fast import stylize_fast as stylize_fast
    from .nnst import stylize_nnst as stylize_nnst
    from .nnst_settings import NNSTSettings as NNSTSettings
    from .objective import Objective as Objective
    from .optimization import Progress as Progress
    from .optimization import optimize as optimize
    from .presets import with_preset as with_preset
    from .settings import OptimizeSettings as OptimizeSettings
    from .settings import TransferSettings as TransferSettings
    from .training import train_adain as train_adain
    from .training import train_fast as train_fast
    from .training_config import AdaINStyleConfig as AdaINStyleConfig
    from .training_config import FastStyleConfig as FastStyleConfig
    from .training_settings import AdaINTraining as AdaINTraining
    from .training_settings import FastTraining as FastTraining
    from .transfer import Transfer as Transfer
    from .video import stylize_frames as stylize_frames

_HOMES = {
    "AdaINStyleConfig": ".training_config",
    "AdaINTraining": ".training_settings",
    "FastStyleConfig": ".training_config",
    "FastTraining": ".training_settings",
    "NNSTSettings": ".nnst_settings",
    "Objective": ".objective",
    "OptimizeSettings": ".settings",
    "Progress": ".optimization",
    "Transfer": ".transfer",
    "TransferSettings": ".settings",
    "optimize": ".optimization",
    "stylize_adain": ".adain",
    "stylize_fast": ".fast",
    "stylize_frames": ".video",
    "stylize_nnst": ".nnst",
    "train_adain": ".training",
    "train_fast": ".training",
    "with_preset": ".presets",
}

__all__ = [*_HOMES]

__getattr__ = lazy_names(__name__, _HOMES)
