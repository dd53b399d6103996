"""``imgops models``: every family is listed, and the layers of every generator."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from imgops.cli import app
from imgops.models import catalog
from imgops.training.config import GeneratorConfig
from imgops.training.recipes import RECIPES, config_class

GENERATORS = [name for name in RECIPES if issubclass(config_class(name), GeneratorConfig)]


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["models", *arguments])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def test_every_recipe_is_of_a_family():
    assert sorted(recipe for family in catalog.FAMILIES for recipe in family.recipes) == sorted(RECIPES)
    listed = json.loads(run("--json"))
    assert [row["name"] for row in listed] == [family.name for family in catalog.FAMILIES]
    page = run()
    assert all(family.name in page for family in catalog.FAMILIES)


@pytest.mark.parametrize("recipe", GENERATORS)
def test_the_layers_of_a_generator(recipe):
    layers = json.loads(run(recipe, "--preset", "tiny", "--resolution", "32", "--json"))
    assert "generator" in layers
    assert ("discriminator" in layers) == (recipe not in ("autoencoder", "vae", "vqvae"))
    assert all(sum(layer["parameters"] for layer in of) > 1000 for of in layers.values())
    text = run(recipe, "--preset", "tiny", "--resolution", "32")
    assert f"generator of {recipe}" in text
    assert "MFLOP" in text


def test_mistakes_are_told():
    assert "RECIPE must be stylegan2" in run("encoder", code=2)
    assert "--preset is of a network; name its RECIPE before it" in run("--preset", "tiny", code=2)
    assert "preset" in run("dcgan", "--preset", "huge", code=2)
    assert "resolution" in run("stylegan2", "--resolution", "31", code=2)
