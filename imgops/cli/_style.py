"""The work of ``imgops style``."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from .._device import choose_device
from .._interrupts import interruptible
from .._memory import OutOfMemory
from ..data.pictures import Picture, fill_hidden, resize_picture, write_picture
from ..data.pictures.colors import is_gray
from ..data.pictures.formats import picture_suffixes
from ..data.stills import read_still
from ..data.video import is_video, probe_video
from ..style.objective import resized
from ..style.optimization import Progress, style_size
from ..style.pictures import read_style
from ..style.prepared import DESCENDING, PreparedTransfer
from ..style.settings import OptimizeSettings, TransferSettings
from ..style.transfer import Transfer
from ..style.video import stylize_frames
from . import _batch as batch
from ._pictures import Reporter, check_results, peak_memory
from ._quiet import say
from ._video import Video, make_video, timed_frames
from .style import Job

#: endings of files that hold the network of a style
_NETWORKS = (".safetensors", ".pth", ".pt", ".model")
#: colors of a mask that differ by no more count as equal; a mask that is never brighter than this counts as black
_SAME, _FAINT = 0.02, 0.1


def run(job: Job) -> None:
    """Make the pictures and videos of a job, and say where they are.

    Raises:
        OSError, ValueError, ImportError: what cannot be read, written, or does not fit. Of several contents the others
            are made first.
    """
    settings = dataclasses.replace(job.settings, device=choose_device(job.device))
    fast = settings.method == "fast"
    if job.style_masks and fast:
        raise ValueError(
            "--style-mask is for the methods optimize, nnst and adain; the networks of fast are whole styles"
        )
    contents = batch.find_files(job.content)
    choices = _style_choices(job.styles, _NETWORKS if fast else picture_suffixes())
    for option, names in (("--mask", job.masks), ("--style-mask", job.style_masks)):
        if names and len(names) != len(choices[0]):
            raise ValueError(f"{option} must be given once for each of the {len(choices[0])} styles; got {len(names)}")
    contents = batch.without_results(contents, lambda files: _outputs(job, files, choices, here=True))
    outputs = _outputs(job, contents, choices)
    check_results(outputs, job.preview, [*contents, *itertools.chain(*choices), *job.masks, *job.style_masks])
    shared = None if fast else Transfer(settings)
    with interruptible() as stopped:
        works = _works(job, settings, shared, contents, choices, outputs, stopped)
        named = ((work.name(len(choices) > 1), work.make) for work in works)
        batch.make_each(named, len(outputs), stopped)


def _works(
    job: Job,
    settings: TransferSettings,
    shared: Transfer | None,
    contents: Sequence[str],
    choices: Sequence[tuple[str, ...]],
    outputs: Sequence[Path],
    stopped: Callable[[], bool],
) -> Iterator[_Work]:
    """The works, one at a time. Those in the same styles share networks and pictures."""
    paths = iter(outputs)
    for names in choices:
        choice = _Choice(settings, names, shared)
        for content in contents:
            yield _Work(job, settings, choice, content, next(paths), stopped)


class _Choice:
    """The styles that are mixed in a result, loaded on first use."""

    def __init__(self, settings: TransferSettings, names: Sequence[str], shared: Transfer | None) -> None:
        self.settings, self.names, self.shared = settings, names, shared

    @functools.cached_property
    def transfer(self) -> Transfer:
        """The transfer; with the method "fast" its networks are the styles."""
        return self.shared or Transfer(self.settings, self.names)

    @functools.cached_property
    def styles(self) -> list[Picture]:
        """The pictures of the styles; none with the method "fast"."""
        return [] if self.settings.method == "fast" else [read_style(name) for name in self.names]


class _Work:
    """One content in one choice of styles."""

    def __init__(
        self,
        job: Job,
        settings: TransferSettings,
        choice: _Choice,
        content: str,
        out: Path,
        stopped: Callable[[], bool],
    ) -> None:
        self.job, self.settings, self.choice, self.stopped = job, settings, choice, stopped
        self.content, self.out = content, out

    def name(self, of_several: bool) -> str:
        """The name that a failure is told by: the content, with its styles where there are several choices of them."""
        return f"{self.content} in the style of {', '.join(self.choice.names)}" if of_several else self.content

    def make(self) -> None:
        """Make a video, if the result is one, or else a picture."""
        self.transfer, self.names = self.choice.transfer, self.choice.names
        self.styles, self.alphas = [p.pixels for p in self.choice.styles], [p.alpha for p in self.choice.styles]
        self.video() if is_video(self.out) else self.picture()

    def picture(self) -> None:
        """Make a picture of a picture; Ctrl-C ends it as it is then."""
        picture = read_still(self.content)
        size = self._size(picture.pixels)
        masks, style_masks = self._masks(picture.pixels)
        # a large picture is kept no larger than it is used
        pixels = _at_most(fill_hidden(picture.pixels, picture.alpha), size)
        styles = [self._shrunk(style, size) for style in self.styles]
        start, failure, alpha = time.monotonic(), None, picture.alpha
        prepared = self.transfer.prepare(pixels, styles, masks, style_masks)
        plan = self._announce(prepared, pixels) if self.settings.method in DESCENDING else None
        seen = None if alpha is None else _at_most(alpha, size)
        del picture
        with Reporter(Path(self.content).name, self.job.preview) as reporter:
            try:
                result = prepared(pixels, alpha=seen, on_step=self._tell(reporter))
            except OutOfMemory as error:
                if error.picture is None:
                    raise
                result, failure = error.picture, error
            if self.settings.keep_colors is not None and is_gray(result):
                result = result[:1]
            reporter.finish(result)
        alpha = None if alpha is None else resize_picture(alpha, max(result.shape[1:]))
        write_picture(self.out, result, alpha=alpha, settings=self._record(size, plan), quality=self.job.quality)
        how = "stopped, " if self.stopped() else ""
        say(f"{self.out}: {_dimensions(result)} pixels, {how}{time.monotonic() - start:.0f} s, {peak_memory()}")
        if failure is not None:
            raise ValueError(f"{self.out} is of {_dimensions(result)} pixels only: at the next size {failure}")

    def video(self) -> None:
        """Make a video of a video, whose sound is kept; Ctrl-C ends it after the frame that is being made."""
        info = probe_video(self.content)
        sound = self.content if info.has_audio and self.out.suffix.lower() != ".gif" else None
        start = time.monotonic()
        shape = torch.empty(3, info.height, info.width)
        size = self._size(shape)
        weights = [self.settings.weights, self.settings.decoder]
        files = [self.content, *self.names, *self.job.masks, *self.job.style_masks, *weights]
        video = Video(self.out, info.fps, info.time_base, sound, self._record(size, None), files, info.frames)
        styles = [self._shrunk(style, size) for style in self.styles]
        masks, style_masks = self._masks(shape)

        def results(frames: Iterator[Tensor], before: tuple[Tensor, Tensor] | None) -> Iterator[Tensor]:
            return stylize_frames(frames, self.transfer, styles, masks=masks, style_masks=style_masks, before=before)

        with Reporter(Path(self.content).name, self.job.preview) as reporter:
            made = make_video(video, lambda kept: timed_frames(self.content, kept, results), reporter, self.stopped)
        say(f"{self.out}: {made}, {time.monotonic() - start:.0f} s, {peak_memory()}")

    def _size(self, content: Tensor) -> int:
        """The longer side of the result. A warning says where it is larger than the content without a --size."""
        size, (height, width) = self.transfer.size_of(content), content.shape[1:]
        if self.settings.size is None and size > max(height, width):
            warnings.warn(
                f"{self.content} is {width} x {height} pixels: enlarged to a size of {size}, as no side may be shorter "
                "than 16",
                stacklevel=1,
            )
        return size

    def _shrunk(self, style: Tensor, size: int) -> Tensor:
        return _at_most(style, style_size(style, size, self.settings.optimize))

    def _masks(self, content: Tensor) -> tuple[list[Tensor] | None, list[Tensor | None] | None]:
        """The masks of the content, and those of the styles together with their alphas."""
        masks = [read_mask(name, content, self.content) for name in self.job.masks]
        parts = list(self.alphas)
        for i, name in enumerate(self.job.style_masks):
            part, alpha = read_mask(name, self.styles[i], self.names[i]), self.alphas[i]
            parts[i] = part if alpha is None else resized(part, alpha) * alpha
            if not parts[i].any():  # type: ignore[union-attr]
                raise ValueError(f"{name}: leaves nothing of what {self.names[i]} shows")
        return masks or None, None if all(part is None for part in parts) else parts

    def _tell(self, reporter: Reporter) -> Callable[[Progress], bool]:
        def tell(progress: Progress) -> bool:
            losses = ", ".join(f"{name} {value:.3g}" for name, value in progress.losses.items())
            reporter.update(progress.share, progress.picture, f"{progress.size} px, {losses}")
            return self.stopped()

        return tell

    def _announce(self, prepared: PreparedTransfer, content: Tensor) -> OptimizeSettings:
        """Print the estimate of memory and time before the work; return the settings, with the tiles chosen."""
        settings, memory, seconds = prepared.plan(content)
        memory += sum(style.nbytes for style in self.styles)
        tiles = "" if settings.tile is None else f", in tiles of {settings.tile} pixels"
        rounds = len(prepared.scales(content))
        what = f"{settings.size} pixels in {rounds} round{'s' if rounds > 1 else ''}"
        say(f"{what}{tiles}: about {_duration(seconds)} and {memory / 1e9:.1f} GB")
        return settings

    def _record(self, size: int, plan: OptimizeSettings | None) -> dict[str, Any]:
        """What the result's metadata tell."""
        settings = dataclasses.asdict(self.transfer.settings) | {"size": size}
        if self.settings.method != "nnst":
            del settings["nnst"]
        if self.settings.method not in DESCENDING:
            del settings["optimize"]
        elif plan is not None:
            settings["optimize"] = dataclasses.asdict(plan)
        masks = {"masks": self.job.masks, "style_masks": self.job.style_masks}
        names = {"content": self.content, "styles": list(self.names)}
        return {"imgops": __version__, "command": "style", **names, **masks, **settings}


