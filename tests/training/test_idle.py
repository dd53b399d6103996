"""Settings that do nothing beside the others are known, change no bit of a run, and are told where they are given."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from imgops.training import TrainingConfig
from tests.test_cli import TINY, imgops
from tests.test_training import batch_of, tiny, trainer_of

#: another value of each setting that can be idle
OTHERS = {
    "metrics_kimg": 7.0,
    "metrics_samples": 99,
    "metrics_weights": "nothing",
    "gp_weight": 3.0,
    "r1_gamma": 3.0,
    "r1_interval": 1,
    "augment_pipe": "color",
    "augment_p": 0.9,
    "ada_target": -1.0,
    "ada_interval": 1,
    "ada_kimg": 0.01,
    "diffaug": "cutout",
    "pl_interval": 1,
    "pl_decay": 0.9,
    "pl_batch_shrink": 1,
    "ema_rampup": 0.9,
    "half_dtype": "bfloat16",
    "half_channels_last": True,
}
METRICS = {"metrics_kimg", "metrics_samples", "metrics_weights"}
ADA = {"ada_target", "ada_interval", "ada_kimg"}
HALF = {"half_dtype", "half_channels_last"}
ALWAYS = METRICS | HALF


def idle(config: TrainingConfig) -> set[str]:
    return {name for names in config.idle().values() for name in names}


def trained(config: TrainingConfig) -> dict[str, Tensor]:
    """All tensors after a few steps."""
    trainer = trainer_of(config)
    for _ in range(2):
        trainer.step(*batch_of(trainer))
    named = {f"{k}.{name}": t for k, m in trainer.recipe.networks.items() for name, t in m.state_dict().items()}
    return {**named, **trainer.recipe.state()}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"augment": "ada"}, {"gp_weight", "diffaug"}),
        (
            {"augment": "none", "r1_gamma": 0.0},
            {"gp_weight", "r1_interval", "augment_pipe", "augment_p", "diffaug"} | ADA,
        ),
        (
            {"augment": "diffaug", "apa": True, "ema_kimg": 0.0},
            {"gp_weight", "augment_pipe", "augment_p", "ema_rampup"},
        ),
        (
            {"augment": "fixed", "loss": "wgan-gp", "gp_weight": 0.0, "pl_weight": 0.0},
            {"r1_gamma", "r1_interval", "diffaug", "pl_interval", "pl_decay", "pl_batch_shrink"} | ADA,
        ),
    ],
)
def test_what_is_idle_changes_nothing(tmp_path, settings, expected):
    config = tiny(tmp_path, **settings)
    assert idle(config) == expected | ALWAYS
    wanted = trained(config)
    # all of them at once, as each of them alone would take long
    found = trained(dataclasses.replace(config, **{name: OTHERS[name] for name in expected | HALF}))
    assert wanted.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in wanted.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OTHERS.keys() - METRICS - {"half_channels_last"}))
def test_what_is_not_idle_changes_something(tmp_path, name):
    fitting = {
        "gp_weight": {"loss": "wgan-gp"},
        "diffaug": {"augment": "diffaug"},
        "ada_target": {"augment_p": 0.5, "ada_interval": 1},
        "ada_interval": {"augment_p": 0.5, "ada_interval": 3, "ada_kimg": 0.1},
        "ada_kimg": {"augment_p": 0.5, "ada_interval": 1},
        "half_dtype": {"num_fp16_res": 1, "half_dtype": "float16"},
        "ema_rampup": {"ema_rampup": 0.1},
        "augment_pipe": {"augment": "fixed", "augment_p": 0.5},
    }
    config = tiny(tmp_path, **fitting.get(name, {}))
    assert name not in idle(config)
    wanted, found = (trained(c) for c in (config, dataclasses.replace(config, **{name: OTHERS[name]})))
    assert not all(torch.equal(value, found[key]) for key, value in wanted.items())


def test_the_command_tells_of_idle_options_in_one_line_for_each_reason(tmp_path):
    out = tmp_path / "run"
    start = ("train", "--data", "samples:textures", "--out", out, *TINY)
    given = ("--ada-target", 0.5, "--diffaug", "color", "--augment", "none", "--gp-weight", 1, "--metrics-kimg", 5)
    _, told = imgops(*start, *given, "--dry-run", "--no-estimate", "--no-check-data")
    warned = [line.removeprefix("imgops: warning: ") for line in told.splitlines() if line.startswith("imgops: warn")]
    assert sorted(warned) == [
        "--ada-target, --diffaug do nothing with --augment none",
        "--check-data does nothing with --dry-run",
        "--gp-weight does nothing with --loss nonsaturating",
        "--metrics-kimg does nothing without --metrics",
    ]
    _, told = imgops(*start, "--estimate")
    assert "--estimate does nothing without --dry-run" in told
    _, told = imgops(
        "train", "--config", out, "--out", tmp_path / "b", "--preset", "cifar", "--dry-run", "--no-estimate"
    )
    assert "--preset does nothing with --config, whose file has every setting" in told
    _, told = imgops("train", "--out", out, "--resume", "--check-data")
    assert "--check-data does nothing with --resume" in told
    _, told = imgops(*start, "--dry-run", "--no-estimate")
    assert "warning" not in told
