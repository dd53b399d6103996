"""DeepDream: pictures that excite the layers of a network, from a picture or from noise, as stills or as a zoom.

Names load on first use, so that the command line can list its options without loading torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .layers import Layer as Layer
    from .layers import default_objectives as default_objectives
    from .layers import describe_layers as describe_layers
    from .looks import resolved_settings as resolved_settings
    from .objectives import ClassObjective as ClassObjective
    from .objectives import GuidedObjective as GuidedObjective
    from .objectives import Objective as Objective
    from .objectives import parse_class as parse_class
    from .objectives import parse_objective as parse_objective
    from .octaves import dream as dream
    from .settings import NORMALIZATIONS as NORMALISATIONS
    from .settings import NORMALIZATIONS as NORMALIZATIONS
    from .settings import PARAMETRIZATIONS as PARAMETRISATIONS
    from .settings import PARAMETRIZATIONS as PARAMETRIZATIONS
    from .settings import DreamSettings as DreamSettings
    from .video import dream_frames as dream_frames
    from .zoom import zoom_frames as zoom_frames
    from .zoom import zoom_picture as zoom_picture

_HOMES = {
    "ClassObjective": ".objectives",
    "DreamSettings": ".settings",
    "GuidedObjective": ".objectives",
    "Layer": ".layers",
    "NORMALIZATIONS": ".settings",
    "Objective": ".objectives",
    "PARAMETRIZATIONS": ".settings",
    "default_objectives": ".layers",
    "describe_layers": ".layers",
    "dream": ".octaves",
    "dream_frames": ".video",
    "parse_class": ".objectives",
    "parse_objective": ".objectives",
    "resolved_settings": ".looks",
    "zoom_frames": ".zoom",
    "zoom_picture": ".zoom",
}
_FORMER = {"NORMALISATIONS": "NORMALIZATIONS", "PARAMETRISATIONS": "PARAMETRIZATIONS"}

__all__ = [
    "ClassObjective",
    "DreamSettings",
    "GuidedObjective",
    "Layer",
    "NORMALISATIONS",
    "NORMALIZATIONS",
    "Objective",
    "PARAMETRISATIONS",
    "PARAMETRIZATIONS",
    "default_objectives",
    "describe_layers",
    "dream",
    "dream_frames",
    "parse_class",
    "parse_objective",
    "resolved_settings",
    "zoom_frames",
    "zoom_picture",
]

__getattr__ = lazy_names(__name__, _HOMES, _FORMER)
