"""The option ``--quiet``, which leaves out lines on how the work went."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar

import typer

_QUIET = ContextVar("quiet", default=False)


@contextlib.contextmanager
def keep_quiet(quiet: bool) -> Iterator[None]:
    """Within it, if ``quiet``, :func:`say` prints nothing, and no bar, warning or report reaches stderr."""
    token = _QUIET.set(quiet)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere if quiet else sys.stderr):
            yield
    finally:
        _QUIET.reset(token)


def is_quiet() -> bool:
    """Whether only errors and what was asked for are printed."""
    return _QUIET.get()


def say(text: str) -> None:
    """Print a line for the user on stdout, unless ``--quiet`` was given."""
    if not is_quiet():
        typer.echo(text)
