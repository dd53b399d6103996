"""``imgops accelerate``: how much faster the layers of a network could be."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from .._settings import setting
from ._options import Given, options

_OPTIONS = "Options"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to time, as the command line says it."""

    network: Annotated[
        str,
        typer.Argument(
            help="A function that returns the network: package.module:function or file.py:function.",
        ),
    ]
    input: str = setting(
        "1x3x256x256", _OPTIONS, "Shape of what the network is given, random numbers; of several inputs, with commas."
    )
    training: bool = setting(False, _OPTIONS, "Time training, forward and backward, in place of evaluation.")
    channels_last: bool = setting(False, _OPTIONS, "Give images channels-last, and such weights.")
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.", rich_help_panel=_OPTIONS)] = False


@options()
def accelerate(job: Job, given: Given) -> None:
    """Time each layer of a network as it is and as imgops.accelerate makes it, and the whole.

    Example: imgops accelerate my_network.py:make --input 1x3x512x512

    The network is not changed, and nothing is written: in a program, imgops.accelerate(network, inputs) changes it.
    """
    from ._accelerate import tell

    typer.echo(tell(job))
