"""``imgops dream``: a dream of a picture or of noise, a zoom into it as a video, or the list of layers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn

from .. import __version__
from ..data.pictures import fill_hidden, read_picture, resize_picture, write_picture
from ..data.samples import PREFIX
from ..data.video import VideoWriter, is_video
from ..dream import DreamSettings, default_objectives, describe_layers, dream, parse_objective, zoom_frames
from ..models.weights import load_encoder
from ._pictures import (
    Reporter,
    Stopped,
    check_picture_ending,
    check_results,
    choose_device,
    interruptible,
    is_folder,
    peak_memory,
    unused,
)
from ._quiet import say

#: what stands for a picture where the dream begins with noise
NOISE = "noise"
#: the longer side of a dream from noise, and the largest of one from a picture whose size is not chosen
DEFAULT_SIZE = 512
#: the longer side that a guide is looked at in
GUIDE_SIZE = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to dream, as the command line says it."""

    picture: str
    layers: tuple[str, ...]
    out: str | None
    settings: DreamSettings
    size: int | None = None
    guide: str | None = None
    weights: str = "default"
    pooling: str | None = None
    preprocessing: str | None = None
    frames: int = 1
    zoom: float = 0.05
    rotate: float = 0.0
    fps: float = 15.0
    preview: str | None = None
    quality: int = 95
    device: str = "auto"


def list_layers(weights: str) -> None:
    """Print the layers of an encoder that can be dreamt with."""
    network = load_encoder(weights)
    table = Table(title=escape(f"{type(network).__name__} ({weights})"))
    for column in ("layer", "channels", "stride"):
        table.add_column(column, justify="left" if column == "layer" else "right")
    for layer in describe_layers(network):
        table.add_row(layer.name, str(layer.channels), str(layer.stride))
    Console().print(table)


def run(job: Job) -> None:
    """Dream, write the picture or the video, and say where it is.

    Raises:
        OSError, ValueError, ImportError: what cannot be read, written, or does not fit.
    """
    out = _output(job)
    sources = [source for source in (job.picture, job.guide) if source is not None]
    check_results([out], job.preview, sources)
    picture = None if job.picture == NOISE else read_picture(job.picture)
    start = None if picture is None else fill_hidden(picture.pixels, picture.alpha)
    network = load_encoder(job.weights, pooling=job.pooling, preprocessing=job.preprocessing, frame=False)
    network.to(choose_device(job.device))
    guide = () if job.guide is None else _guide(job.guide)
    objectives: Sequence[Any] = [parse_objective(text, *guide) for text in job.layers]
    if not objectives:
        chosen = default_objectives(network)
        objectives = chosen if job.guide is None else [parse_objective(one.layer, *guide) for one in chosen]
    own = DEFAULT_SIZE if start is None else max(start.shape[1:])
    size = min(own, DEFAULT_SIZE) if job.size is None else job.size
    began, count = time.monotonic(), 1
    with interruptible() as stopped, Reporter(Path(job.picture).name, job.preview) as reporter:

        def tell(share: float, now: Tensor) -> None:
            reporter.update(share, now, f"{now.shape[2]} x {now.shape[1]}")
            if stopped() and not is_video(out):
                raise Stopped(now)

        record = _record(job, objectives, network)
        if is_video(out):
            frames = zoom_frames(
                start, network, objectives, job.settings, job.frames, job.zoom, job.rotate, size=size, on_step=tell
            )
            with VideoWriter(out, job.fps, settings=record) as writer:
                for number, result in enumerate(frames, 1):
                    writer.write(result)
                    count = number
                    if stopped():
                        break
        else:
            try:
                result = dream(start, network, objectives, job.settings, size=size, on_step=tell)
            except Stopped as early:
                result = early.picture
            alpha = None
            if picture is not None and picture.alpha is not None:
                alpha = resize_picture(picture.alpha, max(result.shape[1:]))
            write_picture(out, result, alpha=alpha, settings=record, quality=job.quality)
        reporter.finish(result)
    pixels = f"{result.shape[2]} x {result.shape[1]}"
    what = f"{count} frames of {pixels}" if is_video(out) else pixels
    say(f"{out}: {what} pixels, {time.monotonic() - began:.0f} s, {peak_memory()}")


def _guide(name: str) -> tuple[Tensor, Tensor | None]:
    """A guide at the size that it is looked at in, and what is visible of it.

    Raises:
        OSError, ValueError: it cannot be read; nothing of it is visible.
    """
    picture = read_picture(name)
    pixels = resize_picture(fill_hidden(picture.pixels, picture.alpha), GUIDE_SIZE)
    if picture.alpha is None:
        return pixels, None
    if not picture.alpha.any():
        raise ValueError(f"{name}: is transparent all over; a guide needs something that can be seen")
    return pixels, resize_picture(picture.alpha, GUIDE_SIZE)


def _output(job: Job) -> Path:
    """Where the result goes.

    Raises:
        ValueError: an ending that is not written, or that of a picture for several frames.
    """
    ending = ".gif" if job.frames > 1 else ".png"
    name = f"{Path(job.picture.removeprefix(PREFIX)).stem}-dream{ending}"
    out = unused(Path(name)) if job.out is None else Path(job.out)
    if job.out is not None and is_folder(job.out):
        out = out / name
    if not is_video(out):
        check_picture_ending(out)
        if job.frames > 1:
            raise ValueError(f"--out must be a GIF or video for {job.frames} frames; got {out}")
    if not 0.01 <= job.fps <= 1000:
        raise ValueError(f"--fps must be 0.01 to 1000; got {job.fps:g}")
    return out


def _record(job: Job, objectives: Sequence[Any], network: nn.Module) -> dict[str, Any]:
    """What the result's metadata tell."""
    layers = [[one.layer, getattr(one, "channel", None), one.weight] for one in objectives]
    told = {key: value for key, value in dataclasses.asdict(job).items() if key not in ("out", "preview", "layers")}
    return {"imgops": __version__, "command": "dream", "network": type(network).__name__, "objectives": layers, **told}
