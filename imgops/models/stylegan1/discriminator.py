"""The discriminator of StyleGAN1."""

from __future__ import annotations

from typing import Any

from ...nn.resample import RESAMPLE_TAPS
from .. import progan


class Discriminator(progan.Discriminator):
    """ProGAN's discriminator, which blurs before it halves the sides (Karras et al. 2019, appendix C).

    Blur and mean of four pixels are one filter, (1, 3, 3, 1), before a strided convolution. Arguments, shapes and
    errors are those of :class:`imgops.models.progan.Discriminator`, but for resample_filter, which is this one.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, resample_filter=RESAMPLE_TAPS, **settings)
