"""Distances between sets of pictures in the features of an encoder.

Names load on first use, so that the command line can list its options without loading torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .evaluator import Evaluator as Evaluator
    from .features import FeatureExtractor as FeatureExtractor
    from .frechet import frechet_distance as frechet_distance
    from .motion import equivariance as equivariance
    from .sliced import sliced_wasserstein as sliced_wasserstein
    from .statistics import FeatureStatistics as FeatureStatistics

_HOMES = {
    "Evaluator": ".evaluator",
    "FeatureExtractor": ".features",
    "FeatureStatistics": ".statistics",
    "equivariance": ".motion",
    "frechet_distance": ".frechet",
    "sliced_wasserstein": ".sliced",
}

__all__ = [
    "Evaluator",
    "FeatureExtractor",
    "FeatureStatistics",
    "equivariance",
    "frechet_distance",
    "sliced_wasserstein",
]

__getattr__ = lazy_names(__name__, _HOMES)
