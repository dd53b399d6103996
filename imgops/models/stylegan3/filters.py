"""The low-pass filters of StyleGAN3: a sinc, or its counterpart that is the same in all directions, in a window."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...nn._checks import check_size
from ...ops._common import check_number


def kaiser_beta(taps: int, width: float) -> float:
    """The shape of the window that lets a filter of so many taps fall within ``width``, a share of half the sampling
    rate (Kaiser 1974, as in Karras et al. 2021, section 3)."""
    attenuation = 2.285 * (taps - 1) * math.pi * width + 7.95
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    return 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21) if attenuation > 21 else 0.0


def lowpass_filter(
    taps: int, cutoff: float, width: float, sampling_rate: float, *, radial: bool = False
) -> Tensor | None:
    """A low-pass filter by the window method (Karras et al. 2021, section 3 and appendix C).

    Frequencies and the sampling rate are per unit of length, such as the side of the picture.

    Args:
        taps: of the filter along each axis, >= 1. One tap changes nothing.
        cutoff: the frequency that half of passes.
        width: of the band in which the filter falls.
        sampling_rate: of the pixels that are filtered.
        radial: the same in all directions, [taps, taps]: the jinc function in place of sinc. Default False: separable.

    Returns:
        [taps] or [taps, taps], float32, of sum 1; None for one tap.

    Raises:
        TypeError, ValueError: taps that are no int >= 1, a number that is not above 0.
    """
    owner = "lowpass_filter"
    taps = check_size(owner, "taps", taps)
    given = {"cutoff": cutoff, "width": width, "sampling_rate": sampling_rate}
    numbers = {name: check_number(owner, name, value) for name, value in given.items()}
    for name, value in numbers.items():
        if value <= 0:
            raise ValueError(f"{owner}: {name} must be > 0; got {value}")
    if taps == 1:
        return None
    places = (torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2) / numbers["sampling_rate"]
    beta = kaiser_beta(taps, numbers["width"] / (numbers["sampling_rate"] / 2))
    window = torch.kaiser_window(taps, periodic=False, beta=beta, dtype=torch.float64)
    if radial:
        f = _jinc(torch.hypot(places[:, None], places), numbers["cutoff"]) * torch.outer(window, window)
    else:
        f = torch.sinc(2 * numbers["cutoff"] * places) * window
    return (f / f.sum()).float()


def _jinc(distance: Tensor, cutoff: float) -> Tensor:
    """What passes the frequencies below the cutoff in every direction, as sinc does along a line, up to a factor."""
    x = (2 * math.pi * cutoff * distance).clamp(min=1e-6)
    return torch.special.bessel_j1(x) / x
