"""StyleGAN1 (Karras et al. 2019); its discriminator is ProGAN's, with a blur before it halves the sides."""

from .discriminator import Discriminator
from .generator import Generator, StyledConvBlock, SynthesisNetwork

__all__ = ["Discriminator", "Generator", "StyledConvBlock", "SynthesisNetwork"]
