"""The options that several commands have, said once."""

from __future__ import annotations

from typing import Annotated

import typer

RESULT, NETWORKS, MACHINE = "Result", "Networks", "Machine"

Size = Annotated[
    int | None,
    typer.Option(
        help="Longer side in pixels. [dim]\\[default: the picture's, at most 512][/]",
        rich_help_panel=RESULT,
        show_default=False,
    ),
]
Preview = Annotated[
    str | None, typer.Option(help="A picture file that shows the work as it goes.", rich_help_panel=RESULT)
]
Quality = Annotated[int, typer.Option(min=1, max=100, help="Of JPEG.", rich_help_panel=RESULT)]
Preprocessing = Annotated[
    str | None,
    typer.Option(
        help="What the weights expect, where the file does not tell: imagenet (torchvision), caffe (BGR to 255), "
        "symmetric or none.",
        rich_help_panel=NETWORKS,
        show_default=False,
    ),
]
Device = Annotated[
    str, typer.Option(help="cpu, cuda, cuda:1, ...; auto takes a GPU where there is one.", rich_help_panel=MACHINE)
]
