"""The work of ``imgops dream``."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn

from .. import __version__
from .._device import choose_device
from .._interrupts import interruptible
from .._memory import naming_remedy
from ..data.pictures import fill_hidden, resize_picture, write_picture
from ..data.stills import read_still
from ..data.video import Frame, is_video, probe_video
from ..dream import (
    ClassObjective,
    default_objectives,
    describe_layers,
    dream,
    dream_frames,
    parse_class,
    parse_objective,
    resolved_settings,
    zoom_frames,
)
from ..dream.gradient import least_size
from ..models.encoders.classes import class_names
from ..models.encoders.weights import default_weights, load_encoder
from ..nn import Features
from . import _batch as batch
from ._pictures import Reporter, Stopped, check_results, peak_memory
from ._quiet import say
from ._video import Kept, Video, make_video, timed_frames
from .dream import Job

#: what stands for a picture where the dream begins with noise
NOISE = "noise"
#: the longer side of a dream from noise, and the largest of one from a picture whose size is not chosen
DEFAULT_SIZE = 512
#: the longer side at which a guide is seen
GUIDE_SIZE = 256
#: fewest pixels of the shorter side of a guide; and those of a picture that is large enough for every layer
GUIDE_SHORTEST, TRUSTED = 80, 128
#: the options that errors of objectives are about
_OPTIONS = {"Objective": "--layer", "GuidedObjective": "--layer", "ClassObjective": "--class"}
#: options that the metadata of a result leave out, or tell in other words
_UNTOLD = ("out", "preview", "layers", "classes", "list_layers", "list_classes", "fourier")


def list_layers(weights: str) -> None:
    """Print the layers of an encoder that can be dreamt with."""
    weights = default_weights() if weights == "default" else weights
    network = load_encoder(weights)
    table = Table(title=escape(f"{type(network).__name__} ({weights})"))
    for column in ("layer", "channels", "stride"):
        table.add_column(column, justify="left" if column == "layer" else "right")
    for layer in describe_layers(network):
        table.add_row(layer.name, str(layer.channels), str(layer.stride))
    Console().print(table)


def list_classes() -> None:
    """Print the classes of ImageNet by their numbers, with all of their names."""
    for number, names in enumerate(class_names()):
        print(f"{number:3} {', '.join(names)}")


def run(job: Job) -> None:
    """Dream, write the pictures or videos, and say where they are.

    Raises:
        OSError, ValueError, ImportError: what cannot be read, written, or does not fit; of several sources when the
            others are done.
    """
    picture = job.picture or NOISE
    sources = [NOISE] if picture == NOISE else batch.find_files(picture)
    sources = batch.without_results(sources, lambda files: _outputs(job, files, here=True))
    outputs = _outputs(job, sources)
    check_results(outputs, job.preview, [*sources, *([] if job.guide is None else [job.guide])])
    classes = [_class(text) for text in job.classes]
    if job.weights == "default":
        layers = [re.split("[:=]", text)[0].strip() for text in job.layers]
        job = dataclasses.replace(job, weights=default_weights(layers, job.pooling))
    network = load_encoder(
        job.weights,
        pooling=job.pooling,
        preprocessing=job.preprocessing,
        frame=False,
        classifier=bool(classes),
    )
    if classes:
        _check_names(job.classes, network)
    network.to(choose_device(job.device))
    guide = () if job.guide is None else _guide(job.guide)
    layers = job.layers
    if job.guide is not None and not layers:
        layers = [one.layer for one in _usual(network)]
    objectives: Sequence[Any] = [*classes, *(_objective(text, network, *guide) for text in layers)]
    if not layers:
        objectives = _usual(network, classes)
    with interruptible() as stopped:
        works = [
            _Work(job, network, objectives, source, out, stopped) for source, out in zip(sources, outputs, strict=True)
        ]
        batch.make_each(((work.source, work.make) for work in works), len(works), stopped)


def _usual(network: nn.Module, classes: Sequence[ClassObjective] = ()) -> list[Any]:
    """What is dreamt without ``--layer``.

    Raises:
        ValueError: the network has no layer to dream with by default; names --layer.
    """
    try:
        return default_objectives(network, classes)
    except ValueError:
        raise ValueError(
            f"--layer is missing: {type(network).__name__} has none to dream with by default; --list-layers prints all"
        ) from None


def _objective(text: str, network: nn.Module, *guide: Any) -> Any:
    """What ``--layer`` asks for.

    Raises:
        ValueError: it is no objective, or names a layer that the network lacks; names the option.
    """
    try:
        objective = parse_objective(text, *guide)
        Features(network, [objective.layer])
    except ValueError as error:
        message, quoted = _without_owner(error), repr(text)
        rest = message.removeprefix(quoted) if message.startswith(quoted) else f": {message}"
        raise ValueError(f"--layer {text}{rest}") from None
    return objective


def _class(text: str) -> ClassObjective:
    """What ``--class`` asks for.

    Raises:
        ValueError: there is no such class; names the option.
    """
    try:
        return parse_class(text)
    except ValueError as error:
        raise ValueError(f"--class: {_without_owner(error)}") from None


def _check_names(texts: Sequence[str], network: nn.Module) -> None:
    """Raise ValueError where a class is named of a network whose classes are others than ImageNet's."""
    layers = network.get_submodule("classifier").modules()
    counts = [layer.out_features for layer in layers if isinstance(layer, nn.Linear)]
    named = [text for text in texts if not text.partition("=")[0].strip().isdecimal()]
    if named and counts and counts[-1] != len(class_names()):
        raise ValueError(f"--class {named[0]}: the network has {counts[-1]} classes, not ImageNet's; give a number")


