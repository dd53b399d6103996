"""VQ-VAE (van den Oord et al. 2017) and VQ-VAE-2 (Razavi et al. 2019)."""

from .network import VQVAE
from .prior import CodePrior

__all__ = ["VQVAE", "CodePrior"]
