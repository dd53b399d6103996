"""Settings by the look of what they make, chosen by eye and shown in docs/pictures.md. Loads no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from .._settings import Choice
from .settings import TransferSettings

#: {look: {setting: value}}: the method that has the look most, and what brings the others nearer to it; those of
#: "painterly" are what its method and the others do by default
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "faithful": {"method": "optimize", "content_weight": 1.0, "content_share": 1.0, "alpha": 0.7},
    "painterly": {"method": "nnst", "content_weight": 0.3, "content_share": 0.75, "alpha": 1.0},
    "bold": {"method": "optimize", "content_weight": 0.05, "content_share": 0.25, "alpha": 1.0},
}


def with_preset(settings: TransferSettings, name: str, given: Collection[str] = ()) -> TransferSettings:
    """The settings with the look of a preset.

    Args:
        settings: of a transfer.
        name: "faithful", "painterly" or "bold".
        given: names of settings that stay as they are, those of ``settings.optimize`` and ``settings.nnst`` among them.

    Raises:
        TypeError: ``given`` is a text.
        ValueError: there is no such preset.

    >>> with_preset(TransferSettings(size=256), "painterly").method
    'nnst'
    >>> with_preset(TransferSettings(method="adain"), "bold", ["method"]).method
    'adain'
    """
    if isinstance(given, str):
        raise TypeError(f"style: given must be names of settings, as a list; got {given!r}")
    Choice(tuple(PRESETS)).check("style: preset", name)
    return _replaced(settings, {key: value for key, value in PRESETS[name].items() if key not in given})


def _replaced(settings: Any, values: Mapping[str, Any]) -> Any:
    """A dataclass with the values of its fields of these names, and of those of the dataclasses within it."""
    changes = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = _replaced(value, values)
        elif field.name in values:
            changes[field.name] = values[field.name]
    return dataclasses.replace(settings, **changes)
