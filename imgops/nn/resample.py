"""Up- and down-sampling of images by a low-pass filter."""

from __future__ import annotations

from torch import Tensor

from ..ops.upfirdn2d import filter_size, upfirdn2d
from ..reference.modulated_conv2d import resample_padding

#: the low-pass filter of StyleGAN2's re-sampling, a binomial; made 2-D and normalised by setup_filter
RESAMPLE_TAPS = (1.0, 3.0, 3.0, 1.0)


def upsample2d(x: Tensor, f: Tensor | None, up: int = 2) -> Tensor:
    """[N, C, H, W] -> [N, C, H * up, W * up], filtered by f (see :func:`imgops.upfirdn2d`) and centred on it.

    Keeps the mean where f sums to 1. Raises what upfirdn2d raises.
    """
    padding = resample_padding((0, 0, 0, 0), filter_size(f), up, 1)
    return upfirdn2d(x, f, up=up, padding=padding, gain=float(up**2))


def downsample2d(x: Tensor, f: Tensor | None, down: int = 2) -> Tensor:
    """[N, C, H, W] -> [N, C, H // down, W // down], filtered by f (see :func:`imgops.upfirdn2d`) and centred on it.

    Keeps the mean where f sums to 1. Raises what upfirdn2d raises.
    """
    padding = resample_padding((0, 0, 0, 0), filter_size(f), 1, down)
    return upfirdn2d(x, f, down=down, padding=padding)
