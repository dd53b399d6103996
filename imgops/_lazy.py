"""Public names of a package that load on first use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str], former: Mapping[str, str] | None = None) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package whose names are in its modules, ``{name: ".module"}``; ``former`` has former
    ones, ``{former name: name}``."""
    present = former or {}

    def load(name: str) -> Any:
        found = present.get(name, name)
        if found not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes[found], package), found)
        # the next access finds it in the module
        setattr(sys.modules[package], name, value)
        return value

    return load
