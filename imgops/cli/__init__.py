"""The command line: ``imgops train | generate | info | demo``."""

from __future__ import annotations

from .app import app as app
from .app import main as main

__all__ = ["app", "main"]
