"""Autoencoders: pictures to a vector and back."""

from .layers import Decoder, Encoder, ResidualBlock
from .network import Autoencoder

__all__ = ["Autoencoder", "Decoder", "Encoder", "ResidualBlock"]
