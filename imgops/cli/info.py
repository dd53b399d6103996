"""``imgops info``: what runs here, and why the rest does not."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def info(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False) -> None:
    """Say what runs here: versions, and which backends of each op exist on each device; why not, and the remedy."""
    from . import _info as page

    facts = page.collect()
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        page.show(facts)
