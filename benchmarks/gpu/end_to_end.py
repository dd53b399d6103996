"""The models as wholes: StyleGAN2's generator and training, and the steps of style transfer and of dreams."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

import imgops
from imgops.models.stylegan2 import Generator
from imgops.training import Trainer, TrainingConfig

from .. import bench_dream, bench_style
from ..comparison import Comparison, check
from .timing import Clock


@dataclass(frozen=True)
class Configuration:
    """A training configuration, by what sets its cost."""

    resolution: int
    batch: int
    channel_base: int
    num_fp16_res: int
    #: for the parts in half precision
    channels_last: bool = False

    @property
    def name(self) -> str:
        return f"stylegan2 {self.resolution} px{' channels-last' if self.channels_last else ''}"

    def training(self, device: str) -> TrainingConfig:
        return TrainingConfig(
            data="",
            out="",
            resolution=self.resolution,
            batch=self.batch,
            channel_base=self.channel_base,
            num_fp16_res=self.num_fp16_res,
            half_channels_last=self.channels_last,
            device=device,
            # also below the resolution where it is the default, so that every figure is of the same work
            pl_weight=2.0,
            mbstd_group=min(4, self.batch),
        ).resolve()


def configurations(dry: bool) -> tuple[list[Configuration], list[Configuration]]:
    """The configurations that the goals name, 256 and 1024 px, and others; each in both layouts."""
    if dry:
        return [Configuration(8, 2, 64, 0)], [Configuration(8, 2, 64, 0, True)]
    named = Configuration(256, 32, 16384, 4), Configuration(1024, 8, 32768, 4)
    others = Configuration(512, 16, 32768, 4), Configuration(128, 32, 16384, 4)

    def layouts(these: tuple[Configuration, ...]) -> list[Configuration]:
        return [replace(this, channels_last=last) for this in these for last in (False, True)]

    return layouts(named), layouts(others)


def _peak(device: str) -> float | None:
    return torch.cuda.max_memory_allocated(device) / 1e9 if torch.device(device).type == "cuda" else None


def _reset_peak(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def generate(clock: Clock, configuration: Configuration, impl: str | None) -> dict[str, Any]:
    """Images per second of the generator in evaluation mode."""
    torch.manual_seed(0)
    device = str(clock.device)
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


def train(clock: Clock, configuration: Configuration, impl: str | None) -> dict[str, Any]:
    """Seconds per 1000 images: steps with neither regularizer, with one, with both, in the proportion they come in."""
    device = str(clock.device)
    training = configuration.training(device)
    trainer = Trainer(training)
    size = (training.batch, training.channels, training.resolution, training.resolution)
    real = torch.randint(0, 256, size, dtype=torch.uint8, device=device)
    labels = torch.zeros(training.batch, dtype=torch.int64, device=device)
    _reset_peak(device)

    def step(number: int) -> float:
        # a step runs the regularizers whose interval divides its number
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
        peak = _peak(device)
        # the share of a plain step in which a kernel runs; the rest waits for launches
        busy = _kernel_seconds(lambda: step(1)) / seconds["plain"] if clock.on_gpu else 0.0
    counts = {"plain": penalty - penalty // path, "path length": penalty // path - 1, "both": 1}
    each = sum(counts[kind] * seconds[kind] for kind in kinds) / penalty
    return {
        "seconds_per_1000_images": each * 1000 / training.batch,
        "step_seconds": seconds,
        # None where the profiler sees no kernel
        "busy": busy or None,
        "peak_gb": peak,
        **vars(configuration),
    }


def _kernel_seconds(run: Callable[[], object]) -> float:
    """Seconds of all the kernels and copies on a GPU that the call launches."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
    on_gpu = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return sum(event.self_device_time_total for event in on_gpu if not event.is_user_annotation) / 1e6


def picture_steps(dry: bool, device: str) -> list[tuple[str, Callable[[], Comparison]]]:
    """Steps of style transfer and of dreams, by imgops and as one writes them: names, and what makes them."""
    size = 64 if dry else 512
    shapes = dict(list(bench_style.ENCODERS.items())[: 1 if dry else None])
    styles = [
        (
            f"style step: {name}, {size}x{size}",
            lambda name=name, shape=shape: bench_style.comparison(name, shape, (size, size), device),
        )
        for name, shape in shapes.items()
    ]
    return [*styles, (f"dream step: {size}x{size}", lambda: bench_dream.step(size, device))]


def steps_of(clock: Clock, make: Callable[[], Comparison]) -> dict[str, Any]:
    """Steps per second of each side, once checked to agree without TF32; launches count, as they do for a user."""
    torch.manual_seed(0)
    comparison, tf32 = make(), torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        check(comparison)
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
    times = {side: clock.measure([call], 0.5, graph=False) for side, call in comparison.sides.items()}
    return {side: {**t, "steps_per_second": 1 / t["seconds"]} for side, t in times.items()}