def _without_owner(error: ValueError) -> str:
    owner, _, message = str(error).partition(": ")
    return message if owner in _OPTIONS else str(error)


@contextlib.contextmanager
def _naming_options() -> Iterator[None]:
    """Begin the errors of objectives by their option."""
    try:
        yield
    except ValueError as error:
        owner, _, message = str(error).partition(": ")
        if owner not in _OPTIONS:
            raise
        raise ValueError(f"{_OPTIONS[owner]}: {message}") from None


def _guide(name: str) -> tuple[Tensor, Tensor | None]:
    """A guide at the size at which it is seen, and what is visible of it.

    Raises:
        OSError, ValueError: it cannot be read; nothing of it is visible.
    """
    picture = read_still(name)
    height, width = picture.pixels.shape[1:]
    size = max(GUIDE_SIZE, math.ceil(GUIDE_SHORTEST * max(height, width) / min(height, width)))
    pixels = resize_picture(fill_hidden(picture.pixels, picture.alpha), size)
    if picture.alpha is None:
        return pixels, None
    if not picture.alpha.any():
        raise ValueError(f"{name}: is transparent all over; a guide needs something that can be seen")
    return pixels, resize_picture(picture.alpha, size)


def _outputs(job: Job, sources: Sequence[str], here: bool = False) -> list[Path]:
    """The file of each dream; with ``here`` one that may be there already.

    Raises:
        ValueError: an ending that is not written, or that of a picture for several frames.
    """

    def tail(source: str) -> str:
        if source != NOISE and batch.moves(source):
            return "-dream" + batch.moving_ending(source)
        return "-dream" + (".gif" if job.frames > 1 else ".png")

    tails = [tail(source) for source in sources]
    outputs = batch.result_paths(job.out, [[source] for source in sources], tails, here)
    for source, out in zip(sources, outputs, strict=True):
        moving = source != NOISE and batch.moves(source)
        if moving and job.frames > 1:
            raise ValueError(f"--frames makes a zoom into a picture; {source} has frames of its own")
        if not moving and not is_video(out) and job.frames > 1:
            raise ValueError(f"--out must be a GIF or video for {job.frames} frames; got {out}")
        if moving or not is_video(out):
            batch.check_moving(out, source)
    return outputs


