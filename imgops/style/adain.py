"""Style transfer to any style in one pass: adaptive instance normalization and a decoder (Huang and Belongie 2017), or
exact feature distribution matching in the normalization's place (Zhang et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.encoders.tiling import Field, plan_tiles, receptive_fields
from ..models.style.adain_decoder import AdaINDecoder
from ..nn import Features
from ..ops.adain import adain, adaptive_instance_norm
from ..ops.efdm import efdm
from .settings import CONVENTIONS, check_statistics
from .statistics import sort_by_weight

#: the fewest pixels per side of a picture
MINIMUM = 16
#: added to variances
_EPS = 1e-5


@torch.no_grad()
def stylize_adain(
    content: Tensor,
    styles: Sequence[Tensor],
    encoder: nn.Module,
    decoder: AdaINDecoder,
    *,
    alpha: float = 1.0,
    weights: Sequence[float] | None = None,
    masks: Sequence[Tensor] | None = None,
    style_masks: Sequence[Tensor | None] | None = None,
    convention: str = "pytorch",
    tile: int | None = None,
    statistics: str = "moments",
) -> Tensor:
    """Give a picture the style of others, in one pass.

    The content's features at the layer that the decoder starts from, relu4_1 in the paper, take the mean and standard
    deviation of each style's, are mixed, and decoded.

    Args:
        content: [3, H, W], RGB in [0, 1], at least 16 pixels per side.
        styles: pictures [3, H', W'] likewise, of any sizes.
        encoder: a VGG, as :func:`imgops.models.encoders.load_encoder` gives it.
        decoder: the encoder's, as :func:`imgops.models.style.load_adain_decoder` gives it.
        alpha: how much of the style, from 0, the content as the decoder reproduces it, to 1. Default 1.
        weights: of each style where several meet, >= 0; only their ratios count. None weighs them equally.
        masks: [1, H, W] in [0, 1] for each style, where it applies; where they add up to less than 1 the content's
            features fill up. None applies all of them everywhere.
        style_masks: for each style how much each of its pixels counts, [1, H', W'] in [0, 1] as the style is, or None
            for all of it.
        convention: "pytorch" takes unbiased variances plus 1e-5; "lua", as the authors' own networks were trained, a
            biased one plus 1e-5 for the content and an unbiased one for the style. Default "pytorch".
        tile: pixels per side of the tiles that a large picture is encoded and decoded in; the statistics stay those of
            the whole picture, and the result is the same. None does not tile.
        statistics: "moments" matches means and standard deviations; "efdm" gives the features the style's values by
            rank, those of the whole picture, one channel after another. Default "moments".

    Returns:
        [3, H, W], RGB in [0, 1], with the content's dtype and device.

    Raises:
        ValueError: no style; a picture that is not RGB or is too small; alpha, weights or masks out of range or of
            another number or size; a style mask that is 0 all over; an unknown convention or statistics, or "efdm" with
            the convention "lua"; a tile below the decoder's stride; a decoder that is not the encoder's, or an encoder
            without that layer.
    """
    parts = [None] * len(styles) if style_masks is None else list(style_masks)
    check_sides(content.shape, [style.shape for style in styles], decoder)
    _check(content, styles, alpha, weights, masks)
    check_statistics("stylize_adain", statistics, convention)
    _check_parts(styles, parts)
    adain_pass = AdaINPass(encoder, decoder, tile)
    encoded = [adain_pass.encode_style(style, part) for style, part in zip(styles, parts, strict=True)]
    return adain_pass(content, encoded, alpha, weights, masks, convention, statistics)


class StyleFeatures(NamedTuple):
    """Features of a style [1, C, H', W'], and how much each position counts, [1, 1, H', W'], or None for all alike."""

    features: Tensor
    mask: Tensor | None


class AdaINPass:
    """The pass of :func:`stylize_adain` without its checks, so that styles can be encoded once for many contents.

    Args:
        encoder, decoder, tile: as :func:`stylize_adain` takes them.

    Raises:
        ValueError: a decoder that is not the encoder's, or an encoder without its layer.
    """

    def __init__(self, encoder: nn.Module, decoder: AdaINDecoder, tile: int | None = None) -> None:
        self.decoder, self.tile = decoder, tile
        try:
            self.features = Features(encoder, [decoder.layer])
        except ValueError as error:
            raise ValueError(f"stylize_adain: {error}; give the decoder of this encoder") from None
        self._pools_round_up = _keeps_the_last_row(self.features, decoder)

    @torch.no_grad()
    def encode_style(self, style: Tensor, mask: Tensor | None = None) -> StyleFeatures:
        """The features of a style [3, H, W]; a mask [1, H, W] says how much each of its pixels counts."""
        y = self._encode(style)
        return StyleFeatures(y, None if mask is None else _at_features(mask, y, self.decoder.stride))

    @torch.no_grad()
    def __call__(
        self,
        content: Tensor,
        styles: Sequence[StyleFeatures],
        alpha: float,
        weights: Sequence[float] | None,
        masks: Sequence[Tensor] | None,
        convention: str,
        statistics: str,
    ) -> Tensor:
        """The content in the styles; see :func:`stylize_adain`."""
        x = self._encode(content)
        shares = _shares(x, len(styles), weights, masks, self.decoder.stride)
        mixed = x * (1 - alpha * sum(shares, x.new_zeros(())))
        for style, share in zip(styles, shares, strict=True):
            if statistics == "efdm":
                styled = matched(x, style.features, style.mask)
            else:
                styled = normalized(x, style.features, convention, style.mask)
            mixed += alpha * share * styled
        return self._decode(mixed, content)

    def _encode(self, picture: Tensor) -> Tensor:
        """Features of a picture [3, H, W], computed in tiles: [1, C, ceil(H / stride), ceil(W / stride)]."""
        decoder, network = self.decoder, self.features.network
        like, stride = next(decoder.parameters()), decoder.stride
        taken = next(network.parameters(), like)
        h, w = (-(-side // stride) for side in picture.shape[1:])
        x = picture[None]
        if not self._pools_round_up:
            # pad to a whole stride, as pools would drop the last rows and columns
            x = F.pad(x, (0, stride * w - x.shape[3], 0, stride * h - x.shape[2]), mode="reflect")
        fields = [] if self.tile is None else list(receptive_fields(network, [decoder.layer]).values())
        whole = like.new_empty(1, decoder.widths[-1], h, w)
        for part in plan_tiles(x.shape[2], x.shape[3], self.tile, fields):
            found = self.features(part.cut(x).to(taken))[decoder.layer]
            part.core_in_picture(whole, stride).copy_(part.core_of(found, stride))
        return whole

    def _decode(self, x: Tensor, content: Tensor) -> Tensor:
        """The picture of features [1, C, H', W'], computed in tiles: [3, H, W] as the content."""
        stride = self.decoder.stride
        side = None if self.tile is None else self.tile // stride
        output = torch.empty_like(content)
        for part in plan_tiles(x.shape[2], x.shape[3], side, [Field(1, self.decoder.halo)]):
            y = self.decoder(part.cut(x))[0].clamp(0, 1)
            top, left, bottom, right = (stride * edge for edge in part.core)
            place = output[:, top:bottom, left:right]
            top, left = top - stride * part.outer[0], left - stride * part.outer[1]
            place.copy_(y[:, top : top + place.shape[1], left : left + place.shape[2]])
        return output


def normalized(content: Tensor, style: Tensor, convention: str = "pytorch", style_mask: Tensor | None = None) -> Tensor:
    """Features [N, C, H, W] of a content with the mean and standard deviation of a style's [N or 1, C, H', W'].

    Args:
        style_mask: how much each of the style's positions counts, [N or 1, 1, H', W'] >= 0; None: all the same.

    Raises:
        ValueError: an unknown convention; what :func:`imgops.adain` raises.

    >>> normalized(torch.randn(2, 8, 6, 6), torch.randn(1, 8, 9, 5), "lua").shape
    torch.Size([2, 8, 6, 6])
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention must be one of {', '.join(CONVENTIONS)}; got {convention!r}")
    if convention == "pytorch" and style_mask is None:
        return adain(content, style)
    variance, mean = _moments(style, style_mask)
    if convention == "lua":
        return adaptive_instance_norm(content, variance.sqrt() - 1, mean, eps=_EPS)
    # this convention takes the content's variance unbiased, unlike the op
    n = content.shape[2] * content.shape[3]
    biased = (n - 1) / n
    scale = ((variance + _EPS) * biased).sqrt()
    return adaptive_instance_norm(content, scale - 1, mean, eps=_EPS * biased)


