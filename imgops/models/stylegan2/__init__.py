"""StyleGAN2 (Karras et al. 2020), with class labels and half precision (Karras et al. 2020, "ADA").

Parameters and buffers have the names of the published checkpoints, so that ``load_state_dict`` takes those as they are.
"""

from ...nn import MappingNetwork
from .discriminator import Discriminator, DiscriminatorBlock, DiscriminatorEpilogue
from .generator import Generator, SynthesisBlock, SynthesisNetwork

__all__ = [
    "Discriminator",
    "DiscriminatorBlock",
    "DiscriminatorEpilogue",
    "Generator",
    "MappingNetwork",
    "SynthesisBlock",
    "SynthesisNetwork",
]
