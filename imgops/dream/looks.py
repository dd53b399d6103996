"""What a dream looks best with, chosen by eye: of each kind of network the layer, sizes, steps and colors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ..models.encoders.efficientnet_lite import EfficientNetLite
from .objectives import AnyObjective, ClassObjective
from .settings import DreamSettings


@dataclass(frozen=True)
class Resolved(DreamSettings):
    """Settings of which only tile and alpha may be None; by default those of a network of an unknown kind."""

    octaves: int = 4
    octave_scale: float = 1.4
    steps: int = 10
    natural_colors: float = 0.0
    padding: int = 0
    random_scale: float = 0.0
    random_rotation: float = 0.0


@dataclass(frozen=True)
class Look:
    """What suits a kind of dream: the settings that differ from :class:`Resolved`'s, and a factor of the step_size."""

    rate: float = 1.0
    settings: dict[str, float] = dataclasses.field(default_factory=dict)


#: of an EfficientNet-Lite
LITE = Look(2.5, {"steps": 20, "natural_colors": 0.8})
#: of a class
CLASS = Look(2.0, {"steps": 40, "natural_colors": 0.8, "padding": 12, "random_scale": 0.15, "random_rotation": 10.0})


def look_of(network: nn.Module, objectives: Sequence[AnyObjective]) -> Look:
    """The look of a dream of a network with these objectives."""
    if any(isinstance(objective, ClassObjective) for objective in objectives):
        return CLASS
    return LITE if isinstance(network, EfficientNetLite) else Look()


def resolved_settings(settings: DreamSettings, network: nn.Module, objectives: Sequence[AnyObjective]) -> Resolved:
    """The settings with the values of the look where they are None.

    >>> resolved_settings(DreamSettings(steps=3), nn.Conv2d(3, 8, 3), []).octaves
    4
    """
    look = look_of(network, objectives)
    given = {name: value for name, value in vars(settings).items() if value is not None}
    chosen = Resolved(**look.settings | given)
    if settings.parametrization == "fourier":
        # its own rate suits every network, and its colors are decorrelated already
        return dataclasses.replace(chosen, natural_colors=settings.natural_colors or 0.0)
    if settings.step_size is None:
        usual = dataclasses.replace(chosen, intensity=1.0).resolved_step_size
        chosen = dataclasses.replace(chosen, step_size=look.rate * usual)
    return chosen