def _at_most(picture: Tensor, size: int) -> Tensor:
    """The picture, resized to a longer side of ``size`` pixels if it is larger."""
    return resize_picture(picture, size) if size < max(picture.shape[1:]) else picture


def read_mask(name: str, like: Tensor, of: str) -> Tensor:
    """A mask [1, H, W] in [0, 1] for the picture ``like`` of the file ``of``, whose shape it must have.

    The mask is how bright a picture is, times its alpha; or its alpha alone, if all visible pixels have one color. In
    pixels with a color the largest channel counts, or the smallest if the largest is the same everywhere; a warning
    says which.

    Raises:
        OSError, ValueError: it cannot be read; it has another shape, or is black all over.
    """
    picture = read_still(name)
    mask = _brightness(name, picture)
    height, width = like.shape[1:]
    # the same shape at another size will do, to a pixel or a hundredth
    tolerance = max(1.0, 0.01 * min(mask.shape[1:]))
    scale = max(mask.shape[1:]) / max(height, width)
    if max(abs(mask.shape[1] - height * scale), abs(mask.shape[2] - width * scale)) > tolerance:
        raise ValueError(
            f"{name}: the mask is {_dimensions(mask)} pixels, {of} is {width} x {height}; a mask has the shape of its "
            "picture"
        )
    if float(mask.max()) <= 0:
        raise ValueError(f"{name}: the mask is black all over, which leaves nothing; what is meant is white")
    if float(mask.max()) < _FAINT:
        warnings.warn(
            f"{name}: the mask is at most {float(mask.max()) * 255:.0f} of 255 bright; what is meant is white",
            stacklevel=1,
        )
    return mask


