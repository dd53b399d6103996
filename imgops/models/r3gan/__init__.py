"""R3GAN (Huang et al. 2024), "The GAN is dead; long live the GAN! A modern GAN baseline"."""

from .blocks import Resample, ResidualBlock
from .discriminator import Discriminator
from .generator import Generator

__all__ = ["Discriminator", "Generator", "Resample", "ResidualBlock"]
