"""Recipes: what the engine trains. Their settings load without torch, networks and steps when they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ..config import RunConfig
    from ._base import Recipe


class _Place(NamedTuple):
    """Where a recipe is: the module and the class of its settings, and of the recipe itself."""

    settings: tuple[str, str]
    steps: tuple[str, str]


#: recipes of packages above this one are named here alone, and imported when they are asked for
_STYLE = "imgops.style.training_config", "imgops.style.training_recipes"
_ENCODER = "imgops.style.encoder_config", "imgops.style.encoder_recipe"
_PLACES = {
    "stylegan2": _Place((".stylegan2_config", "TrainingConfig"), (".stylegan2", "StyleGAN2")),
    "stylegan3-t": _Place((".stylegan3_config", "StyleGAN3TConfig"), (".stylegan3", "StyleGAN3")),
    "stylegan3-r": _Place((".stylegan3_config", "StyleGAN3RConfig"), (".stylegan3", "StyleGAN3")),
    "stylegan1": _Place((".stylegan1_config", "StyleGAN1Config"), (".stylegan1", "StyleGAN1")),
    "progan": _Place((".progan_config", "ProGANConfig"), (".progan", "ProGAN")),
    "dcgan": _Place((".dcgan_config", "DCGANConfig"), (".dcgan", "DCGAN")),
    "r3gan": _Place((".r3gan_config", "R3GANConfig"), (".r3gan", "R3GAN")),
    "autoencoder": _Place((".autoencoder_config", "AutoencoderConfig"), (".autoencoder", "AutoencoderRecipe")),
    "vae": _Place((".vae_config", "VAEConfig"), (".vae", "VAERecipe")),
    "vqvae": _Place((".vqvae_config", "VQVAEConfig"), (".vqvae", "VQVAERecipe")),
    "style-fast": _Place((_STYLE[0], "FastStyleConfig"), (_STYLE[1], "FastStyle")),
    "style-adain": _Place((_STYLE[0], "AdaINStyleConfig"), (_STYLE[1], "AdaINStyle")),
    "encoder": _Place((_ENCODER[0], "EncoderConfig"), (_ENCODER[1], "DistilledEncoder")),
}
#: the names of all recipes, the default first
RECIPES = tuple(_PLACES)


def config_class(recipe: str) -> type[RunConfig]:
    """The class of a recipe's settings.

    Raises:
        ValueError: there is no such recipe.
    """
    return _load(_place(recipe).settings)  # type: ignore[no-any-return]


def recipe_class(recipe: str) -> type[Recipe]:
    """The class of a recipe.

    Raises:
        ValueError: there is no such recipe.
    """
    return _load(_place(recipe).steps)  # type: ignore[no-any-return]


def _place(recipe: str) -> _Place:
    if recipe not in _PLACES:
        raise ValueError(f"recipe must be {', '.join(RECIPES)}; got {recipe!r}")
    return _PLACES[recipe]


def _load(place: tuple[str, str]) -> Any:
    module, name = place
    return getattr(import_module(module, __name__), name)
