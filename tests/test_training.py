"""The losses' formulas, the step, checkpoints that survive a kill, and resuming bit by bit."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image
from torch import Tensor

from imgops.data import open_dataset
from imgops.training import (
    CheckpointError,
    DivergenceError,
    Trainer,
    TrainingConfig,
    find_checkpoint,
    load_generator,
    train,
)
from imgops.training import checkpoint as files
from imgops.training.grid import image_grid, seeded_latents, seeded_samples, to_uint8
from imgops.training.losses import discriminator_loss, ema_decay, generator_loss, lazy_adam, path_lengths, r1_penalty
from imgops.training.recipes.stylegan2 import StyleGAN2


def tiny(out: object, **changes: object) -> TrainingConfig:
    """A run of 8 px and 4 images per step."""
    small = {
        "data": "samples:textures",
        "out": str(out),
        "resolution": 8,
        "batch": 4,
        "kimg": 0.024,
        "log_kimg": 0.008,
        "grid_kimg": 1.0,
        "checkpoint_kimg": 0.008,
        "z_dim": 8,
        "w_dim": 8,
        "mapping_layers": 2,
        "d_mapping_layers": 2,
        "channel_base": 64,
        "channel_max": 8,
        "r1_interval": 2,
        "pl_weight": 2.0,
        "pl_interval": 3,
        "device": "cpu",
    }
    return TrainingConfig(**{**small, **changes}).resolve()


def batch_of(trainer: Trainer) -> tuple[Tensor, Tensor]:
    data = open_dataset(trainer.config.data, trainer.config.resolution)
    n = trainer.config.batch
    return torch.stack([data[i][0] for i in range(n)]), torch.tensor([data[i][1] for i in range(n)])


def trainer_of(config: TrainingConfig) -> Trainer:
    data = open_dataset(config.data, config.resolution)
    return Trainer(config, data.labels, data.class_names)


def test_logistic_losses():
    real, fake = torch.randn(5, 1, dtype=torch.float64), torch.randn(5, 1, dtype=torch.float64)
    assert torch.allclose(generator_loss(fake), -fake.sigmoid().log().mean())
    assert torch.allclose(
        discriminator_loss(real, fake), -real.sigmoid().log().mean() - (1 - fake.sigmoid()).log().mean()
    )


def test_r1_penalty_is_the_squared_gradient():
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    a = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)
    penalty = r1_penalty(x, (x.square() * a).sum(dim=(1, 2, 3))[:, None])
    assert torch.allclose(penalty, (2 * x * a).square().sum(dim=(1, 2, 3)).mean())
    (gradient,) = torch.autograd.grad(penalty, a)
    assert torch.allclose(gradient, (8 * a * x.square()).mean(0))


def test_path_lengths_of_a_linear_map():
    # image[n, p] = sum over l, j of w[n, l, j] * m[p, l, j]: J^T y is known
    w = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    m = torch.randn(16, 3, 5, dtype=torch.float64)
    torch.manual_seed(1)
    lengths = path_lengths(torch.einsum("nlj,plj->np", w, m).reshape(2, 1, 4, 4), w)
    torch.manual_seed(1)
    y = torch.randn(2, 1, 4, 4, dtype=torch.float64).reshape(2, 16) / 4
    expected = torch.einsum("np,plj->nlj", y, m).square().sum(2).mean(1).sqrt()
    assert torch.allclose(lengths, expected)


def test_lazy_adam():
    assert lazy_adam(0.002, 0.0, 0.99, None) == (0.002, (0.0, 0.99))
    lr, (beta1, beta2) = lazy_adam(0.002, 0.5, 0.99, 16)
    assert math.isclose(lr, 0.002 * 16 / 17)
    # 17 steps forget as much as 16 did
    assert math.isclose(beta1**17, 0.5**16)
    assert math.isclose(beta2**17, 0.99**16)
    assert isinstance(lazy_adam(0.002, 0, 1, 16)[1][0], float)


def test_lazy_adam_reaches_the_optimizers(tmp_path):
    trainer = trainer_of(tiny(tmp_path, pl_weight=0.0))
    g, d = (trainer.recipe.optimizers[name].param_groups[0] for name in ("G", "D"))
    assert g["lr"] == 0.0025
    assert g["betas"] == (0.0, 0.99)
    assert math.isclose(d["lr"], 0.0025 * 2 / 3)
    assert math.isclose(d["betas"][1], 0.99 ** (2 / 3))


def test_ema_decay():
    assert ema_decay(32, 10**9, 10, None) == ema_decay(32, 10**9, 10, 0.05) == 0.5 ** (32 / 10_000)
    assert ema_decay(32, 64_000, 10, 0.05) == 0.5 ** (32 / 3200)
    assert ema_decay(32, 0, 10, 0.05) == 0.0
    assert ema_decay(32, 100, 0, None) == 0.0


@pytest.mark.parametrize("rampup", [0.0, 0.5])
def test_step_moves_the_average_by_its_formula(tmp_path, rampup):
    trainer = trainer_of(tiny(tmp_path, ema_kimg=0.01, ema_rampup=rampup))
    batch = batch_of(trainer)
    for seen in 0, 4, 8:
        before = [p.clone() for p in trainer.G_ema.parameters()]
        trainer.step(*batch)
        # the half-life is at most a share of the images before the step
        half_life = min(10, seen * rampup) if rampup else 10
        decay = 0.5 ** (4 / half_life) if half_life else 0
        for old, now, new in zip(before, trainer.G_ema.parameters(), trainer.G.parameters(), strict=True):
            assert torch.allclose(now, new + (old - new) * decay, atol=1e-6)
    assert torch.equal(trainer.G_ema.mapping.w_avg, trainer.G.mapping.w_avg)
    assert trainer.G.mapping.w_avg.abs().sum() > 0


def test_regularizers_take_their_turns(tmp_path):
    trainer = trainer_of(tiny(tmp_path))
    batch = batch_of(trainer)
    names = [set(trainer.step(*batch)) & {"r1", "path_length"} for _ in range(4)]
    assert names == [{"r1", "path_length"}, set(), {"r1"}, {"path_length"}]
    assert trainer.seen == 16
    assert float(trainer.recipe.pl_mean) > 0


def test_discriminator_learns(tmp_path):
    trainer = trainer_of(tiny(tmp_path, g_lr=1e-9, d_lr=0.01, pl_weight=0.0))
    batch = batch_of(trainer)
    losses = [float(trainer.step(*batch)["loss_d"]) for _ in range(40)]
    assert sum(losses[-5:]) / 5 < 0.6 * losses[0]


def test_generator_learns(tmp_path):
    trainer = trainer_of(tiny(tmp_path, d_lr=1e-9, g_lr=0.01, r1_gamma=0.0, pl_weight=0.0))
    batch = batch_of(trainer)
    losses = [float(trainer.step(*batch)["loss_g"]) for _ in range(40)]
    assert sum(losses[-5:]) / 5 < losses[0] - 0.05


def test_micro_batches_do_what_the_whole_batch_does(tmp_path):
    gradients = []
    for micro in 8, 4, 2:
        trainer = trainer_of(tiny(tmp_path, batch=8, micro_batch=micro, mbstd_group=2, noise_strength=0.5))
        measured = trainer.step(*batch_of(trainer))
        moments = trainer.recipe.state() | {"w_avg": trainer.G.mapping.w_avg} | measured
        gradients.append({name: value for name, value in moments.items() if not name.endswith("exp_avg_sq")})
    for part in gradients[1:]:
        for name, value in gradients[0].items():
            # sums that nearly cancel, as that of a first bias, keep few digits
            assert torch.allclose(value, part[name], rtol=1e-3, atol=3e-4 * float(value.abs().max())), name


@pytest.mark.parametrize("channels", [1, 4])
def test_channels_and_no_labels(tmp_path, channels):
    last = train(tiny(tmp_path / "run", channels=channels, labels=False, kimg=0.004), quiet=True)
    generator, meta = load_generator(last)
    assert meta["c_dim"] == 0
    assert generator(torch.randn(2, 8), noise_mode="const").shape == (2, channels, 8, 8)


@pytest.mark.parametrize("channels_last", [False, True])
def test_half_precision_step(tmp_path, channels_last):
    trainer = trainer_of(tiny(tmp_path, num_fp16_res=1, half_dtype="bfloat16", half_channels_last=channels_last))
    assert all(math.isfinite(float(v)) for v in trainer.step(*batch_of(trainer)).values())
    assert trainer.G.synthesis.b8.half_channels_last == channels_last


def contents(run: object) -> dict[str, Tensor]:
    last = find_checkpoint(run)
    return {
        f"{name}.{k}": t for name in ("G", "D", "G_ema", "state") for k, t in files.read_tensors(last, name).items()
    }


def stats(run: object) -> list[dict[str, float]]:
    keep = ("images", "loss_g", "loss_d", "r1", "path_length")
    lines = (run / "stats.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k in keep} for line in lines]


def test_resume_is_exact(tmp_path):
    train(tiny(tmp_path / "whole", kimg=0.048), quiet=True)
    train(tiny(tmp_path / "parts"), quiet=True)
    torch.randn(100)
    train(tiny(tmp_path / "parts", kimg=0.048), quiet=True, resume=True)
    assert stats(tmp_path / "whole") == stats(tmp_path / "parts")
    whole, parts = contents(tmp_path / "whole"), contents(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    assert [p.name[-2:] for p in files.checkpoints(tmp_path / "whole")] == ["32", "40", "48"]


def test_run_folder(tmp_path):
    run = tmp_path / "run"
    last = train(tiny(run), quiet=True)
    assert last == run / "checkpoint-0000000024"
    assert json.loads((run / "config.json").read_text())["resolution"] == 8
    assert Image.open(run / "samples" / "0000000024.png").height == Image.open(run / "reals.png").height
    assert list((run / "tensorboard").iterdir())
    assert [s["images"] for s in stats(run)] == [8, 16, 24]
    with pytest.raises(ValueError, match="already holds a run; --resume continues it"):
        train(tiny(run), quiet=True)
    with pytest.raises(CheckpointError, match="no checkpoint to resume from"):
        train(tiny(tmp_path / "none"), quiet=True, resume=True)


@pytest.mark.parametrize("other", [{"seed": 5}, {"g_lr": 0.5}, {"batch": 8}, {"r1_gamma": 9.0}], ids=str)
def test_a_run_goes_on_with_its_own_settings_alone(tmp_path, other):
    run = tmp_path / "run"
    train(tiny(run, kimg=0.008), quiet=True)
    before = (run / "config.json").read_bytes()
    (name,) = other
    with pytest.raises(ValueError, match=f"{name} cannot change when a run is continued"):
        train(tiny(run, **other), quiet=True, resume=True)
    assert (run / "config.json").read_bytes() == before


def test_what_is_left_open_stays_as_it_was_decided(tmp_path):
    run = tmp_path / "run"
    open_ = TrainingConfig(
        data="samples:textures", out=str(run), resolution=8, preset="tiny", kimg=0.016, channel_max=8, device="cpu"
    )
    train(open_, quiet=True, on_step=lambda *_: True)
    # the preset may say another thing where there are other processes, or another device
    recorded = json.loads((find_checkpoint(run) / "config.json").read_text())
    recorded["config"]["r1_gamma"] = 0.125
    (find_checkpoint(run) / "config.json").write_text(json.dumps(recorded))
    train(dataclasses.replace(open_, kimg=0.032), quiet=True, resume=True)
    assert json.loads((run / "config.json").read_text())["r1_gamma"] == 0.125


def test_a_new_run_does_not_take_what_one_left_that_had_no_checkpoint(tmp_path):
    run, ours = tmp_path / "run", ["samples/mine.png", "ema/notes.txt", "samples/0001.png"]
    left = [
        "samples/0000000400.png",
        "ema/ema-0000000400.safetensors",
        "tensorboard/events.out.tfevents.1.a",
        "wandb-id.txt",
    ]
    for name in [*left, *ours]:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("left")
    train(tiny(run, kimg=0.008), quiet=True)
    assert not [name for name in left if (run / name).exists()]
    assert all((run / name).read_text() == "left" for name in ours)


def test_only_plain_files_in_a_checkpoint(tmp_path):
    last = train(tiny(tmp_path / "run", kimg=0.004), quiet=True)
    assert sorted(p.name for p in last.iterdir()) == [
        "D.safetensors",
        "G.safetensors",
        "G_ema.safetensors",
        "config.json",
        "state.safetensors",
    ]


@pytest.mark.parametrize("moment", ["write", "rename"])
def test_kill_while_saving_leaves_the_last_good_one(tmp_path, monkeypatch, moment):
    trainer = trainer_of(tiny(tmp_path))
    trainer.step(*batch_of(trainer))
    good = trainer.save(tmp_path)
    trainer.step(*batch_of(trainer))
    real_replace = os.replace

    def replace(source, target):
        if moment == "rename" and os.path.isdir(source):
            raise KeyboardInterrupt
        real_replace(source, target)
        if moment == "write" and "D.safetensors" in str(target):
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        trainer.save(tmp_path)
    monkeypatch.undo()
    assert files.checkpoints(tmp_path) == [good]
    again = trainer_of(tiny(tmp_path))
    again.load(find_checkpoint(tmp_path))
    assert again.seen == 4
    # what the kill left behind is swept away by the next save
    trainer.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-0000000004", "checkpoint-0000000008"]


def test_interrupt_saves_and_says_where(tmp_path):
    run = tmp_path / "run"
    config = dataclasses.asdict(tiny(run, kimg=1000.0, checkpoint_kimg=1000.0))
    code = f"from imgops.training import *; train(TrainingConfig(**{config!r}))"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 60
    while not ((run / "stats.jsonl").exists() and (run / "stats.jsonl").stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=60)
    (saved,) = files.checkpoints(run)
    assert f"interrupted; saved {saved}" in text
    assert f"imgops train --out {run} --resume" in text
    trainer = trainer_of(tiny(run))
    trainer.load(saved)
    assert trainer.seen == int(saved.name[-10:]) > 0


def test_time_limit(tmp_path):
    last = train(tiny(tmp_path / "run", kimg=1000.0), quiet=True, max_seconds=1.0)
    assert last.exists()


def test_divergence_stops_and_keeps_the_last_good_one(tmp_path):
    run = tmp_path / "run"
    good = train(tiny(run, kimg=0.008), quiet=True)
    trainer = trainer_of(tiny(run))
    with torch.no_grad():
        trainer.G.synthesis.b8.conv1.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(DivergenceError, match=r"G\.synthesis\.b8\.conv1\.weight is no longer finite"):
        trainer.save(run)
    with pytest.raises(DivergenceError, match=r"loss_g became nan after 0 images; .*lower learning rate"):
        trainer.check_finite({"loss_g": float("nan")})
    assert files.checkpoints(run) == [good]

    def spoil(trainer: Trainer, measured: object) -> None:
        with torch.no_grad():
            trainer.G.synthesis.b8.conv1.weight[0, 0, 0, 0] = float("inf")

    with pytest.raises(DivergenceError):
        train(tiny(run, kimg=1.0), quiet=True, resume=True, on_step=spoil)
    assert find_checkpoint(run) == good


def test_damaged_checkpoints(tmp_path):
    last = train(tiny(tmp_path / "run", kimg=0.004), quiet=True)
    trainer = trainer_of(tiny(tmp_path / "run"))
    with pytest.raises(CheckpointError, match="does not fit the network of its"):
        files.load_into(trainer.D, last, "G")
    (last / "D.safetensors").write_bytes((last / "D.safetensors").read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"D\.safetensors: missing or damaged"):
        trainer.load(last)
    meta = json.loads((last / "config.json").read_text())
    (last / "config.json").write_text(json.dumps({**meta, "format": 99}))
    with pytest.raises(CheckpointError, match="has format 99"):
        load_generator(last)
    (last / "config.json").write_text(json.dumps({key: value for key, value in meta.items() if key != "c_dim"}))
    with pytest.raises(CheckpointError, match=r"config\.json: damaged, it lacks c_dim"):
        load_generator(last)
    (last / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json: missing or damaged"):
        load_generator(last)
    with pytest.raises(CheckpointError, match="neither a checkpoint nor the folder of a run"):
        find_checkpoint(tmp_path)


def test_automatic_settings():
    config = TrainingConfig("d", "o", resolution=32, batch=16, device="cpu").resolve()
    assert config.r1_gamma == 0.0002 * 1024 / 16
    assert config.micro_batch is None
    assert config.chunk == 16
    with pytest.raises(ValueError, match="resolution cannot change when a run is continued; it is 32, got 64"):
        config.changed({"resolution": 64})
    assert config.changed({"kimg": 5.0, "resolution": 32}).kimg == 5.0


def test_grid():
    images = torch.arange(6, dtype=torch.uint8).reshape(6, 1, 1, 1).expand(6, 3, 8, 8) * 40
    plain = image_grid(images, 3)
    assert plain.size == (24, 16)
    assert plain.getpixel((23, 15)) == (200, 200, 200)
    labeled = image_grid(images, 3, ["a", "b"], [(0, "real"), (1, "generated")], zoom=2)
    assert labeled.getpixel((labeled.width - 1, labeled.height - 1)) == (200, 200, 200)
    assert labeled.width > 48
    assert labeled.height > 32
    assert to_uint8(torch.tensor([-2.0, -1.0, 0.0, 1.0])).tolist() == [0, 0, 128, 255]
    assert torch.equal(seeded_latents([5, 3], 4)[1:], seeded_latents([3], 4))


def test_a_seed_fixes_latent_and_noise(tmp_path):
    trainer = trainer_of(tiny(tmp_path, noise_strength=1.0))
    strengths = [p for name, p in trainer.G_ema.named_parameters() if name.endswith("noise_strength")]
    assert strengths
    assert all(float(p) == 1.0 for p in strengths)
    state = torch.get_rng_state()
    pair = seeded_samples(trainer.G_ema, [5, 3], 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(seeded_samples(trainer.G_ema, [3], 1)[0], pair[1])
    assert not torch.equal(seeded_samples(trainer.G_ema, [3], 1, noise_mode="const")[0], pair[1])
    assert not torch.equal(seeded_samples(trainer.G_ema, [3], 2)[0], pair[1])


def test_each_step_is_told_and_may_be_the_last(tmp_path):
    told = []

    def on_step(trainer, measured):
        told.append((trainer.steps, float(measured["loss_g"])))
        return trainer.steps == 3

    last = train(tiny(tmp_path / "run", kimg=1000.0), quiet=True, on_step=on_step)
    assert [step for step, _ in told] == [1, 2, 3]
    assert files.read_meta(last)["steps"] == 3


def test_minutes_limit_a_run_and_may_change_when_it_goes_on(tmp_path):
    config = tiny(tmp_path / "run", kimg=1000.0, minutes=0.05)
    seen = files.read_meta(train(config, quiet=True))["seen"]
    assert 0 < seen < 1_000_000
    kept = files.read_meta(files.find_checkpoint(tmp_path / "run"))["config"]
    assert kept.changed({"minutes": 5.0}).minutes == 5.0
    with pytest.raises(ValueError, match="minutes must be above 0; got 0"):
        tiny(tmp_path, minutes=0.0).resolve()


def test_a_recipe_of_ones_own(tmp_path):
    class Louder(StyleGAN2):
        def step(self, *args, **kwargs):
            return {**super().step(*args, **kwargs), "loudness": torch.ones([])}

    train(tiny(tmp_path / "run"), quiet=True, recipe=Louder)
    records = [json.loads(line) for line in (tmp_path / "run" / "stats.jsonl").read_text().splitlines()]
    assert [record["loudness"] for record in records] == [1] * len(records) != []
