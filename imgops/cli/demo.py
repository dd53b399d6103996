"""``imgops demo``: a bit of everything within minutes."""

from __future__ import annotations

from typing import Annotated

import typer


def demo(
    out: Annotated[str, typer.Option(help="Folder for the results.")] = "demo",
    minutes: Annotated[float, typer.Option(help="Time limit of the whole demo.")] = 5.0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Train a small network on free textures within minutes, and measure the fused ops against plain PyTorch.

    Writes samples.png (real and generated, a class a row), losses.png and speed.md.
    """
    from ._demo import run

    run(out, minutes * 60, seed)
