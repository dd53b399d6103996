"""Augmentations that keep a discriminator from learning few pictures by heart."""

from __future__ import annotations

from .adaptive import AdaptiveStrength as AdaptiveStrength
from .diff_augment import DiffAugment as DiffAugment
from .pipe import PIPES as PIPES
from .pipe import AugmentPipe as AugmentPipe
from .pseudo import AdaptivePseudoAugment as AdaptivePseudoAugment
