"""``imgops style``: pictures, folders and videos in the style of others, by any of the three methods."""

from __future__ import annotations

import dataclasses
import itertools
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from .._memory import OutOfMemory
from ..data.colours import is_grey
from ..data.flow import occlusion, optical_flow, warp
from ..data.pictures import (
    FORMATS,
    Picture,
    fill_hidden,
    read_picture,
    resize_picture,
    write_picture,
)
from ..data.samples import PREFIX
from ..data.video import VIDEO_ENDINGS, WRITTEN_ENDINGS, Frame, VideoWriter, is_video, probe_video, read_timed_frames
from ..style.objective import resized
from ..style.optimization import Progress, ratio_of, style_size
from ..style.settings import OptimizeSettings
from ..style.transfer import Transfer, TransferSettings
from ._pictures import (
    Reporter,
    check_picture_ending,
    check_results,
    choose_device,
    interruptible,
    is_folder,
    peak_memory,
    unused,
)
from ._quiet import say

#: endings of the files that are taken from a folder
_PICTURES = (*FORMATS, ".webp", ".bmp", ".gif", ".ppm")
_NETWORKS = (".safetensors", ".pth", ".pt", ".model")
_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def parse_bytes(text: str) -> float:
    """``"4GB"`` to 4e9; also K, M, T, with or without the B.

    Raises:
        ValueError: the text is no amount of memory.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?\s*", text, re.IGNORECASE)
    if not match or float(match[1]) <= 0:
        raise ValueError(f"--memory takes an amount like 4GB or 900MB; got {text!r}")
    return float(match[1]) * _UNITS[match[2].upper()]


def parse_layers(option: str, text: str | None) -> Mapping[str, float] | None:
    """``"relu1_1=256,relu2_1"`` to {"relu1_1": 256, "relu2_1": 1}.

    Raises:
        ValueError: a weight that is no number.
    """
    if text is None:
        return None
    layers = {}
    for part in text.split(","):
        name, _, weight = part.strip().partition("=")
        try:
            layers[name] = float(weight or 1)
        except ValueError:
            raise ValueError(f"{option} takes layers like relu1_1=256,relu2_1=64; got {part!r}") from None
    return layers


def parse_numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """``"3,1"`` to (3.0, 1.0).

    Raises:
        ValueError: the text is no list of numbers.
    """
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{option} takes numbers like 3,1; got {text!r}") from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to make of what, as the command line says it."""

    content: str
    styles: tuple[str, ...]
    out: str | None
    settings: TransferSettings
    masks: tuple[str, ...] = ()
    style_masks: tuple[str, ...] = ()
    preview: str | None = None
    quality: int = 95


def run(job: Job) -> None:
    """Make the pictures and videos of a job, and say where they are.

    Raises:
        OSError, ValueError, ImportError: what cannot be read, written, or does not fit. Of several contents the others
            are made first.
    """
    settings = dataclasses.replace(job.settings, device=choose_device(job.settings.device))
    fast = settings.method == "fast"
    if job.style_masks and fast:
        raise ValueError("--style-mask is for the methods optimize and adain; the networks of fast are whole styles")
    contents = _files(job.content, (*_PICTURES, *VIDEO_ENDINGS))
    choices = _style_choices(job.styles, _NETWORKS if fast else _PICTURES)
    for option, names in (("--mask", job.masks), ("--style-mask", job.style_masks)):
        if names and len(names) != len(choices[0]):
            raise ValueError(f"{option} must be given once for each of the {len(choices[0])} styles; got {len(names)}")
    outputs = _outputs(job, contents, choices)
    check_results(outputs, job.preview, [*contents, *itertools.chain(*choices), *job.masks, *job.style_masks])
    shared = None if fast else Transfer(settings)
    paths, failed = iter(outputs), 0
    with interruptible() as stopped:
        for names in choices:
            transfer = shared or Transfer(settings, names)
            styles = [] if fast else [read_style(name) for name in names]
            for content in contents:
                work = _Work(job, settings, transfer, content, names, styles, next(paths), stopped)
                try:
                    work.video() if _moves(content) else work.picture()
                except (OSError, ValueError) as error:
                    if len(outputs) == 1:
                        raise
                    failed += 1
                    warnings.warn(f"{content} is left out: {error}", stacklevel=1)
                if stopped():
                    raise KeyboardInterrupt
    if failed:
        raise ValueError(f"{failed} of {len(outputs)} results could not be made")


