"""``imgops demo``: a bit of everything within minutes."""

from __future__ import annotations

from typing import Annotated

import typer


def demo(
    out: Annotated[str, typer.Option(help="Folder for the results.")] = "demo",
    minutes: Annotated[float, typer.Option(help="Time limit of the whole demo.")] = 5.0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Paint, dream, train a small network on free textures, and time the fused ops, all within minutes.

    Writes style.png and dream.png; samples.png (real and generated pictures, one class per row) and losses.png of the
    training in run-1; and speed.md, the fused ops against plain PyTorch.
    """
    from ._demo import run

    run(out, minutes * 60, seed)
