"""What networks there are, as ``imgops models`` lists them; known without torch."""

from __future__ import annotations

from typing import NamedTuple


class Family(NamedTuple):
    """A family of networks.

    Attributes:
        name: as a package of :mod:`imgops.models` has it.
        paper: what it is of.
        sizes: of its pictures.
        recipes: that ``imgops train --recipe`` trains it by.
        weights: files that can be loaded.
    """

    name: str
    paper: str
    sizes: str
    recipes: tuple[str, ...]
    weights: str


_OWN = "checkpoints of imgops train"
FAMILIES = (
    Family(
        "stylegan2",
        "Karras et al. 2020, with ADA (Karras et al. 2020)",
        "8 to 4096 px, any shape that halves",
        ("stylegan2",),
        f"{_OWN}; state dicts with the published names",
    ),
    Family(
        "stylegan3",
        "Karras et al. 2021",
        "9 px and more, any shape that halves",
        ("stylegan3-t", "stylegan3-r"),
        f"{_OWN}; state dicts with the published names",
    ),
    Family(
        "stylegan1",
        "Karras et al. 2019",
        "8 to 4096 px, any shape that halves",
        ("stylegan1",),
        f"{_OWN}; state dicts of the PyTorch port",
    ),
    Family("progan", "Karras et al. 2018", "8 to 4096 px, any shape that halves", ("progan",), _OWN),
    Family("r3gan", "Huang et al. 2024", "8 to 4096 px, any shape that halves", ("r3gan",), _OWN),
    Family(
        "dcgan",
        "Radford et al. 2015",
        "28, 32, 64 px and more, any shape that halves to 4 to 7",
        ("dcgan",),
        f"{_OWN}; state dicts of PyTorch's example for 64 px",
    ),
    Family(
        "autoencoder",
        "Hinton & Salakhutdinov 2006; samples as Ghosh et al. 2020",
        "as of dcgan",
        ("autoencoder",),
        _OWN,
    ),
    Family(
        "vqvae",
        "van den Oord et al. 2017; two levels as Razavi et al. 2019",
        "any that the levels divide",
        ("vqvae",),
        _OWN,
    ),
    Family("vae", "Kingma & Welling 2014", "as of dcgan", ("vae",), _OWN),
    Family(
        "style",
        "Johnson et al. 2016; Huang & Belongie 2017",
        "any",
        ("style-fast", "style-adain"),
        "fast_neural_style; the decoder of AdaIN; one of each that comes along",
    ),
    Family(
        "encoders",
        "VGG, GoogLeNet, Inception v3, EfficientNet-Lite",
        "any",
        ("encoder",),
        "torchvision's, AdaIN's and FID's files, timm by name; one that comes along",
    ),
)
