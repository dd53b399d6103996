"""The command line: ``imgops train | generate | style | dream | info | demo``."""

from __future__ import annotations

import sys
from typing import Any

from .._install import missing_package
from .._lazy import lazy_names

__all__ = ["app", "main"]

__getattr__ = lazy_names(__name__, {"app": ".app"})


def main() -> Any:
    """The entry point of the command ``imgops``. A package that is missing is named in one line."""
    try:
        from .app import app
    except ModuleNotFoundError as error:
        print(f"imgops: error: {missing_package(error)}", file=sys.stderr)
        sys.exit(2)
    return app()
