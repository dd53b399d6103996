"""The work of ``imgops demo``: the fused ops timed against plain PyTorch, a picture in a style and one dreamt, and a
small network trained within minutes."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from .. import _backend, _eager, bias_act, modulated_conv2d, setup_filter, upfirdn2d, use_impl
from ..data import ImageDataset, open_dataset
from ..data.pictures import read_picture, resample_picture, resize_picture, write_picture
from ..dream import DreamSettings, default_objectives, dream, resolved_settings
from ..models.encoders.weights import default_weights, load_encoder
from ..style.settings import METHODS, OptimizeSettings, TransferSettings
from ..style.transfer import Transfer
from ..training import Trainer, TrainingConfig, image_grid, load_generator, train
from ..training.grid import png_bytes, seeded_samples
from ._pictures import make_folder
from ._quiet import is_quiet
from ._timing import compare

#: seconds that the speed table may take for each row, and the part of the demo's time that all rows may
ROW_SECONDS, SPEED_PART = 5.0, 0.15
#: records of a loss that are marked one by one in its plot
FEW = 10
#: seconds kept for drawing at the end, and the fewest for the training
DRAWING, LEAST = 8.0, 1.0
REAL, GENERATED = 4, 8
#: what is painted in what, and what is dreamt; the longer side of each in pixels
STYLE_PAIR, DREAMT, PICTURE_SIZE = ("samples:coffee", "samples:retina"), "samples:astronaut", 192
#: the style whose network comes with the package; it is dark, so the content's colors are kept
FAST = "samples:hubble"


def settings(out: str, seed: int) -> TrainingConfig:
    """Settings that learn textures of 32 px within a few minutes on a CPU."""
    return TrainingConfig(
        data="samples:textures",
        out=out,
        resolution=32,
        batch=8,
        seed=seed,
        kimg=200.0,
        log_kimg=0.25,
        grid_kimg=2.0,
        # a short run must learn the classes first, so z is small; the noise inputs give the variety
        z_dim=16,
        w_dim=64,
        mapping_layers=1,
        d_mapping_layers=1,
        noise_strength=1.0,
        channel_base=512,
        channel_max=32,
        mbstd_group=4,
        g_lr=0.005,
        d_lr=0.004,
        pl_weight=0.0,
        # of textures there are crops without end
        augment="none",
        r1_gamma=0.1,
        r1_interval=8,
        style_mixing=0.0,
        ema_kimg=0.3,
        ema_rampup=0.1,
    )


class Row(NamedTuple):
    """A row of the speed table: what ran, what it is compared with, and the milliseconds of each."""

    what: str
    against: str
    fused: float
    eager: float


def run(out: str, seconds: float, seed: int) -> None:
    """Time the ops, train until the time is up, draw, and say where everything is.

    Args:
        out: folder for the results; each run trains in a new folder inside.
        seconds: limit for all of it.
        seed: seed of everything random.
    """
    start = time.monotonic()
    console = Console(highlight=False, quiet=is_quiet())
    folder = Path(out)
    make_folder(folder)
    runs = (folder / f"run-{i}" for i in range(1, 1_000_000))
    config = settings(str(next(path for path in runs if not path.exists())), seed).resolve()
    dataset = open_dataset(config.data, config.resolution, seed=seed)

    console.print("timing the ops ...")
    rows = measure_speed(config, dataset, min(ROW_SECONDS, SPEED_PART * seconds / 6))
    note = _note(config.device)
    if torch.device(config.device).type == "cpu":
        _choose_threads(config, dataset, min(ROW_SECONDS, SPEED_PART * seconds / 6))
    console.print("painting and dreaming ...")
    _paint(folder, seed, config.device, min(1.0, seconds / 300))
    left = max(seconds - (time.monotonic() - start) - DRAWING, LEAST)
    console.print(f"training a StyleGAN2 of {config.resolution} px on {config.data} for {left:.0f} seconds ...")
    train(config, max_seconds=left)

    (folder / "samples.png").write_bytes(png_bytes(_samples(config.out, dataset, config.device)))
    _draw_losses(Path(config.out) / "stats.jsonl", folder / "losses.png")
    (folder / "speed.md").write_text(_markdown(rows, note))
    _print_table(console, rows, note)
    for name, what in (
        ("style.png", "a picture, a style, results of optimize, nnst, fast (hubble) and adain: imgops style"),
        ("dream.png", "a picture, and its dream: imgops dream"),
        ("samples.png", "real and generated pictures, a class per row"),
        ("losses.png", "the losses"),
        ("speed.md", "the table above"),
        (Path(config.out).name, "the trained network: imgops generate " + config.out),
    ):
        console.print(f"  {folder / name}  {what}", soft_wrap=True)


def _paint(folder: Path, seed: int, device: str, effort: float) -> None:
    """Write style.png and dream.png; ``effort`` is the share of the usual steps that are taken."""
    content, style = (read_picture(name).pixels for name in STYLE_PAIR)
    first, later = (max(1, round(count * effort)) for count in (120, 60))
    optimize = OptimizeSettings(seed=seed, steps=first, later_steps=later)
    shown = [resize_picture(content, PICTURE_SIZE), _cropped(style, content)]
    for method in METHODS:
        fast = method == "fast"
        settings = TransferSettings(
            method=method,
            keep_colors="coral" if fast else None,
            size=PICTURE_SIZE,
            optimize=optimize,
            device=device,
        )
        shown.append(Transfer(settings, [FAST] if fast else [])(content, [] if fast else [style]))
    write_picture(folder / "style.png", torch.cat(shown, 2), settings={"command": "demo", "seed": seed})
    network = load_encoder(default_weights(), frame=False).to(device)
    picture = resize_picture(read_picture(DREAMT).pixels, PICTURE_SIZE)
    objectives = default_objectives(network)
    dreaming = resolved_settings(DreamSettings(seed=seed), network, objectives)
    dreaming = dataclasses.replace(dreaming, steps=max(1, round(dreaming.steps * effort)))
    dreamt = dream(picture, network, objectives, dreaming).cpu()
    write_picture(folder / "dream.png", torch.cat([picture, dreamt], 2), settings={"command": "demo", "seed": seed})


def _cropped(style: Tensor, content: Tensor) -> Tensor:
    """The middle of the style at the content's shape."""
    height, width = resize_picture(content, PICTURE_SIZE).shape[1:]
    scale = max(height / style.shape[1], width / style.shape[2])
    small = resample_picture(style, round(scale * style.shape[1]), round(scale * style.shape[2]))
    top, left = (small.shape[1] - height) // 2, (small.shape[2] - width) // 2
    return small[:, top : top + height, left : left + width]