class _Work:
    """One content in the styles of one choice."""

    def __init__(
        self,
        job: Job,
        settings: TransferSettings,
        transfer: Transfer,
        content: str,
        names: Sequence[str],
        styles: Sequence[Picture],
        out: Path,
        stopped: Callable[[], bool],
    ) -> None:
        self.job, self.settings, self.transfer, self.stopped = job, settings, transfer, stopped
        self.content, self.names, self.out = content, names, out
        self.styles, self.alphas = [style.pixels for style in styles], [style.alpha for style in styles]

    def picture(self) -> None:
        """A picture from a picture; if it is stopped, as it is then."""
        picture = read_picture(self.content)
        size = self.transfer.size_of(picture.pixels)
        masks, style_masks = self._masks(picture.pixels)
        # no more pixels are kept than are used
        pixels = _at_most(fill_hidden(picture.pixels, picture.alpha), size)
        styles = [self._shrunk(style, size) for style in self.styles]
        plan = self._announce(pixels, styles) if self.settings.method == "optimize" else None
        start, failure, alpha = time.monotonic(), None, picture.alpha
        seen = None if alpha is None else _at_most(alpha, size)
        del picture
        with Reporter(Path(self.content).name, self.job.preview) as reporter:
            try:
                result = self.transfer(
                    pixels, styles, masks=masks, style_masks=style_masks, alpha=seen, on_step=self._tell(reporter)
                )
            except OutOfMemory as error:
                if error.picture is None:
                    raise
                result, failure = error.picture, error
            if self.settings.keep_colours is not None and is_grey(result):
                result = result[:1]
            reporter.finish(result)
        alpha = None if alpha is None else resize_picture(alpha, max(result.shape[1:]))
        write_picture(self.out, result, alpha=alpha, settings=self._record(size, plan), quality=self.job.quality)
        how = "stopped, " if self.stopped() else ""
        say(f"{self.out}: {_size(result)} pixels, {how}{time.monotonic() - start:.0f} s, {peak_memory()}")
        if failure is not None:
            raise ValueError(f"{self.out} is of {_size(result)} pixels only: at the next size {failure}")

    def video(self) -> None:
        """A video from a video, its sound kept; with the method "optimize" each frame begins at the last one, moved
        as the picture moves. If it is stopped, the frames until then."""
        info = probe_video(self.content)
        sound = self.content if info.has_audio and self.out.suffix.lower() != ".gif" else None
        start, count = time.monotonic(), 0
        size = self.transfer.size_of(torch.empty(3, info.height, info.width))
        with (
            Reporter(Path(self.content).name, self.job.preview) as reporter,
            VideoWriter(
                self.out,
                info.fps,
                time_base=info.time_base,
                audio_from=sound,
                settings=self._record(size, None),
            ) as writer,
        ):
            for result, duration in self._frames(read_timed_frames(self.content), size):
                writer.write(result, duration)
                count += 1
                reporter.update(count / info.frames if info.frames else None, result, f"frame {count}")
                if self.stopped():
                    break
            reporter.finish(result)
        say(f"{self.out}: {count} frames of {_size(result)} pixels, {time.monotonic() - start:.0f} s, {peak_memory()}")

    def _frames(self, frames: Iterator[Frame], size: int) -> Iterator[Frame]:
        """The result of each frame."""
        previous: tuple[Tensor, Tensor] | None = None
        styles = [self._shrunk(style, size) for style in self.styles]
        masks: tuple[list[Tensor] | None, list[Tensor | None] | None] | None = None
        for frame, duration in frames:
            masks = self._masks(frame) if masks is None else masks
            small = resize_picture(frame, size)
            init = None
            if previous is not None and self.settings.method == "optimize":
                backward = optical_flow(previous[0], small)
                init = warp(previous[1], backward).clamp(0, 1)
                # what the last frame does not show begins as the content
                init = torch.where(occlusion(optical_flow(small, previous[0]), backward), small, init)
            result = self.transfer(small, styles, masks=masks[0], style_masks=masks[1], init=init)
            previous = small, result
            yield Frame(result, duration)

    def _shrunk(self, style: Tensor, size: int) -> Tensor:
        return _at_most(style, style_size(style, size, self.settings.optimize))

    def _masks(self, content: Tensor) -> tuple[list[Tensor] | None, list[Tensor | None] | None]:
        """The masks of the content and of the styles, which must have their shapes."""
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

    def _announce(self, content: Tensor, styles: Sequence[Tensor]) -> OptimizeSettings:
        """Print the estimate of memory and time before the work; the settings with their tile."""
        settings, memory, seconds = self.transfer.plan(content, styles)
        memory += sum(style.nbytes for style in self.styles)
        tiles = "" if settings.tile is None else f", in tiles of {settings.tile} pixels"
        rounds = len(settings.scales(ratio_of(content)))
        what = f"{settings.size} pixels in {rounds} round{'s' if rounds > 1 else ''}"
        say(f"{what}{tiles}: about {_duration(seconds)} and {memory / 1e9:.1f} GB")
        return settings

    def _record(self, size: int, plan: OptimizeSettings | None) -> dict[str, Any]:
        """What the result's metadata tell."""
        settings = dataclasses.asdict(self.settings) | {"size": size}
        if self.settings.method != "optimize":
            del settings["optimize"]
        elif plan is not None:
            settings["optimize"] = dataclasses.asdict(plan)
        masks = {"masks": list(self.job.masks), "style_masks": list(self.job.style_masks)}
        names = {"content": self.content, "styles": list(self.names)}
        return {"imgops": __version__, "command": "style", **names, **masks, **settings}


