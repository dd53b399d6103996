"""Styles and masks that were checked and made ready once, for one content or all frames of a video."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._memory import OutOfMemory, naming_remedy
from ..data.pictures import resample_picture, resize_picture, resized_shape
from ..data.pictures.colors import is_gray, keep_colors, keep_luma
from .adain import AdaINPass, StyleFeatures, check_sides
from .fast import stylize_fast
from .nnst import neighbored
from .nnst_settings import NNSTSettings
from .objective import Objective, resize_to, resized
from .optimization import Mix, Progress, check_pictures, least_size, optimized, ratio_of, style_size
from .planning import check_room, check_room_in_one_pass, memory_of, work_of
from .settings import OptimizeSettings

if TYPE_CHECKING:
    from .transfer import Transfer

#: what helps where memory runs out
REMEDIES = {
    "optimize": "give --memory or --tile, which make tiles, or a smaller --size",
    "nnst": "give --memory or --tile, which make tiles, or a smaller --size",
    "adain": "give --memory, which makes tiles, or a smaller --size",
    "fast": "give a smaller --size; this method has no tiles",
}
#: the methods that make a picture step by step, by gradient descent
DESCENDING = ("optimize", "nnst")
#: the longer side, at most, of the steps that tell the time
PROBE_SIZE = 256
#: pixels per side of the tiles of AdaIN, where memory is limited
ADAIN_TILE = 1024


class PreparedTransfer:
    """A transfer in certain styles, for contents of one shape; made by :meth:`imgops.style.Transfer.prepare`.

    Args:
        transfer, content, styles, masks, style_masks: as a call of a transfer takes them; of the content the shape and
            dtype count.

    Attributes:
        shape: of the contents, [3, H, W].
        size: longer side of the results in pixels.
        optimize: settings of the method "optimize", its tiles chosen; with "nnst" the layers are its own.

    Raises:
        TypeError, ValueError: pictures, masks or weights that do not fit.
    """

    def __init__(
        self,
        transfer: Transfer,
        content: Tensor,
        styles: Sequence[Tensor],
        masks: Sequence[Tensor] | None,
        style_masks: Sequence[Tensor | None] | None,
    ) -> None:
        settings = transfer.settings
        fast = settings.method == "fast"
        count = len(transfer.networks) if fast else len(styles)
        check_pictures(
            content, styles or [content] * count, settings.style_weights, masks, style_masks, named="style_weights"
        )
        if fast and styles:
            raise ValueError("style: the method fast takes no styles, but networks")
        if fast and style_masks is not None:
            raise ValueError("style: the method fast takes no style_masks, as its networks are the styles")
        self.transfer, self.settings, self.styles = transfer, settings, styles
        self.device = torch.device(settings.device)
        self.shape, self.size = content.shape, transfer.size_of(content)
        height, width = resized_shape(content, self.size)
        self._result = torch.Size([3, height, width])
        self.optimize = self._planned(content, height, width)
        #: how much each pixel of a style counts, at the style's size
        self._parts = [
            None if part is None else resized(part, style).clamp(0, 1)
            for part, style in zip(style_masks or [None] * len(styles), styles, strict=True)
        ]
        #: where each style goes in the result, and where any does
        self._masks: list[Tensor] | None = None
        self._region: Tensor | None = None
        if masks is not None:
            resized_masks = [resample_picture(mask.to(content), height, width).clamp(0, 1) for mask in masks]
            self._masks = [mask.to(self.device) for mask in resized_masks]
            total = torch.stack(self._masks).sum(0)
            self._region = total.clamp(max=1).cpu()
            if settings.method == "adain":
                # within the region all of it is styled; the pixels are blended once, at the end
                self._masks = [mask / total.clamp(min=1e-6) for mask in self._masks]
        #: whether the styles take a content's colors before the transfer
        self._matched = settings.keep_colors in ("coral", "histogram") and not fast
        self._adain: AdaINPass | None = None
        self._encoded: list[StyleFeatures] = []
        if transfer.encoder is not None and transfer.decoder is not None:
            tile = None if settings.memory is None else ADAIN_TILE
            self._adain = AdaINPass(transfer.encoder, transfer.decoder, tile)
            if not self._matched:
                self._encoded = self._encode(self._adain, styles)

    def __call__(
        self,
        content: Tensor,
        *,
        alpha: Tensor | None = None,
        init: Tensor | None = None,
        on_step: Callable[[Progress], object] | None = None,
    ) -> Tensor:
        """A content of the shape in the styles; see a call of :class:`~imgops.style.Transfer`.

        Raises:
            OutOfMemory, ValueError: as that call, when it runs; the content itself is not checked again.
        """
        with naming_remedy(REMEDIES[self.settings.method]):
            small = resize_picture(content, self.size)
            shown = None if alpha is None or not alpha.any() else resized(alpha.clamp(0, 1), small)
            styles = self.styles
            if self._matched and self.settings.keep_colors is not None:
                styles = [
                    keep_colors(style, small, self.settings.keep_colors, part, shown)
                    for style, part in zip(styles, self._parts, strict=True)
                ]
            if self.settings.method in DESCENDING:
                return self._optimized(content, styles, shown, init, on_step)
            x = small.to(self.device)
            if self._adain is None:
                result = self._fast(x)
            else:
                encoded = self._encode(self._adain, styles) if self._matched else self._encoded
                weights, masks = self.settings.style_weights, self._masks
                settings = self.settings
                result = self._adain(
                    x, encoded, settings.alpha, weights, masks, settings.convention, settings.statistics
                )
            result = self._finished(result, content, shown)
            return result if self._region is None else self._region * result + (1 - self._region) * small

    def plan(self, content: Tensor) -> tuple[OptimizeSettings, float, float]:
        """What :meth:`imgops.style.Transfer.plan` says of a content of the shape."""
        encoder, settings = self.transfer.encoder, self.optimize
        if encoder is None:
            raise ValueError("style: the networks are not loaded")
        height, width = resized_shape(content, self.size)
        scales = self.scales(content)
        side = min(scales[0][0], max(PROBE_SIZE, least_size(content)))
        small = resize_picture(content, side).to(self.device)
        objective = Objective(encoder, dataclasses.replace(settings, tile=None), small)
        objective.set_styles(
            [resize_picture(s, style_size(s, max(small.shape[1:]), settings)).to(small) for s in self.styles],
            [1.0] * len(self.styles),
        )
        times = []
        for _ in range(2):
            start = time.perf_counter()
            objective.gradient(small)
            times.append(time.perf_counter() - start)
        work = sum((steps + 1) * work_of(encoder, settings, height, width, size) for size, steps in scales)
        seconds = min(times) * work / (small.shape[1] * small.shape[2])
        return settings, memory_of(encoder, settings, height, width, self.transfer.kept), seconds

    def scales(self, content: Tensor) -> list[tuple[int, int]]:
        """(longer side, steps) of each round of the methods "optimize" and "nnst" for a content."""
        settings = self.nnst if self.settings.method == "nnst" else self.optimize
        return settings.scales(ratio_of(content))

    @property
    def nnst(self) -> NNSTSettings:
        """Settings of the method "nnst", its tiles chosen."""
        same = {name: getattr(self.optimize, name) for name in ("size", "tile", "style_scale", "frame_steps")}
        return dataclasses.replace(self.settings.nnst, **same)

    def _planned(self, content: Tensor, height: int, width: int) -> OptimizeSettings:
        """The settings of the method "optimize", its tiles chosen; ValueError if any method lacks the memory."""
        encoder, decoder = self.transfer.encoder, self.transfer.decoder
        if encoder is not None and decoder is None:
            settings = self.transfer.optimize_settings(content)
            check_room(encoder, settings, height, width, self.transfer.kept)
            return settings
        tile = ADAIN_TILE if decoder is not None and self.settings.memory is not None else None
        channels = max(n.widths[0] for n in self.transfer.networks) if decoder is None else decoder.widths[0]
        check_room_in_one_pass(height, width, channels, tile, self.device)
        return self.settings.optimize

    def _optimized(
        self,
        content: Tensor,
        styles: Sequence[Tensor],
        shown: Tensor | None,
        init: Tensor | None,
        on_step: Callable[[Progress], object] | None,
    ) -> Tensor:
        if self.transfer.encoder is None:
            raise ValueError("style: the networks are not loaded")
        moved = [style.to(self.device) for style in styles]
        mix = Mix(self.settings.style_weights or [1.0] * len(styles), self._masks, self._parts)
        x, encoder = content.to(self.device), self.transfer.encoder
        try:
            if self.settings.method == "nnst":
                result = neighbored(x, moved, encoder, self.nnst, mix, init, on_step)
            else:
                result = optimized(x, moved, encoder, self.optimize, mix, init, on_step)
        except OutOfMemory as error:
            if error.picture is not None:
                error.picture = self._finished(error.picture, content, shown)
            raise
        return self._finished(result, content, shown)

    def _encode(self, adain: AdaINPass, styles: Sequence[Tensor]) -> list[StyleFeatures]:
        """Features of the styles at the size that AdaIN sees them in."""
        moved = [style.to(self.device) for style in styles]
        small = [resize_picture(style, style_size(style, self.size, self.settings.optimize)) for style in moved]
        check_sides(self._result, [style.shape for style in small], adain.decoder)
        return [
            adain.encode_style(style, None if part is None else resized(part.to(self.device), style).clamp(0, 1))
            for style, part in zip(small, self._parts, strict=True)
        ]

    def _fast(self, content: Tensor) -> Tensor:
        """The mean of the networks' pictures, each weighted where its mask says."""
        networks = self.transfer.networks
        weights = self.settings.style_weights or (1.0,) * len(networks)
        shares = [torch.full_like(content[:1], weight) for weight in weights]
        if self._masks is not None:
            # where there is no mask all count, too, for the colors of the whole
            shares = [share * (mask + 1e-6) for share, mask in zip(shares, self._masks, strict=True)]
        whole = torch.stack(shares).sum(0)
        result = torch.zeros_like(content)
        for network, share in zip(networks, shares, strict=True):
            result += share / whole * stylize_fast(content, network).clamp(0, 1)
        return result

    def _finished(self, result: Tensor, content: Tensor, shown: Tensor | None) -> Tensor:
        """A result, which may be smaller than it was to be, on the CPU, in the colors that it is to keep, and laid over
        the content."""
        result = result.float().clamp(0, 1).cpu()
        small = resize_to(content.to(result), result)
        if self.settings.keep_colors is not None:
            result = self._recolored(result, small, None if shown is None else resized(shown, result))
        # at 1 the result itself, not a rounded sum
        return result if self.settings.strength == 1 else torch.lerp(small, result, self.settings.strength)

    def _recolored(self, result: Tensor, small: Tensor, shown: Tensor | None) -> Tensor:
        """The result in the colors of the content at its size."""
        kept = self.settings.keep_colors
        if kept == "luma" or (kept is not None and self.settings.method == "fast"):
            result = keep_colors(result, small, kept, shown, shown)
        # statistics of a network let some color into gray
        return keep_luma(result, small) if is_gray(small) else result