def measure_speed(config: TrainingConfig, dataset: ImageDataset, budget: float) -> list[Row]:
    """The speed table, both sides of a row measured in turns for ``budget`` seconds."""
    device = torch.device(config.device)
    rows = []
    for what, fused, eager in op_pairs(device):
        rows.append(Row(what, "fastest plain form", *(1e3 * t for t in compare(fused, eager, budget))))
    step = _stepper(config, dataset)
    for what, at in ("training step", 1), ("training step with R1", 0):
        times = compare(functools.partial(step, at, None), functools.partial(step, at, "reference"), budget)
        rows.append(Row(f"{what}, {config.batch}x{config.resolution} px", "reference", *(1e3 * t for t in times)))
    return rows


def _stepper(config: TrainingConfig, dataset: ImageDataset) -> Callable[[int, str | None], None]:
    """A function that trains a network of its own for a step of this number, 0 with R1 and 1 without, on a backend."""
    pictures = [dataset[i] for i in range(config.batch)]
    batch = torch.stack([picture for picture, _ in pictures]), torch.tensor([label for _, label in pictures])
    trainer = Trainer(config, dataset.labels, dataset.class_names)

    def step(number: int, impl: str | None) -> None:
        trainer.steps = number
        with use_impl(impl):
            trainer.step(*batch)

    return step


def _choose_threads(config: TrainingConfig, dataset: ImageDataset, budget: float) -> None:
    """Train on one thread where that is faster: on a busy machine small layers on many threads wait for the last."""
    step, everyone = _stepper(config, dataset), torch.get_num_threads()

    def on(threads: int) -> None:
        torch.set_num_threads(threads)
        step(1, None)

    one, many = compare(lambda: on(1), lambda: on(everyone), budget)
    torch.set_num_threads(1 if one < many else everyone)


