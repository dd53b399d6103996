"""The variational autoencoder."""

from __future__ import annotations

from torch import Tensor

from ..autoencoder import Autoencoder


class VAE(Autoencoder):
    """Variational autoencoder (Kingma & Welling 2014): each picture has a normal distribution of codes.

    The arguments are those of :class:`imgops.models.autoencoder.Autoencoder`. Standard normal codes are the prior, so
    that ``forward`` decodes z as it is.

    ``distribution(img, c=None)``: (mean, logarithm of the variance), each [N, z_dim]. ``encode`` gives the mean.
    """

    per_code = 2

    def distribution(self, img: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """img [N, img_channels, height, width] -> (mean, logarithm of the variance), each [N, z_dim]."""
        mean, log_variance = self._features(img, c).chunk(2, 1)
        return mean, log_variance

    def encode(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        """img [N, img_channels, height, width] -> the means of the codes [N, z_dim]."""
        return self.distribution(img, c)[0]
