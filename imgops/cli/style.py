"""``imgops style``: pictures, folders and videos in the style of others, by any of the three methods."""

from __future__ import annotations

import dataclasses
import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..data.flow import occlusion, optical_flow, warp
from ..data.pictures import FORMATS, Picture, picture_format, read_picture, resize_picture, write_picture
from ..data.samples import PREFIX
from ..data.video import VideoWriter, is_video, probe_video, read_frames
from ..style.transfer import Transfer, TransferSettings
from ._pictures import Reporter, choose_device, peak_memory, refuse_to_overwrite, say

#: names of files that are taken from a folder
_PICTURES = (*FORMATS, ".webp", ".bmp", ".gif", ".ppm")
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
    """Make the pictures, or the video, of a job, and say where they are.

    Raises:
        OSError, ValueError, ImportError: what cannot be read, written, or does not fit.
    """
    settings = dataclasses.replace(job.settings, device=choose_device(job.settings.device))
    fast = settings.method == "fast"
    contents, choices = _files(job.content), _style_choices(job.styles)
    video = len(contents) == 1 and is_video(contents[0])
    outputs = _outputs(job, contents, choices, video)
    for path in outputs:
        refuse_to_overwrite(path, [*contents, *itertools.chain(*choices), *job.masks, *job.style_masks])
    if job.preview is not None:
        picture_format(job.preview)
    transfers = {names: Transfer(settings, names if fast else ()) for names in ([*choices] if fast else [()])}
    paths = iter(outputs)
    for names in choices:
        transfer = transfers[names if fast else ()]
        styles = [] if fast else [read_picture(name).pixels for name in names]
        for content in contents:
            work = _Work(job, settings, transfer, content, names, styles, next(paths))
            if video:
                work.video()
            else:
                work.picture()


