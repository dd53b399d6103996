"""Gives a picture the colors of another, by which style transfer keeps those of its content."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..._settings import KEEP_COLORS

FloatArray: TypeAlias = npt.NDArray[np.float64]

#: luma of R, G, B (ITU-R BT.601)
LUMA = (0.299, 0.587, 0.114)
#: smallest variance to divide by, of a deviation of 1/300 of the range: below it a gray picture's chroma is rounding
_FLOOR = 1e-5


def keep_colors(
    picture: Tensor,
    content: Tensor,
    method: str,
    weights: Tensor | None = None,
    content_weights: Tensor | None = None,
) -> Tensor:
    """A picture in the colors of a content by one of :data:`KEEP_COLORS`.

    "luma" is for the result of a transfer; "coral" and "histogram" for the style picture before the transfer (Gatys et
    al. 2016, "Preserving Color in Neural Artistic Style Transfer"), or for its result.

    Args, Returns: as :func:`keep_luma`, which takes no weights, :func:`match_covariance` and :func:`match_histogram`.

    Raises:
        ValueError: an unknown method, and what the method raises.

    >>> keep_colors(torch.rand(3, 8, 8), torch.rand(3, 5, 6), "coral").shape
    torch.Size([3, 8, 8])
    """
    if method not in KEEP_COLORS:
        raise ValueError(f"keep_colors: method must be one of {', '.join(KEEP_COLORS)}; got {method!r}")
    if method == "luma":
        return keep_luma(picture, content)
    match = match_covariance if method == "coral" else match_histogram
    return match(picture, content, weights, content_weights)


def is_gray(picture: Tensor) -> bool:
    """Whether a picture [3, H, W] in [0, 1] has no color that 8 bits would show.

    >>> is_gray(torch.rand(1, 4, 5).expand(3, -1, -1))
    True
    """
    return bool((picture.amax(0) - picture.amin(0) < 0.5 / 255).all())


def keep_luma(result: Tensor, content: Tensor) -> Tensor:
    """The luma of one picture with the chroma of another (Gatys et al. 2016, section 3.2), in BT.601's YCbCr.

    A color that would leave [0, 1] is desaturated just as far as it must be; its luma and hue stay.

    Args:
        result, content: [3, H, W], RGB in [0, 1], of one size.

    Returns:
        [3, H, W] in the result's dtype.

    Raises:
        ValueError: result or content is no picture, or their sizes differ.

    >>> keep_luma(torch.full((3, 1, 1), 0.5), torch.tensor([0.9, 0.5, 0.5])[:, None, None]).flatten()
    tensor([0.7804, 0.3804, 0.3804])
    """
    _check("keep_luma", "result", result)
    _check("keep_luma", "content", content)
    if result.shape != content.shape:
        raise ValueError(f"keep_luma: result is {tuple(result.shape)}, content {tuple(content.shape)}")
    weights = torch.tensor(LUMA, dtype=torch.float64, device=result.device)
    given = content.to(result.device).double()
    luma = torch.einsum("c,chw->hw", weights, result.double()).clamp(0, 1)
    chroma = given - torch.einsum("c,chw->hw", weights, given)
    # the largest factor on the chroma that keeps all channels in [0, 1], those above the luma and those below
    tiny = torch.finfo(torch.float64).tiny
    room = torch.minimum((1 - luma) / chroma.amax(0).clamp_min(tiny), luma / (-chroma.amin(0)).clamp_min(tiny))
    return (luma + chroma * room.clamp_max(1)).clamp(0, 1).to(result.dtype)


def match_covariance(
    picture: Tensor, target: Tensor, weights: Tensor | None = None, target_weights: Tensor | None = None
) -> Tensor:
    """Map a picture's colors linearly so that they get the mean and covariance of the target's, "CORAL".

    ``Ct^(1/2) Cp^(-1/2) (color - mean_p) + mean_t`` with symmetric roots (Gatys et al. 2016, section 4.1; Sun et al.
    2016), in float64. Variances of the picture along its principal colors count as 1e-5 where they are smaller, so that
    the rounding of a gray picture is not amplified to color noise: it gets the target's mean and part of its contrast.

    Args:
        picture: [3, H, W], RGB in [0, 1].
        target: [3, H', W'], RGB in [0, 1], of any size.
        weights, target_weights: the weight of each pixel, [1, H, W] and [1, H', W'] >= 0, such as an alpha; None:
            all pixels count the same.

    Returns:
        [3, H, W] in the picture's dtype, clipped to [0, 1] at the end.

    Raises:
        ValueError: picture or target is no picture; weights of another size, negative, or all 0.

    >>> match_covariance(torch.rand(3, 4, 4), torch.full((3, 1, 1), 0.25)).unique()
    tensor([0.2500])
    """
    own, other = _pair("match_covariance", picture, target, weights, target_weights)
    colors, mean, covariance = _moments(picture, own)
    target = target.to(picture.device)
    _, target_mean, target_covariance = _moments(target, other.to(picture.device))
    variances, axes = torch.linalg.eigh(covariance)
    whiten = axes / variances.clamp_min(_FLOOR).sqrt() @ axes.T
    variances, axes = torch.linalg.eigh(target_covariance)
    color = axes * variances.clamp_min(0).sqrt() @ axes.T
    moved = color @ whiten @ (colors - mean) + target_mean
    return moved.clamp(0, 1).reshape(picture.shape).to(picture.dtype)


def _moments(picture: Tensor, shares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A picture's colors [3, HW], their mean [3, 1] and their covariance [3, 3], in float64."""
    colors = picture.double().flatten(1)
    mean = (shares * colors).sum(1, keepdim=True)
    return colors, mean, (shares * (colors - mean)) @ (colors - mean).T