def _brightness(name: str, picture: Picture) -> Tensor:
    """The brightness of a mask, [1, H, W]; see :func:`read_mask`."""
    pixels, alpha = picture.pixels, picture.alpha
    shown = pixels.flatten(1) if alpha is None else pixels[:, alpha[0] > 0]
    plain = bool(shown.numel() == 0 or (shown.amax(1) - shown.amin(1)).max() <= _SAME)
    if alpha is not None and plain and float(alpha.max() - alpha.min()) > _SAME:
        if shown.amax() < _FAINT:
            warnings.warn(f"{name}: the mask is black where it is opaque, so its alpha is taken", stacklevel=1)
        return alpha
    mask = pixels.amax(0, keepdim=True)
    if float((shown.amax(0) - shown.amin(0)).max() if shown.numel() else 0) > _FAINT:
        largest = shown.amax(0)
        flat = bool(largest.max() - largest.min() <= _SAME) and not plain
        mask = pixels.amin(0, keepdim=True) if flat else mask
        which = "smallest" if flat else "largest"
        warnings.warn(f"{name}: the mask has colors, of which the {which} channel counts", stacklevel=1)
    return mask if alpha is None else mask * alpha


def _style_choices(styles: Sequence[str], endings: Collection[str]) -> list[tuple[str, ...]]:
    """The styles of each result: all that are named, together; or each picture of a folder by itself."""
    if len(styles) == 1:
        return [(name,) for name in batch.find_files(styles[0], endings)]
    for name in styles:
        if batch.is_file(name) and Path(name).is_dir():
            raise ValueError(f"{name}: a folder of styles stands alone; each of its pictures is a style of its own")
    return [tuple(styles)]


def _outputs(job: Job, contents: Sequence[str], choices: Sequence[Sequence[str]], here: bool = False) -> list[Path]:
    """The file of each result, in the order of the work; with ``here`` one that may be there already.

    Raises:
        ValueError: several results for one file, or an ending that is not written.
    """
    sources = [(content, *styles) for styles in choices for content in contents]
    tails = [batch.moving_ending(content) if batch.moves(content) else ".png" for content, *_ in sources]
    outputs = batch.result_paths(job.out, sources, tails, here)
    for (content, *_), out in zip(sources, outputs, strict=True):
        batch.check_moving(out, content)
    return outputs


def _dimensions(picture: Tensor) -> str:
    return f"{picture.shape[2]} x {picture.shape[1]}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
