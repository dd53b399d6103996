"""The work of ``imgops models``."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from rich.console import Console
from rich.table import Table

from ..models.catalog import FAMILIES
from ..models.network import Network
from ..training.config import GeneratorConfig
from ..training.recipes import RECIPES, config_class, recipe_class
from ..training.recipes._adversarial import AdversarialRecipe
from .models import Job


def tell(job: Job, given_options: Collection[str] = ()) -> str:
    """The page; ``given_options`` are those that the command line gave.

    Raises:
        ValueError: there is no such generator, or its settings do not go together.
    """
    if job.recipe is None:
        if given := sorted({"resolution", "channels", "preset"} & set(given_options)):
            raise ValueError(f"--{given[0]} is of a network; name its RECIPE before it")
        return json.dumps([family._asdict() for family in FAMILIES], indent=2) if job.json else _list()
    networks = networks_of(job.recipe, job)
    if job.json:
        layers = {name: [layer._asdict() for layer in n.summary().layers] for name, n in networks.items()}
        return json.dumps(layers, indent=2)
    return "\n\n".join(f"{name} of {job.recipe}\n{network.summary()}" for name, network in networks.items())


def _list() -> str:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    for family in FAMILIES:
        recipes = " or ".join(family.recipes)
        lines = family.paper, f"pictures: {family.sizes}", f"--recipe {recipes}", f"loads: {family.weights}"
        table.add_row(family.name, "\n".join(lines))
    console = Console()
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip("\n")


def networks_of(recipe: str, job: Job) -> dict[str, Network]:
    """The networks of a recipe, as a run builds them.

    Raises:
        ValueError: there is no such generator, or its settings do not go together.
    """
    generators = [name for name in RECIPES if issubclass(config_class(name), GeneratorConfig)]
    if recipe not in generators:
        raise ValueError(f"RECIPE must be {', '.join(generators)}; got {recipe!r}")
    settings: Any = config_class(recipe)
    config = settings(
        data="", out="", resolution=job.resolution, channels=job.channels, preset=job.preset, device="cpu"
    ).resolve()
    built: Any = recipe_class(recipe)
    networks = {"generator": built.finished(config, 0)}
    if issubclass(built, AdversarialRecipe):
        networks["discriminator"] = built.discriminator(config, 0)
    return networks
