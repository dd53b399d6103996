"""The work of ``imgops style train-fast`` and ``train-adain``: a bar, a preview, and Ctrl-C that saves."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from .._device import choose_device
from .._interrupts import interruptible
from ..data.datasets.crops import RandomCrops
from ..models.encoders.weights import load_encoder
from ..style.training import train_adain as run_adain
from ..style.training import train_fast as run_fast
from ._pictures import Reporter, check_results, check_writable
from ._quiet import say
from ._style import read_style
from .style_adain import Job as AdaINJob
from .style_fast import Job as FastJob

#: called after each step with its number, the number of the last, the losses, and a picture if the step is saved
Tell = Callable[[int, int, dict[str, float], Tensor | None], bool]


def train_fast(job: FastJob) -> None:
    """Train a network of one style."""
    device = choose_device(job.run.device)
    _check_out(job.out)
    _tell_left_out(job.data)
    picture = read_style(job.style)
    encoder = load_encoder(job.weights, preprocessing=job.run.preprocessing, frame=False)
    with _reporting(job.out, job.run.preview, job.style) as tell:
        run_fast(
            picture.pixels,
            job.data,
            job.out,
            encoder,
            job.settings,
            style_mask=picture.alpha,
            resume=job.run.resume,
            device=device,
            on_step=tell,
        )


def train_adain(job: AdaINJob) -> None:
    """Train a decoder for any style."""
    device = choose_device(job.run.device)
    _check_out(job.out)
    for source in dict.fromkeys((job.contents, job.styles)):
        _tell_left_out(source)
    encoder = load_encoder(job.weights, preprocessing=job.run.preprocessing, frame=False)
    loss_encoder = None if job.loss_weights is None else load_encoder(job.loss_weights, frame=False)
    with _reporting(job.out, job.run.preview) as tell:
        run_adain(
            job.contents,
            job.styles,
            job.out,
            encoder,
            job.settings,
            loss_encoder=loss_encoder,
            resume=job.run.resume,
            device=device,
            on_step=tell,
        )


def _tell_left_out(source: str) -> None:
    """Warn of the files of a folder that the training leaves out."""
    if (pictures := RandomCrops(source, 16)).left_out:
        warnings.warn(pictures.describe(), stacklevel=1)


@contextmanager
def _reporting(out: str, preview: str | None, source: str | None = None) -> Iterator[Tell]:
    """The function to call after each step. Ctrl-C within ends the training after the step that is being taken."""
    last: tuple[int, int, str] | None = None
    if preview is not None:
        check_results([], preview, [] if source is None else [source])
    with interruptible() as stopped, Reporter(Path(out).name, preview) as reporter:

        def tell(step: int, steps: int, losses: dict[str, float], picture: Tensor | None) -> bool:
            nonlocal last
            text = ", ".join(f"{name} {value:.3g}" for name, value in losses.items())
            last = step, steps, text
            reporter.update(step / steps, picture, f"step {step} of {steps}, {text}")
            return stopped()

        yield tell
    if last is None:
        say(f"{out}: it had all its steps already")
    else:
        step, steps, text = last
        say(f"{out}: step {step} of {steps}, {text}" + ("" if step == steps else "; --resume goes on"))


def _check_out(out: str) -> None:
    """Raise OSError, before anything is loaded, if the network cannot be written."""
    if Path(out).suffix == ".safetensors":
        check_writable(Path(out))
