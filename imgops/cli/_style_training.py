"""The work of ``imgops style train-fast`` and ``train-adain``: a run of the engine, a preview, a line at the end."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..data.pictures import write_picture
from ..style._file_runs import run, state_path
from ..style.training_config import AdaINStyleConfig, FastStyleConfig, StyleConfig, of_training
from ..training.processes import is_first
from ._options import TrainingRun
from ._pictures import check_results
from ._quiet import say
from .style_adain import Job as AdaINJob
from .style_fast import Job as FastJob


def train_fast(job: FastJob) -> None:
    """Train a network of one style."""
    config = of_training(
        job.settings, FastStyleConfig, data=job.data, style=job.style, weights=job.weights, **_places(job.out, job.run)
    )
    _train(config, job.out, job.run, [job.style])


def train_adain(job: AdaINJob) -> None:
    """Train a decoder for any style."""
    more = {"styles": job.styles, "weights": job.weights, "loss_weights": job.loss_weights}
    config = of_training(job.settings, AdaINStyleConfig, data=job.contents, **more, **_places(job.out, job.run))
    _train(config, job.out, job.run)


def _places(out: str, run: TrainingRun) -> dict[str, Any]:
    return {
        "out": str(state_path(out)),
        "network": out,
        "preprocessing": run.preprocessing,
        "device": run.device,
    }


def _train(config: StyleConfig, out: str, asked: TrainingRun, sources: list[str] | None = None) -> None:
    """Train, show pictures at saves, and say what there is at the end."""
    last, preview = "", asked.preview if is_first() else None
    if preview is not None:
        check_results([], preview, sources or [])

    def tell(step: int, steps: int, losses: dict[str, float], picture: Tensor | None) -> None:
        nonlocal last
        last = f"step {step} of {steps}, {', '.join(f'{name} {value:.3g}' for name, value in losses.items())}"
        last += "" if step == steps else "; --resume goes on"
        if picture is not None and preview is not None:
            write_picture(preview, picture)

    picture = run(config, resume=asked.resume, on_step=tell)
    if picture is not None and preview is not None:
        # a limit in time may have ended the run where nothing was due
        write_picture(preview, picture)
    if is_first():
        say(f"{out}: {last or 'it had all its steps already'}")
