"""Lines on how the work went, which ``--quiet`` leaves out."""

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
    """Within it, if so, :func:`say` says nothing, and nothing reaches stderr: bars, warnings, reports of a training."""
    token = _QUIET.set(quiet)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere if quiet else sys.stderr):
            yield
    finally:
        _QUIET.reset(token)


def is_quiet() -> bool:
    """Whether nothing but errors and what was asked for is to be printed."""
    return _QUIET.get()


def say(text: str) -> None:
    """A line for the user, on stdout, as it is."""
    if not is_quiet():
        typer.echo(text)
