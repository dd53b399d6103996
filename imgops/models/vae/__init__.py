"""Variational autoencoder (Kingma & Welling 2014), with the weight beta of its prior (Higgins et al. 2017)."""

from .network import VAE

__all__ = ["VAE"]
