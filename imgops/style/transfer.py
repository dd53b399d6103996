"""The three methods of style transfer behind one call, with their networks loaded once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from .._memory import OutOfMemory, naming_remedy
from ..data.pictures import resize_picture, resized_shape
from ..data.pictures.colors import is_gray, keep_colors, keep_luma
from ..data.pictures.formats import picture_suffixes
from ..data.pictures.samples import PREFIX
from ..models.encoders.weights import load_encoder
from ..models.style.adain_decoder import AdaINDecoder
from ..models.style.transform_net import TransformNet
from ..models.style.weights import fast_styles, load_adain_decoder, load_transform_net
from .adain import stylize_adain
from .fast import stylize_fast
from .objective import Objective, resize_to, resized
from .optimization import Mix, Progress, check_pictures, check_size_of, least_size, optimized, ratio_of, style_size
from .planning import check_room, check_room_in_one_pass, choose_tile, memory_of, work_of
from .settings import DEFAULT_SIZE, OptimizeSettings, TransferSettings

#: what helps where memory runs out
_REMEDIES = {
    "optimize": "give --memory or --tile, which make tiles, or a smaller --size",
    "adain": "give --memory, which makes tiles, or a smaller --size",
    "fast": "give a smaller --size; this method has no tiles",
}
#: the longer side, at most, of the steps that tell the time
PROBE_SIZE = 256
#: pixels a side of the tiles of AdaIN, where memory is limited
ADAIN_TILE = 1024


class Transfer:
    """A method, ready: its networks are loaded, and pictures go in and out.

    Args:
        settings: which method, and with what.
        networks: of the method "fast" the networks of the styles, each a file or the name of a style whose network
            ships with the package.

    Raises:
        OSError, ValueError: weights that cannot be read or do not fit.
    """

    def __init__(self, settings: TransferSettings, networks: Sequence[str] = ()) -> None:
        self.settings = settings
        self.encoder: nn.Module | None = None
        self.decoder: AdaINDecoder | None = None
        self.networks: list[TransformNet] = []
        if settings.method == "fast":
            self.networks = [load_style_network(name).to(settings.device) for name in networks]
            return
        pooling, padding = ("average", "replicate") if settings.method == "optimize" else (None, None)
        self.encoder = load_encoder(
            settings.weights,
            pooling=settings.pooling or pooling,
            padding_mode=settings.padding_mode or padding,
            preprocessing=settings.preprocessing,
            frame=False,
        )
        self.encoder.to(settings.device)
        if settings.method == "adain":
            self.decoder = load_adain_decoder(settings.decoder).to(settings.device)

    def size_of(self, content: Tensor) -> int:
        """The longer side of the result for a content [3, H, W]; one that is too small is enlarged, unless a size is
        set.

        Raises:
            ValueError: the settings' size would make a line of it.
        """
        if self.settings.size is not None:
            return check_size_of(content, self.settings.size)
        return max(min(max(content.shape[1:]), DEFAULT_SIZE), least_size(content))

    def plan(self, content: Tensor, styles: Sequence[Tensor]) -> tuple[OptimizeSettings, float, float]:
        """For the method "optimize": its settings for a content, tiles chosen, and the bytes and seconds that it will
        take, estimated from two small steps.

        Raises:
            ValueError: it does not fit into the memory, that of the settings or that there is; what
                :class:`~imgops.style.objective.Objective` raises.
        """
        check_pictures(content, styles, self.settings.style_weights, named="style_weights")
        settings = self._optimize_settings(content)
        if self.encoder is None:
            raise ValueError("style: there is a plan of the method optimize alone")
        height, width = resized_shape(content, settings.size)
        check_room(self.encoder, settings, height, width)
        scales = settings.scales(ratio_of(content))
        small = resize_picture(content, min(scales[0][0], max(PROBE_SIZE, least_size(content)))).to(
            self.settings.device
        )
        objective = Objective(self.encoder, dataclasses.replace(settings, tile=None), small)
        objective.set_styles(
            [resize_picture(style, style_size(style, max(small.shape[1:]), settings)).to(small) for style in styles],
            [1.0] * len(styles),
        )
        times = []
        for _ in range(2):
            start = time.perf_counter()
            objective.gradient(small)
            times.append(time.perf_counter() - start)
        work = sum((steps + 1) * work_of(self.encoder, settings, height, width, size) for size, steps in scales)
        seconds = min(times) * work / (small.shape[1] * small.shape[2])
        return settings, memory_of(self.encoder, settings, height, width), seconds

    def _optimize_settings(self, content: Tensor) -> OptimizeSettings:
        settings = dataclasses.replace(self.settings.optimize, size=self.size_of(content))
        if self.settings.memory is None or self.encoder is None:
            return settings
        tile = choose_tile(self.encoder, settings, *resized_shape(content, settings.size), self.settings.memory)
        return settings if tile is None else dataclasses.replace(settings, tile=min(tile, settings.tile or tile))

    def __call__(
        self,
        content: Tensor,
        styles: Sequence[Tensor],
        *,
        masks: Sequence[Tensor] | None = None,
        style_masks: Sequence[Tensor | None] | None = None,
        alpha: Tensor | None = None,
        init: Tensor | None = None,
        on_step: Callable[[Progress], object] | None = None,
    ) -> Tensor:
        """The content in the styles.

        Args:
            content: [3, H, W], RGB in [0, 1].
            styles: pictures like it, of any size; of the method "fast" none: its networks are the styles.
            masks: for each style where it goes, [1, H', W'] in [0, 1]; what they leave stays as it is.
            style_masks: for each style how much its pixels count, [1, H', W'] in [0, 1], or None for all; such as its
                alpha, whose hidden pixels :func:`~imgops.data.fill_hidden` has filled. Not of the method "fast".
            alpha: [1, H, W] in [0, 1], how much each pixel of the content counts for the colours that are kept; None,
                all the same.
            init, on_step: of the method "optimize", see :func:`~imgops.style.optimization.optimize`.

        Returns:
            [3, H'', W''] in [0, 1] on the CPU.

        Raises:
            OutOfMemory: memory ran out; its ``picture`` is what the method "optimize" had finished until then.
            TypeError, ValueError: pictures, masks or weights that do not fit.
        """
        with naming_remedy(_REMEDIES[self.settings.method]):
            return self._made(content, styles, masks, style_masks, alpha, init, on_step)

    def _made(
        self,
        content: Tensor,
        styles: Sequence[Tensor],
        masks: Sequence[Tensor] | None,
        style_masks: Sequence[Tensor | None] | None,
        alpha: Tensor | None,
        init: Tensor | None,
        on_step: Callable[[Progress], object] | None,
    ) -> Tensor:
        settings = self.settings
        count = len(self.networks) if settings.method == "fast" else len(styles)
        check_pictures(
            content, styles or [content] * count, settings.style_weights, masks, style_masks, named="style_weights"
        )
        if settings.method == "fast" and styles:
            raise ValueError("style: the method fast takes no styles, but networks")
        if style_masks is not None and settings.method == "fast":
            raise ValueError("style: the method fast takes no style_masks, as its networks are the styles")
        size = self.size_of(content)
        self._check_room(content, size)
        small = resize_picture(content, size)
        shown = None if alpha is None or not alpha.any() else resized(alpha.clamp(0, 1), small)
        parts = [
            None if part is None else resized(part, style).clamp(0, 1)
            for part, style in zip(style_masks or [None] * len(styles), styles, strict=True)
        ]
        # colours are matched before the transfer where there is a style picture to match
        before = settings.keep_colors in ("coral", "histogram") and settings.method != "fast"
        if settings.keep_colors is not None and before:
            styles = [
                keep_colors(style, small, settings.keep_colors, part, shown)
                for style, part in zip(styles, parts, strict=True)
            ]
        device = torch.device(settings.device)
        moved = [style.to(device) for style in styles]
        region: Tensor | None = None
        if masks is not None:
            masks = [resize_to(mask.to(small), small).clamp(0, 1).to(device) for mask in masks]
            total = torch.stack(list(masks)).sum(0)
            region = total.clamp(max=1).cpu()
            if settings.method == "adain":
                # within the region all of it is styled; the pixels are blended once, at the end
                masks = [mask / total.clamp(min=1e-6) for mask in masks]
        x = small.to(device)
        if settings.method == "fast":
            result = self._fast(x, masks)
        elif self.encoder is None:
            raise ValueError("style: the networks are not loaded")
        elif self.decoder is not None:
            result = self._adain(self.encoder, self.decoder, x, moved, masks, parts)
        else:
            mix = Mix(settings.style_weights or [1.0] * len(styles), masks, parts)
            try:
                result = optimized(
                    content.to(device), moved, self.encoder, self._optimize_settings(content), mix, init, on_step
                )
            except OutOfMemory as error:
                if error.picture is not None:
                    error.picture = self._finished(error.picture, content, shown)
                raise
        result = self._finished(result, content, shown)
        if region is None or settings.method == "optimize":
            return result
        return region * result + (1 - region) * small

    def _check_room(self, content: Tensor, size: int) -> None:
        height, width = resized_shape(content, size)
        if self.encoder is not None and self.decoder is None:
            check_room(self.encoder, self._optimize_settings(content), height, width)
            return
        tile = ADAIN_TILE if self.decoder is not None and self.settings.memory is not None else None
        channels = self.decoder.widths[0] if self.decoder is not None else max(n.widths[0] for n in self.networks)
        check_room_in_one_pass(height, width, channels, tile, torch.device(self.settings.device))

    def _finished(self, result: Tensor, content: Tensor, shown: Tensor | None) -> Tensor:
        """A result, which may be smaller than it was to be, on the CPU and in the colours that it is to keep."""
        result, kept = result.float().clamp(0, 1).cpu(), self.settings.keep_colors
        if kept is None:
            return result
        small = resize_to(content.to(result), result)
        shown = None if shown is None else resized(shown, result)
        if kept == "luma" or self.settings.method == "fast":
            result = keep_colors(result, small, kept, shown, shown)
        # statistics of a network let some colour into grey
        return keep_luma(result, small) if is_gray(small) else result

    def _adain(
        self,
        encoder: nn.Module,
        decoder: AdaINDecoder,
        content: Tensor,
        styles: Sequence[Tensor],
        masks: Sequence[Tensor] | None,
        parts: Sequence[Tensor | None],
    ) -> Tensor:
        settings, size = self.settings, max(content.shape[1:])
        small = [resize_picture(style, style_size(style, size, settings.optimize)) for style in styles]
        return stylize_adain(
            content,
            small,
            encoder,
            decoder,
            alpha=settings.alpha,
            weights=settings.style_weights,
            masks=masks,
            style_masks=[
                None if part is None else resized(part.to(content.device), style).clamp(0, 1)
                for part, style in zip(parts, small, strict=True)
            ],
            convention=settings.convention,
            tile=None if settings.memory is None else ADAIN_TILE,
        )

    def _fast(self, content: Tensor, masks: Sequence[Tensor] | None) -> Tensor:
        """The mean of the networks' pictures, each weighted where its mask says."""
        weights = self.settings.style_weights or (1.0,) * len(self.networks)
        shares = [torch.full_like(content[:1], weight) for weight in weights]
        if masks is not None:
            # where there is no mask all count, too, for the colours of the whole
            shares = [share * (mask + 1e-6) for share, mask in zip(shares, masks, strict=True)]
        whole = torch.stack(shares).sum(0)
        result = torch.zeros_like(content)
        for network, share in zip(self.networks, shares, strict=True):
            result += share / whole * stylize_fast(content, network).clamp(0, 1)
        return result


def load_style_network(name: str) -> TransformNet:
    """The network of a style for the method "fast": a file, or a style whose network ships with the package, with or
    without ``samples:`` before its name.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such network, or a picture, whose network must be trained first.
    """
    plain = name.removeprefix(PREFIX)
    if plain in fast_styles():
        return load_transform_net(plain)
    if names_picture(name):
        raise ValueError(
            f"{name}: the method fast takes the network of a style; make it: imgops style train-fast {name} "
            f"--data FOLDER --out {Path(plain).stem}.safetensors (there are: {', '.join(fast_styles()) or 'none'})"
        )
    return load_transform_net(name)


def names_picture(name: str) -> bool:
    """Whether a style's name is a picture's, and none of a network that ships with the package."""
    if name.removeprefix(PREFIX) in fast_styles():
        return False
    return name.startswith(PREFIX) or Path(name).suffix.lower() in picture_suffixes()
