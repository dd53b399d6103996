"""Image-space filtering: frequency bands amplified or attenuated, each by its own gain per image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: the low-pass filter of the symlet with 2 vanishing moments (Daubechies 1992), which sums to sqrt(2)
SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
#: bands from low to high: up to pi/8, pi/4, pi/2 and pi
BANDS = 4
#: the share of each band in the power of natural images, whose spectrum is 1/f (Karras et al. 2020, appendix B)
POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)


def band_filters() -> Tensor:
    """Zero-phase filters of the bands, [4, 43] in float64, which sum to a single tap of 1: a filter bank's paths.

    The low-pass filter of each level is H(z) H(1/z) / 2 at the level's scale; a band is what a level takes away.
    """
    h = torch.tensor(SYM2, dtype=torch.float64)
    low = _convolved(h, h.flip(0)) / 2
    smooth = [torch.ones(1, dtype=torch.float64)]
    for level in range(BANDS - 1):
        spread = torch.zeros((len(low) - 1) * 2**level + 1, dtype=torch.float64)
        spread[:: 2**level] = low
        smooth.append(_convolved(smooth[-1], spread))
    length = len(smooth[-1])
    padded = [F.pad(s, ((length - len(s)) // 2,) * 2) for s in smooth]
    return torch.stack([padded[3], padded[2] - padded[3], padded[1] - padded[2], padded[0] - padded[1]])


def _convolved(a: Tensor, b: Tensor) -> Tensor:
    return F.conv1d(a[None, None], b.flip(0)[None, None], padding=len(b) - 1)[0, 0]


class BandFilter(nn.Module):
    """Amplifies frequency bands of images [N, C, H, W], by base-2 logarithms [N, 4], keeping the expected power.

    A separable filter of 43 taps per image, of the image reflected at its edges. It is applied as a product with a
    matrix per axis, as images with filters of their own cannot share a convolution.
    """

    bands: Tensor
    power: Tensor

    def __init__(self) -> None:
        super().__init__()
        # a zero on either side stands for all taps beyond
        self.register_buffer("bands", F.pad(band_filters(), (1, 1)).float(), persistent=False)
        self.register_buffer("power", torch.tensor(POWER), persistent=False)

    def forward(self, images: Tensor, amplification: Tensor) -> Tensor:
        gains = self.gains(amplification)
        rows, columns = (self.matrices(gains, side)[:, None] for side in images.shape[2:])
        return rows @ images @ columns.mT

    def gains(self, amplification: Tensor) -> Tensor:
        """[N, 4]: after a band is amplified all are divided by the root of the expected power, which so stays 1."""
        expected = 1 + self.power * (torch.exp2(2 * amplification) - 1)
        return torch.exp2(amplification) * expected.rsqrt().prod(1, keepdim=True)

    def matrices(self, gains: Tensor, side: int) -> Tensor:
        """[N, side, side], the filters with their reflections at both edges."""
        reach = self.bands.shape[1] // 2
        pixels = torch.arange(side, device=gains.device)
        period = 2 * (side - 1)
        matrix = torch.zeros(BANDS, side, side, dtype=gains.dtype, device=gains.device)
        inner = (pixels > 0) & (pixels < side - 1)
        for turn in range(-(reach // period) - 1, reach // period + 2):
            for source, counted in ((pixels + turn * period, None), (turn * period - pixels, inner)):
                tap = (pixels[:, None] - source).clamp(-reach, reach) + reach
                values = self.bands[:, tap].to(gains.dtype)
                matrix = matrix + (values if counted is None else values * counted)
        return (gains @ matrix.flatten(1)).unflatten(1, (side, side))