class _Work:
    """One content in the styles of one choice."""

    def __init__(
        self,
        job: Job,
        settings: TransferSettings,
        transfer: Transfer,
        content: str,
        names: Sequence[str],
        styles: Sequence[Tensor],
        out: Path,
    ) -> None:
        self.job, self.settings, self.transfer = job, settings, transfer
        self.content, self.names, self.styles, self.out = content, names, styles, out

    def picture(self) -> None:
        """A picture from a picture."""
        picture = read_picture(self.content)
        masks, style_masks = self._masks(picture)
        self._announce(picture.pixels)
        start = time.monotonic()
        with Reporter(f"{Path(self.content).name}", self.job.preview) as reporter:
            result = self.transfer(
                picture.pixels, self.styles, masks=masks, style_masks=style_masks, on_step=_tell(reporter)
            )
        alpha = None if picture.alpha is None else resize_picture(picture.alpha, max(result.shape[1:]))
        write_picture(self.out, result, alpha=alpha, settings=self._record(), quality=self.job.quality)
        say(f"{self.out}: {_size(result)} pixels, {time.monotonic() - start:.0f} s, {peak_memory()}")

    def video(self) -> None:
        """A video from a video, its sound kept; with the method "optimize" each frame begins at the last one, moved
        as the picture moves."""
        info = probe_video(self.content)
        sound = self.content if info.has_audio and self.out.suffix.lower() != ".gif" else None
        start, count = time.monotonic(), 0
        with (
            Reporter(Path(self.content).name, self.job.preview) as reporter,
            VideoWriter(self.out, info.fps, audio_from=sound, settings=self._record()) as writer,
        ):
            for frame, result in self._frames(read_frames(self.content)):
                writer.write(result)
                count += 1
                reporter.update(count / info.frames if info.frames else None, result, f"frame {count}")
                last = frame
        say(f"{self.out}: {count} frames of {_size(last)} pixels, {time.monotonic() - start:.0f} s, {peak_memory()}")

    def _frames(self, frames: Iterator[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """(frame, result) of each frame, at the result's size."""
        previous: tuple[Tensor, Tensor] | None = None
        for frame in frames:
            picture = Picture(frame, None, self.content)
            masks, style_masks = self._masks(picture)
            small = resize_picture(frame, self.transfer.size_of(frame))
            init = None
            if previous is not None and self.settings.method == "optimize":
                backward = optical_flow(previous[0], small)
                init = warp(previous[1], backward).clamp(0, 1)
                # what the last frame does not show begins as the content
                init = torch.where(occlusion(optical_flow(small, previous[0]), backward), small, init)
            result = self.transfer(frame, self.styles, masks=masks, style_masks=style_masks, init=init)
            previous = small, result
            yield previous

    def _masks(self, picture: Picture) -> tuple[list[Tensor] | None, list[Tensor | None] | None]:
        """The masks of the content and of the styles, which must have their shapes."""
        masks = [read_mask(name, picture.pixels, picture.name) for name in self.job.masks]
        parts = [
            read_mask(name, style, of)
            for name, style, of in zip(self.job.style_masks, self.styles, self.names, strict=False)
        ]
        if parts and len(parts) != len(self.job.style_masks):
            raise ValueError(f"--style-mask must be given once for each of {len(self.styles)} styles")
        return masks or None, list(parts) or None

    def _announce(self, content: Tensor) -> None:
        """Print the estimate of memory and time before the work."""
        size = self.transfer.size_of(content)
        if self.settings.method != "optimize":
            return
        settings, memory, seconds = self.transfer.plan(content, self.styles)
        tiles = "" if settings.tile is None else f", in tiles of {settings.tile} pixels"
        rounds = len(settings.scales())
        say(f"{size} pixels in {rounds} rounds{tiles}: about {_duration(seconds)} and {memory / 1e9:.1f} GB")

    def _record(self) -> dict[str, Any]:
        """What the result's metadata tell."""
        settings = dataclasses.asdict(self.settings)
        settings["optimize"]["size"] = self.settings.size
        if self.settings.method != "optimize":
            del settings["optimize"]
        names = {"content": self.content, "styles": list(self.names), "masks": list(self.job.masks)}
        return {"imgops": __version__, "command": "style", **names, **settings}


def read_mask(name: str, like: Tensor, of: str) -> Tensor:
    """A mask [1, H, W] in [0, 1], the brightness of a picture, whose shape must be that of ``like``.

    Raises:
        OSError, ValueError: it cannot be read; it has another shape.
    """
    mask = read_picture(name).pixels.mean(0, keepdim=True)
    height, width = like.shape[1:]
    # the same shape at another size is as good, to a pixel
    if abs(mask.shape[1] * width - mask.shape[2] * height) > max(mask.shape[1:]) + max(height, width):
        raise ValueError(
            f"{name}: the mask is {_size(mask)} pixels, {of} is {width} x {height}; a mask has the shape of its picture"
        )
    return mask


def _tell(reporter: Reporter) -> Callable[[Any], None]:
    def tell(progress: Any) -> None:
        losses = ", ".join(f"{name} {value:.3g}" for name, value in progress.losses.items())
        reporter.update(progress.share, progress.picture, f"{progress.size} px, {losses}")

    return tell


def _files(source: str) -> list[str]:
    """The pictures of a folder, or the file itself.

    Raises:
        ValueError: a folder without pictures.
    """
    if source.startswith(PREFIX) or not Path(source).is_dir():
        return [source]
    found = sorted(
        str(p) for p in Path(source).iterdir() if p.suffix.lower() in _PICTURES and not p.name.startswith(".")
    )
    if not found:
        raise ValueError(f"{source}: there are no pictures in this folder")
    return found


def _style_choices(styles: Sequence[str]) -> list[tuple[str, ...]]:
    """The styles of each run: all of them together, or each of a folder's by itself."""
    if len(styles) == 1:
        return [(name,) for name in _files(styles[0])]
    for name in styles:
        if not name.startswith(PREFIX) and Path(name).is_dir():
            raise ValueError(f"{name}: a folder of styles stands alone; each of its pictures is a style of its own")
    return [tuple(styles)]


def _outputs(job: Job, contents: Sequence[str], choices: Sequence[Sequence[str]], video: bool) -> list[Path]:
    """Where each result goes, in the order of the work.

    Raises:
        ValueError: several results for one file, or an ending that is not written.
    """
    many = len(contents) * len(choices) > 1
    ending = Path(contents[0]).suffix if video else ".png"

    def name(content: str, styles: Sequence[str]) -> str:
        stems = [Path(part.removeprefix(PREFIX)).stem for part in (content, *styles)]
        return "-".join(stems) + ending

    out = None if job.out is None else Path(job.out)
    if out is None or out.is_dir() or not out.suffix:
        folder = out or Path(".")
        return [folder / name(content, styles) for styles in choices for content in contents]
    if many:
        raise ValueError(f"--out must be a folder for {len(contents) * len(choices)} results; got {out}")
    if not (video and is_video(out)):
        if video:
            raise ValueError(f"--out must be a video for a video; got {out}")
        picture_format(out)
    return [out]


def _size(picture: Tensor) -> str:
    return f"{picture.shape[2]} x {picture.shape[1]}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