def matched(content: Tensor, style: Tensor, style_mask: Tensor | None = None) -> Tensor:
    """Features [1, C, H, W] of a content with the values of a style's [1, C, H', W'] by rank; see :func:`imgops.efdm`.

    Args:
        style_mask: how much each of the style's positions counts, [1, 1, H', W'] >= 0 and not 0 all over; None: all
            the same.

    >>> matched(torch.randn(1, 8, 6, 6), torch.randn(1, 8, 9, 5)).shape
    torch.Size([1, 8, 6, 6])
    """
    if style_mask is None:
        return efdm(content, style)
    pixels = content.shape[2] * content.shape[3]
    places = (torch.arange(pixels, device=style.device, dtype=torch.float64) + 0.5)[None] / pixels
    return efdm(content, sort_by_weight(style[0].flatten(1), style_mask.flatten()).at(places)[None, :, None])


def _moments(y: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Unbiased variance and mean [N, C] of features, each position counted as much as a mask says."""
    if mask is None:
        return torch.var_mean(y, (2, 3))
    total = mask.sum((2, 3), keepdim=True)
    mean = (y * mask).sum((2, 3), keepdim=True) / total
    # if all positions count 1, this is their number less 1
    degrees = total - mask.square().sum((2, 3), keepdim=True) / total
    variance = ((y - mean).square() * mask).sum((2, 3), keepdim=True) / degrees.clamp(min=1e-6)
    return variance[..., 0, 0], mean[..., 0, 0]


def check_sides(content: Sequence[int], styles: Sequence[Sequence[int]], decoder: AdaINDecoder) -> None:
    """Raise ValueError unless there are styles, and all are RGB pictures of the least size that the decoder takes."""
    least = max(MINIMUM, 2 * decoder.stride)
    if len(styles) == 0:
        raise ValueError("stylize_adain: styles must have one picture at least")
    for name, shape in [("content", content), *((f"style {i}", style) for i, style in enumerate(styles, 1))]:
        if len(shape) != 3 or shape[0] != 3 or min(shape[1:]) < least:
            raise ValueError(
                f"stylize_adain: the {name} must be RGB [3, H, W] of at least {least} x {least} pixels; "
                f"got {tuple(shape)}"
            )


def _check(
    content: Tensor,
    styles: Sequence[Tensor],
    alpha: float,
    weights: Sequence[float] | None,
    masks: Sequence[Tensor] | None,
) -> None:
    if not 0 <= alpha <= 1:
        raise ValueError(f"stylize_adain: alpha must be 0 to 1; got {alpha}")
    if weights is not None and (len(weights) != len(styles) or min(weights) < 0 or not 0 < sum(weights) < float("inf")):
        raise ValueError(f"stylize_adain: weights must be {len(styles)} numbers >= 0, not all 0; got {list(weights)}")
    if masks is not None:
        if len(masks) != len(styles):
            raise ValueError(f"stylize_adain: masks must be one for each of {len(styles)} styles; got {len(masks)}")
        for i, mask in enumerate(masks, 1):
            if mask.shape != (1, *content.shape[1:]):
                raise ValueError(
                    f"stylize_adain: mask {i} must be {(1, *content.shape[1:])} as the content is; "
                    f"got {tuple(mask.shape)}"
                )
            if not (mask.min() >= 0 and mask.max() <= 1):
                raise ValueError(f"stylize_adain: mask {i} must be in [0, 1]")


def _check_parts(styles: Sequence[Tensor], parts: Sequence[Tensor | None]) -> None:
    if len(parts) != len(styles):
        raise ValueError(f"stylize_adain: style_masks must be one for each of {len(styles)} styles; got {len(parts)}")
    for i, (style, part) in enumerate(zip(styles, parts, strict=True), 1):
        if part is not None and (part.shape != (1, *style.shape[1:]) or not (part.min() >= 0 and part.max() > 0)):
            raise ValueError(
                f"stylize_adain: style mask {i} must be {(1, *style.shape[1:])} as the style is, >= 0 and not 0 all "
                f"over; got {tuple(part.shape)}, {part.min():g} to {part.max():g}"
            )


def _keeps_the_last_row(features: Features, decoder: AdaINDecoder) -> bool:
    """Whether the encoder's pools round up; raises unless the encoder fits the decoder.

    Raises:
        ValueError: it does not.
    """
    side = 2 * decoder.stride + 1
    taken = next(features.network.parameters(), next(decoder.parameters()))
    probe = features(taken.new_zeros(1, 3, side, side))[decoder.layer]
    channels = decoder.widths[-1]
    if probe.shape[1] != channels or probe.shape[2] not in (2, 3):
        raise ValueError(
            f"stylize_adain: the encoder has {probe.shape[1]} channels at {decoder.layer}, at {side} pixels "
            f"{probe.shape[2]} per side; the decoder takes {channels}, and 2 or 3; give the decoder of this encoder"
        )
    return bool(probe.shape[2] == 3)


def _shares(
    x: Tensor, count: int, weights: Sequence[float] | None, masks: Sequence[Tensor] | None, stride: int
) -> list[Tensor]:
    """The share of each style in each feature: [1, 1, H, W] or scalars, which add up to at most 1."""
    factors = [x.new_tensor(weight) for weight in weights or [1.0] * count]
    total = sum(factors, x.new_zeros(()))
    if masks is None:
        return [factor / total for factor in factors]
    areas = [_at_features(mask, x, stride) for mask in masks]
    covered = sum(areas, x.new_zeros(())).clamp(max=1)
    weighted = [factor * area for factor, area in zip(factors, areas, strict=True)]
    total = sum(weighted, x.new_zeros(())).clamp(min=torch.finfo(x.dtype).tiny)
    return [covered * part / total for part in weighted]


def _at_features(mask: Tensor, x: Tensor, stride: int) -> Tensor:
    """A mask [1, H, W] for features: the mean over each feature's own pixels, [1, 1, ceil(H / stride), ...]."""
    return F.avg_pool2d(mask[None].to(x), stride, ceil_mode=True, count_include_pad=False)
