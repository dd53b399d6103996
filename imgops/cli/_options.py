"""The options that several commands have, said once."""

from __future__ import annotations

from typing import Annotated

import typer

RESULT, MACHINE = "Result", "Machine"

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
Device = Annotated[
    str, typer.Option(help="cpu, cuda, cuda:1, ...; auto takes a GPU where there is one.", rich_help_panel=MACHINE)
]