def _pair(
    function: str, picture: Tensor, target: Tensor, weights: Tensor | None, target_weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The shares of the pixels of picture and target, which are checked."""
    _check(function, "picture", picture)
    _check(function, "target", target)
    return _shares("weights", weights, picture), _shares("target_weights", target_weights, target)


def _shares(name: str, weights: Tensor | None, picture: Tensor) -> Tensor:
    """The weight of each pixel, [HW] in float64, with a sum of 1."""
    if weights is None:
        pixels = picture.shape[1] * picture.shape[2]
        return torch.full((pixels,), 1 / pixels, dtype=torch.float64, device=picture.device)
    if weights.shape != (1, *picture.shape[1:]) or not weights.min() >= 0 or not weights.max() > 0:
        raise ValueError(
            f"keep_colors: {name} must be {(1, *picture.shape[1:])} as the picture, >= 0 and not 0 all over; got "
            f"{tuple(weights.shape)}"
        )
    shares = weights.to(picture.device).double().flatten()
    return shares / shares.sum()


def match_histogram(
    picture: Tensor, target: Tensor, weights: Tensor | None = None, target_weights: Tensor | None = None
) -> Tensor:
    """Map each channel of a picture, by an increasing function, to the distribution of the target's channel.

    Args, Returns, Raises: as :func:`match_covariance`; the result has no gradient.

    >>> match_histogram(torch.rand(3, 4, 4), torch.full((3, 1, 1), 0.25)).unique()
    tensor([0.2500])
    """
    own, other = (x.cpu().numpy() for x in _pair("match_histogram", picture, target, weights, target_weights))
    ours, theirs = (x.detach().double().flatten(1).cpu().numpy() for x in (picture, target))
    matched = np.stack([_mapped(x, own, y, other) for x, y in zip(ours, theirs, strict=True)])
    return torch.from_numpy(matched).reshape(picture.shape).to(picture)


def _mapped(values: FloatArray, shares: FloatArray, theirs: FloatArray, their_shares: FloatArray) -> FloatArray:
    """Each value replaced by the value of the others that is their quantile at the same share."""
    places = np.unique(values, return_inverse=True)[1]
    # values without weight are left out: their shares would not increase, which interpolation needs
    counted = their_shares > 0
    their_levels, their_places = np.unique(theirs[counted], return_inverse=True)
    below = np.cumsum(np.bincount(places, shares))
    found: FloatArray = np.interp(below, np.cumsum(np.bincount(their_places, their_shares[counted])), their_levels)[
        places
    ]
    return found


def _check(function: str, name: str, picture: Tensor) -> None:
    if picture.ndim != 3 or picture.shape[0] != 3 or picture.numel() == 0 or not picture.is_floating_point():
        raise ValueError(
            f"{function}: {name} must be a floating-point [3, H, W]; got {tuple(picture.shape)} of {picture.dtype}"
        )


# former names
KEEP_COLOURS = KEEP_COLORS
keep_colours = keep_colors
