"""Pictures as Fourier coefficients of decorrelated colors (Olah, Mordvintsev and Schubert 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

#: the square root of the covariance of colors in photographs (Olah et al. 2017), scaled to a longest column of 1
_COLORS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
#: pixels of a given picture are clipped to this distance from 0 and 1, so that no logit is infinite
_MARGIN = 1e-3


def fourier_picture(spectrum: Tensor, width: int) -> Tensor:
    """The picture of a spectrum: 1/f scaling, inverse transform, colors, sigmoid.

    Args:
        spectrum: [3, H, width // 2 + 1, 2], real and imaginary parts; its axis 0 is of decorrelated colors.
        width: of the picture in pixels, as a spectrum has the same size for an even width and the next odd one.

    Returns:
        [3, H, width] in (0, 1), real whatever the spectrum.
    """
    height = spectrum.shape[1]
    scaled = torch.view_as_complex(spectrum) * _scales(height, width, spectrum)
    channels = torch.fft.irfft2(scaled, s=(height, width), norm="ortho")
    return torch.sigmoid(torch.einsum("ij,jhw->ihw", _colors(spectrum), channels))


def fourier_spectrum(picture: Tensor) -> Tensor:
    """The spectrum [3, H, W // 2 + 1, 2] whose picture is this one [3, H, W], clipped to [0.001, 0.999]."""
    logits = torch.logit(picture, eps=_MARGIN)
    channels = torch.einsum("ij,jhw->ihw", torch.linalg.inv(_colors(picture)), logits)
    spectrum = torch.fft.rfft2(channels, norm="ortho") / _scales(picture.shape[1], picture.shape[2], picture)
    return torch.view_as_real(spectrum).contiguous()


def noise_picture(height: int, width: int, seed: int, strength: float = 0.1) -> Tensor:
    """Noise as photographs have it, each octave as strong as the next: [3, height, width], float32, of that seed.

    Args:
        strength: of the coefficients before the sigmoid. Default 0.1, a faint one.

    >>> noise_picture(8, 12, seed=1).shape
    torch.Size([3, 8, 12])
    """
    generator = torch.Generator().manual_seed(seed)
    return fourier_picture(torch.randn(3, height, width // 2 + 1, 2, generator=generator) * strength, width)


def natural_colors(direction: Tensor, share: float) -> Tensor:
    """A direction [3, H, W] with a share of it multiplied by the covariance of colors in photographs, which keeps gray
    as large as it is and shrinks the other colors the more the rarer they are."""
    if share == 0:
        return direction
    colors = _colors(direction)
    covariance = colors @ colors.T
    # the sum of a row is what becomes of gray
    covariance = covariance / covariance.sum(1).mean()
    return torch.lerp(direction, torch.einsum("ij,jhw->ihw", covariance, direction), share)


def _scales(height: int, width: int, like: Tensor) -> Tensor:
    """1/f for each coefficient [height, width // 2 + 1]; the mean has the scale of the longest wave."""
    fy = torch.fft.fftfreq(height, dtype=like.dtype, device=like.device)[:, None]
    fx = torch.fft.rfftfreq(width, dtype=like.dtype, device=like.device)
    return 1 / (fy.square() + fx.square()).sqrt().clamp(min=1 / max(height, width))


def _colors(like: Tensor) -> Tensor:
    matrix = torch.tensor(_COLORS, dtype=like.dtype, device=like.device)
    return matrix / matrix.norm(dim=0).max()
