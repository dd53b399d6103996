"""StyleGAN2 as a whole: images a second of the generator, seconds of training per 1000 images, peak memory."""

from __future__ import annotations

import contextlib
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch

import imgops
from imgops.models.stylegan2 import Generator
from imgops.training.config import TrainingConfig
from imgops.training.trainer import Trainer

from .gpu_timing import Clock


@dataclass(frozen=True)
class Configuration:
    """A training configuration, by what sets its cost."""

    resolution: int
    batch: int
    channel_base: int
    num_fp16_res: int

    def training(self, device: str) -> TrainingConfig:
        return TrainingConfig(
            data="",
            out="",
            resolution=self.resolution,
            batch=self.batch,
            channel_base=self.channel_base,
            num_fp16_res=self.num_fp16_res,
            device=device,
            # also below the resolution where it is the default, so that every figure is of the same work
            pl_weight=2.0,
            mbstd_group=min(4, self.batch),
        ).resolve()


def configurations(dry: bool) -> list[Configuration]:
    """128 to 1024 px; those that the goals name come first."""
    if dry:
        return [Configuration(8, 2, 64, 0)]
    return [
        Configuration(256, 32, 16384, 4),
        Configuration(1024, 8, 32768, 4),
        Configuration(512, 16, 32768, 4),
        Configuration(128, 32, 16384, 4),
    ]


def _peak(device: str) -> float | None:
    return torch.cuda.max_memory_allocated(device) / 1e9 if torch.device(device).type == "cuda" else None


def _reset_peak(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def generate(clock: Clock, configuration: Configuration, device: str, impl: str | None) -> dict[str, Any]:
    """Images a second of the generator in evaluation."""
    torch.manual_seed(0)
    _reset_peak(device)
    training = configuration.training(device)
    network = Generator(**training.generator_arguments(0)).to(device).eval()
    z = torch.randn(configuration.batch, training.z_dim, device=device)
    with torch.no_grad(), imgops.use_impl(impl) if impl else contextlib.nullcontext():
        result = clock.measure([lambda: network(z)], 0.5)
    return {
        **result,
        "images_per_second": configuration.batch / result["seconds"],
        "peak_gb": _peak(device),
        **vars(configuration),
    }


def train(clock: Clock, configuration: Configuration, device: str, impl: str | None) -> dict[str, Any]:
    """Seconds per 1000 images: steps with neither regulariser, with one, with both, in the proportion they come in."""
    training = configuration.training(device)
    trainer = Trainer(training)
    size = (training.batch, training.channels, training.resolution, training.resolution)
    real = torch.randint(0, 256, size, dtype=torch.uint8, device=device)
    labels = torch.zeros(training.batch, dtype=torch.int64, device=device)
    _reset_peak(device)

    def step(number: int) -> float:
        # a step runs the regularisers whose interval divides its number
        trainer.steps = number
        if clock.on_gpu:
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        trainer.step(real, labels)
        if clock.on_gpu:
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    path, penalty = training.pl_interval, training.r1_interval
    if penalty % path:
        raise ValueError(f"the interval of R1 must be a multiple of that of the path length; got {penalty} and {path}")
    with imgops.use_impl(impl) if impl else contextlib.nullcontext():
        kinds = {"plain": 1, "path length": path, "both": 0}
        for number in kinds.values():
            step(number)
        seconds = {kind: statistics.median(step(n) for _ in range(1 if clock.dry else 5)) for kind, n in kinds.items()}
    counts = {"plain": penalty - penalty // path, "path length": penalty // path - 1, "both": 1}
    each = sum(counts[kind] * seconds[kind] for kind in kinds) / penalty
    return {
        "seconds_per_1000_images": each * 1000 / training.batch,
        "step_seconds": seconds,
        "peak_gb": _peak(device),
        **vars(configuration),
    }
