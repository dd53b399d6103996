"""The discriminator of StyleGAN1."""

from __future__ import annotations

from ...nn.resample import RESAMPLE_TAPS
from .. import progan


class Discriminator(progan.Discriminator):
    """ProGAN's discriminator, which blurs before it halves the sides (Karras et al. 2019, appendix C).

    Blur and mean of four pixels are one filter before a strided convolution. Arguments, shapes and errors are those of
    :class:`imgops.models.progan.Discriminator`.
    """

    taps = RESAMPLE_TAPS
