"""StyleGAN3 (Karras et al. 2021). Its discriminator is that of StyleGAN2.

Parameters and buffers have the names of the published checkpoints, so that ``load_state_dict`` takes those as they are.
"""

from .filters import lowpass_filter
from .generator import Generator, SynthesisNetwork
from .layers import SynthesisInput, SynthesisLayer

__all__ = ["Generator", "SynthesisInput", "SynthesisLayer", "SynthesisNetwork", "lowpass_filter"]
