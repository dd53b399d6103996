"""ProGAN (Karras et al. 2018), "Progressive Growing of GANs for Improved Quality, Stability, and Variation"."""

from .discriminator import Discriminator, DiscriminatorBlock, LastBlock
from .generator import Generator, GeneratorBlock
from .growing import Growing

__all__ = ["Discriminator", "DiscriminatorBlock", "Generator", "GeneratorBlock", "Growing", "LastBlock"]
