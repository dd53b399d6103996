"""``imgops models``: what networks there are, and the layers of one."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from .._settings import Choice, Shapes, setting
from ._options import Given, options

_OPTIONS = "Options"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to tell, as the command line says it."""

    recipe: Annotated[
        str | None, typer.Argument(help="A recipe of a generator, of whose networks the layers are listed.")
    ] = None
    resolution: int | tuple[int, int] = setting(
        256, _OPTIONS, "Side of the pictures in pixels, or WIDTHxHEIGHT.", allowed=Shapes(8)
    )
    channels: int = setting(3, _OPTIONS, "Of the pictures.", allowed=Choice((1, 3, 4)))
    preset: str = setting("auto", _OPTIONS, "The preset of the recipe.")
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.", rich_help_panel=_OPTIONS)] = False


@options()
def models(job: Job, given: Given) -> None:
    """List the families of networks: papers, sizes, recipes, and weights that can be loaded.

    Example: imgops models stylegan3-t --resolution 256

    With a recipe it lists the layers of its generator and discriminator instead: shapes, parameters and FLOPs, for one
    picture. Nothing is computed for it.
    """
    from ._models import tell

    typer.echo(tell(job, given))