class _Work:
    """The dream of one source."""

    def __init__(
        self,
        job: Job,
        network: nn.Module,
        objectives: Sequence[Any],
        source: str,
        out: Path,
        stopped: Callable[[], bool],
    ) -> None:
        self.job, self.network, self.objectives, self.stopped = job, network, objectives, stopped
        self.source, self.out, self.began = source, out, time.monotonic()

    def make(self) -> None:
        """Make a video, from a video or of a zoom; or else a picture."""
        with naming_remedy("give --tile 512, which makes tiles, or a smaller --size"), _naming_options():
            if self.source != NOISE and is_video(self.out) and batch.moves(self.source):
                self._clip()
            elif is_video(self.out):
                self._zoom()
            else:
                self._picture()

    def _picture(self) -> None:
        """Make a picture; Ctrl-C ends it as it is then."""
        picture = None if self.source == NOISE else read_still(self.source)
        start = None if picture is None else fill_hidden(picture.pixels, picture.alpha)
        size = self._size(None if start is None else start.shape[1:])
        with Reporter(Path(self.source).name, self.job.preview) as reporter:

            def tell(share: float, now: Tensor) -> None:
                reporter.update(share, now, _pixels(now))
                if self.stopped():
                    raise Stopped(now)

            try:
                result = dream(start, self.network, self.objectives, self.job.settings, size=size, on_step=tell)
            except Stopped as early:
                result = early.picture
            reporter.finish(result)
        alpha = None
        if picture is not None and picture.alpha is not None:
            alpha = resize_picture(picture.alpha, max(result.shape[1:]))
        write_picture(self.out, result, alpha=alpha, settings=self._record(size), quality=self.job.quality)
        self._say(_pixels(result))

    def _zoom(self) -> None:
        """Make a zoom into the dream of a picture, or of noise."""
        job, fps = self.job, Fraction(self.job.fps).limit_denominator(1001)
        picture = None if self.source == NOISE else read_still(self.source)
        start = None if picture is None else fill_hidden(picture.pixels, picture.alpha)
        size = self._size(None if start is None else start.shape[1:])

        def results(kept: Kept | None) -> Iterator[Frame]:
            frames = zoom_frames(
                start, self.network, self.objectives, job.settings, job.frames, job.zoom, job.rotate, size=size,
                after=kept,
            )  # fmt: skip
            return (Frame(frame, 1 / fps) for frame in frames)

        self._video(Video(self.out, fps, None, None, self._record(size), self._files(), job.frames), results)

    def _clip(self) -> None:
        """Make the dream of a video or an animation, whose sound is kept."""
        info = probe_video(self.source)
        size = self._size((info.height, info.width))
        sound = self.source if info.has_audio and self.out.suffix.lower() != ".gif" else None

        def dreams(frames: Iterator[Tensor], before: tuple[Tensor, Tensor] | None) -> Iterator[Tensor]:
            return dream_frames(frames, self.network, self.objectives, self.job.settings, size=size, before=before)

        video = Video(self.out, info.fps, info.time_base, sound, self._record(size), self._files(), info.frames)
        self._video(video, lambda kept: timed_frames(self.source, kept, dreams))

    def _video(self, video: Video, results: Callable[[Kept | None], Iterator[Frame]]) -> None:
        with Reporter(Path(self.source).name, self.job.preview) as reporter:
            self._say(make_video(video, results, reporter, self.stopped))

    def _say(self, what: str) -> None:
        say(f"{self.out}: {what}, {time.monotonic() - self.began:.0f} s, {peak_memory()}")

    def _files(self) -> list[str]:
        return [name for name in (self.source, self.job.guide, self.job.weights) if name is not None]

    def _size(self, shape: Sequence[int] | None) -> int:
        """The longer side of the result of a picture of this (height, width), or of noise: --size; without it the
        picture's own, at most :data:`DEFAULT_SIZE`, but as large as the layers need it."""
        if self.job.size is not None or shape is None:
            return self.job.size or DEFAULT_SIZE
        size = min(max(shape), DEFAULT_SIZE)
        if min(shape) * size >= TRUSTED * max(shape):
            return size
        least = least_size(self.network, self.objectives, *shape)
        if least > size:
            warnings.warn(
                f"{self.source} is {shape[1]} x {shape[0]} pixels: enlarged to a size of {least}, the least that the "
                "layers take",
                stacklevel=1,
            )
        return max(size, least)

    def _record(self, size: int) -> dict[str, Any]:
        """What the result's metadata tell."""
        layers = [
            [one.layer, one.number if isinstance(one, ClassObjective) else getattr(one, "channel", None), one.weight]
            for one in self.objectives
        ]
        told = {k: v for k, v in dataclasses.asdict(self.job).items() if k not in _UNTOLD}
        told["settings"] = dataclasses.asdict(resolved_settings(self.job.settings, self.network, self.objectives))
        network = type(self.network).__name__
        told |= {"picture": self.source, "size": size}
        return {"imgops": __version__, "command": "dream", "network": network, "objectives": layers, **told}


def _pixels(picture: Tensor) -> str:
    return f"{picture.shape[2]} x {picture.shape[1]} pixels"
