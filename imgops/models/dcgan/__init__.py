"""DCGAN (Radford et al. 2015), "Unsupervised representation learning with deep convolutional GANs"."""

from .discriminator import Discriminator
from .generator import Generator

__all__ = ["Discriminator", "Generator"]