def op_pairs(device: torch.device) -> list[tuple[str, Callable[[], Tensor], Callable[[], Tensor]]]:
    """For each op (what runs, a call of it, the same in plain PyTorch); the last two ops with their gradients."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int, grad: bool = False) -> Tensor:
        return torch.randn(shape, generator=generator).to(device).requires_grad_(grad)

    def with_gradients(function: Callable[[], Tensor], inputs: list[Tensor], dy: Tensor) -> Callable[[], Tensor]:
        def call() -> Tensor:
            y = function()
            torch.autograd.grad(y, inputs, dy)
            return y.detach()

        return call

    image, taps = random(4, 64, 128, 128), setup_filter([1, 3, 3, 1], device=device)

    x, b = random(8, 128, 64, 64, grad=True), random(128, grad=True)
    dy = random(8, 128, 64, 64)

    xm, weight, styles = random(4, 64, 64, 64, grad=True), random(64, 64, 3, 3, grad=True), random(4, 64, grad=True)
    noise, bias, dym = random(4, 1, 64, 64), random(64, grad=True), random(4, 64, 64, 64)
    given: dict[str, Any] = {"noise": noise, "bias": bias, "act": "lrelu", "padding": 1}
    modulated = [xm, weight, styles, bias]
    return [
        (
            "upfirdn2d, 4x64x128x128, up=2",
            lambda: upfirdn2d(image, taps, up=2, padding=(2, 1, 2, 1), gain=4),
            lambda: _eager.upfirdn2d(image, taps, up=2, down=1, padding=(2, 1, 2, 1), gain=4),
        ),
        (
            "bias_act with gradients, 8x128x64x64, lrelu",
            with_gradients(lambda: bias_act(x, b, act="lrelu"), [x, b], dy),
            with_gradients(lambda: _eager.bias_act(x, b), [x, b], dy),
        ),
        (
            "modulated_conv2d with gradients, 4x64x64x64, 3x3",
            with_gradients(lambda: modulated_conv2d(xm, weight, styles, **given), modulated, dym),
            with_gradients(lambda: _eager.modulated_conv2d(xm, weight, styles, **given), modulated, dym),
        ),
    ]


def _note(device: str) -> str:
    kind = torch.device(device).type
    with_fused = {op: _backend.choose(op, kind, None, _backend.load()) for op in _backend.OPS}
    if set(with_fused.values()) == {"reference"}:
        return "There are no fused kernels here, so that imgops ran its reference (imgops info says why)."
    place = torch.cuda.get_device_name() if kind == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return f"Medians on {place}, torch {torch.__version__}; imgops ran {', '.join(sorted(set(with_fused.values())))}."


def _cells(row: Row) -> list[str]:
    return [row.what, f"{row.fused:.2f}", f"{row.eager:.2f}", f"{row.eager / row.fused:.2f}x", row.against]


HEADINGS = ("", "imgops, ms", "plain PyTorch, ms", "speed-up", "plain PyTorch is")


def _markdown(rows: list[Row], note: str) -> str:
    lines = [HEADINGS, ["---"] * len(HEADINGS), *map(_cells, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{note}\n"


def _print_table(console: Console, rows: list[Row], note: str) -> None:
    table = Table(caption=note, caption_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in HEADINGS[1:4] else "left")
    for row in rows:
        table.add_row(*_cells(row))
    console.print(table)


def _samples(checkpoint: str, dataset: ImageDataset, device: str) -> Any:
    generator, meta = load_generator(checkpoint, device)
    rows = []
    for k in range(meta["c_dim"]):
        rows += [dataset.first_of_class(k, REAL), seeded_samples(generator, range(GENERATED), k)]
    headings = [(0, "real"), (REAL, "generated")]
    return image_grid(torch.cat(rows), REAL + GENERATED, meta["class_names"], headings, zoom=3)


def _draw_losses(stats: Path, path: Path) -> None:
    import matplotlib

    # a picture in a file needs no display
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    records = [json.loads(line) for line in stats.read_text().splitlines()]
    figure, (upper, lower) = plt.subplots(2, 1, sharex=True, figsize=(8, 6), layout="constrained")
    for axes, name, label in (upper, "loss_g", "generator"), (upper, "loss_d", "discriminator"), (lower, "r1", "R1"):
        points = [(r["images"] / 1000, r[name]) for r in records if name in r]
        if points:
            # a single point has no line that could be seen
            axes.plot(*zip(*points, strict=True), label=label, marker="o" if len(points) < FEW else None)
    upper.set_ylabel("logistic loss")
    lower.set_ylabel("squared gradient on real images")
    lower.set_xlabel("thousands of real images shown")
    for axes in upper, lower:
        if axes.lines:
            axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
