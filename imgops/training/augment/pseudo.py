"""Generated images shown to the discriminator as real ones, so that it cannot learn the real ones by heart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...ops._common import check_operand
from ._checks import check_images, check_same

_OWNER = "training.AdaptivePseudoAugment"


class AdaptivePseudoAugment(nn.Module):
    """Real images, each with the probability p replaced by a generated one.

    Jiang et al. 2021, "Deceive D: Adaptive Pseudo Augmentation for GAN Training with Limited Data" (APA).
    :class:`AdaptiveStrength` drives p; it works beside :class:`AugmentPipe`, whose p another one drives.

    The buffer ``p``, a scalar, is the probability; it starts at 0 and is all of the state.

    ``forward(real, fake, uniforms=None)``: two batches [N, C, H, W] of the same shape, dtype and device, C of 1, 3 or 4
    -> the mixed batch. The generated ones are detached: they are data here. ``uniforms`` [N, 1] in [0, 1) are what is
    drawn, by default from torch's generator on p's device. Nothing waits for that device.

    Raises:
        TypeError: batches that are no tensors of floating dtype.
        ValueError: batches that differ in shape, dtype or device, uniforms of another shape or on another device.
    """

    p: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("p", torch.zeros([]))

    #: uniform numbers that are drawn per image
    draws = 1

    def forward(self, real: Tensor, fake: Tensor, uniforms: Tensor | None = None) -> Tensor:
        check_images(_OWNER, real, self.p.device)
        check_same(_OWNER, "fake", fake, real)
        if uniforms is None:
            uniforms = torch.rand(real.shape[0], self.draws, device=real.device)
        check_operand(_OWNER, "uniforms", uniforms, real, (real.shape[0], self.draws))
        return torch.where(uniforms[:, :, None, None] < self.p, fake.detach(), real)