def _at_most(picture: Tensor, size: int) -> Tensor:
    """The picture with a longer side of ``size`` pixels, if it is larger."""
    return resize_picture(picture, size) if size < max(picture.shape[1:]) else picture


def read_style(name: str) -> Picture:
    """A style: what is hidden of it has the colours around.

    Raises:
        OSError, ValueError: it cannot be read; nothing of it is visible.
    """
    picture = read_picture(name)
    if picture.alpha is not None and not picture.alpha.any():
        raise ValueError(f"{name}: is transparent all over; a style needs something that can be seen")
    return picture._replace(pixels=fill_hidden(picture.pixels, picture.alpha))


def read_mask(name: str, like: Tensor, of: str) -> Tensor:
    """A mask [1, H, W] in [0, 1], the brightness of a picture where it is opaque, whose shape must be that of ``like``.

    Raises:
        OSError, ValueError: it cannot be read; it has another shape.
    """
    picture = read_picture(name)
    mask = picture.pixels.mean(0, keepdim=True)
    if picture.alpha is not None:
        mask = mask * picture.alpha
    height, width = like.shape[1:]
    # the same shape at another size is as good, to a pixel or a hundredth
    tolerance = max(1.0, 0.01 * min(mask.shape[1:]))
    scale = max(mask.shape[1:]) / max(height, width)
    if max(abs(mask.shape[1] - height * scale), abs(mask.shape[2] - width * scale)) > tolerance:
        raise ValueError(
            f"{name}: the mask is {_size(mask)} pixels, {of} is {width} x {height}; a mask has the shape of its picture"
        )
    return mask


def _moves(source: str) -> bool:
    """Whether a content is a video, or a GIF of several frames."""
    if source.startswith(PREFIX) or not is_video(source):
        return False
    return not source.lower().endswith(".gif") or probe_video(source).frames != 1


def _files(source: str, endings: Sequence[str]) -> list[str]:
    """The files of a folder with one of these endings, or the file itself.

    Raises:
        ValueError: a folder without any.
    """
    if source.startswith(PREFIX) or not Path(source).is_dir():
        return [source]
    files = (p for p in Path(source).iterdir() if p.suffix.lower() in endings and not p.name.startswith("."))
    found = sorted(str(path) for path in files if path.is_file())
    if not found:
        raise ValueError(f"{source}: there is nothing in this folder that ends in {', '.join(endings)}")
    return found


def _style_choices(styles: Sequence[str], endings: Sequence[str]) -> list[tuple[str, ...]]:
    """The styles of each run: all of them together, or each of a folder's by itself."""
    if len(styles) == 1:
        return [(name,) for name in _files(styles[0], endings)]
    for name in styles:
        if not name.startswith(PREFIX) and Path(name).is_dir():
            raise ValueError(f"{name}: a folder of styles stands alone; each of its pictures is a style of its own")
    return [tuple(styles)]


def _outputs(job: Job, contents: Sequence[str], choices: Sequence[Sequence[str]]) -> list[Path]:
    """Where each result goes, in the order of the work.

    Raises:
        ValueError: several results for one file, or an ending that is not written.
    """

    def ending(content: str) -> str:
        if not _moves(content):
            return ".png"
        suffix = Path(content).suffix.lower()
        return suffix if suffix in WRITTEN_ENDINGS else ".mp4"

    def name(content: str, styles: Sequence[str]) -> str:
        stems = [Path(part.removeprefix(PREFIX)).stem for part in (content, *styles)]
        return "-".join(stems) + ending(content)

    if job.out is None:
        return [unused(Path(name(content, styles))) for styles in choices for content in contents]
    out = Path(job.out)
    if is_folder(job.out):
        return [out / name(content, styles) for styles in choices for content in contents]
    if len(contents) * len(choices) > 1:
        raise ValueError(f"--out must be a folder for {len(contents) * len(choices)} results; got {out}")
    if _moves(contents[0]):
        if out.suffix.lower() not in WRITTEN_ENDINGS:
            raise ValueError(f"--out must end in {', '.join(WRITTEN_ENDINGS)} for a video; got {out}")
    else:
        check_picture_ending(out)
    return [out]


def _size(picture: Tensor) -> str:
    return f"{picture.shape[2]} x {picture.shape[1]}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
