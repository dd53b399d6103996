"""The option ``--quiet``, which leaves out lines on how the work went."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TextIO

import typer

_QUIET = ContextVar("quiet", default=False)
#: what was stderr before ``--quiet`` took its place
_ERRORS = ContextVar[TextIO | None]("errors", default=None)


@contextlib.contextmanager
def keep_quiet(quiet: bool) -> Iterator[None]:
    """Within it, if ``quiet``, :func:`say` prints nothing, and no bar, warning or report reaches stderr."""
    token, errors = _QUIET.set(quiet), _ERRORS.set(sys.stderr)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere if quiet else sys.stderr):
            yield
    finally:
        _QUIET.reset(token)
        _ERRORS.reset(errors)


def is_quiet() -> bool:
    """Whether only errors and what was asked for are printed."""
    return _QUIET.get()


def tell_error(text: str) -> None:
    """Print an error on stderr, which ``--quiet`` does not hide."""
    typer.echo(f"imgops: error: {text}", file=_ERRORS.get() or sys.stderr)


def say(text: str) -> None:
    """Print a line for the user on stdout, unless ``--quiet`` was given."""
    if not is_quiet():
        typer.echo(text)
