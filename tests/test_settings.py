"""Every setting of a training run: what is out of range is named before anything runs, what is within it trains."""

from __future__ import annotations

import dataclasses
import math
import shutil

import numpy as np
import pytest
import torch
from test_cli import TINY, error, imgops
from test_training import batch_of, tiny, trainer_of

from imgops.training import TrainingConfig

#: the resolutions that there are, in words
SHAPES = "a side, or height and width, of 8 to 4096 pixels that halve together until the shorter is at most 16"
NUMBERS = [
    f.name for f in dataclasses.fields(TrainingConfig) if f.type in ("int", "float", "int | None", "float | None")
]
#: by the field's name, what divides what keeps the other values from being tried alone
TOGETHER = {"batch": {"micro_batch": None, "mbstd_group": 1}, "micro_batch": {"mbstd_group": 1}}


@pytest.mark.parametrize("name", NUMBERS)
def test_odd_numbers_are_refused_by_name_or_train(tmp_path, name):
    refused = 0
    for value in (0, -1, -0.5, math.nan, math.inf, -math.inf, 10**20, -(10**20), 10**400, True, "8", [1], 1 + 1j):
        try:
            config = tiny(tmp_path, **{**TOGETHER.get(name, {}), name: value})
        except (ValueError, TypeError) as mistake:
            said = str(mistake)
        else:
            trainer = trainer_of(config)
            trainer.step(*batch_of(trainer))
            continue
        assert said.startswith(f"{name} must ")
        assert said.endswith((f"; got {value}", f"; got {value!r}"))
        refused += 1
    assert refused >= 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"resolution": 34},
            f"resolution must be {SHAPES}; got 34 (which halves to 17x17)",
        ),
        (
            {"resolution": 4},
            f"resolution must be {SHAPES}; got 4",
        ),
        ({"resolution": (9, 16)}, "resolution must halve at least once to whole numbers; got 16x9"),
        ({"channel_base": 0}, "channel_base must be 1 or more; got 0"),
        ({"ema_rampup": math.nan}, "ema_rampup must be 0 or more and finite; got nan"),
        ({"seed": 10**20}, f"seed must be at most 9,223,372,036,854,775,807; got {10**20}"),
        ({"beta1": 1.0}, "beta1 must be in [0, 1); got 1.0"),
        ({"kimg": math.inf}, "kimg must be above 0 and finite; got inf"),
        ({"batch": 2.0}, "batch must be a whole number; got 2.0"),
        ({"mirror": 1}, "mirror must be true or false; got 1"),
        ({"data": None}, "data must be a text; got None"),
        ({"micro_batch": "2"}, "micro_batch must be a whole number; got '2'"),
        ({"g_architecture": "cubist"}, "g_architecture must be skip, resnet or orig; got 'cubist'"),
        ({"channels": 2}, "channels must be 1, 3 or 4; got 2"),
        ({"batch": 0}, "batch must be 1 or more; got 0"),
        ({"micro_batch": 3}, "micro_batch must divide the batch of 4; got 3"),
        ({"batch": 6, "mbstd_group": 4}, "mbstd_group must divide the (micro-)batch of 6; got 4"),
        ({"kimg": 0.0}, "kimg must be above 0; got 0.0"),
        ({"g_lr": math.nan}, "g_lr must be above 0 and finite; got nan"),
        ({"style_mixing": 2.0}, "style_mixing must be in [0, 1]; got 2.0"),
        ({"half_dtype": "int8"}, "half_dtype must be float16 or bfloat16; got 'int8'"),
        ({"device": "abacus"}, "device must be auto, cpu, cuda or cuda:N; got 'abacus'"),
        ({"r1_gamma": -1.0}, "r1_gamma must be 0 or more; got -1.0"),
    ],
)
def test_messages(tmp_path, changes, message):
    with pytest.raises((ValueError, TypeError)) as caught:
        tiny(tmp_path, **changes)
    assert str(caught.value) == message


def test_numbers_of_numpy_are_numbers(tmp_path):
    config = tiny(tmp_path, batch=np.int64(4), g_lr=np.float32(0.5), kimg=1)
    assert (type(config.batch), type(config.g_lr), type(config.kimg)) == (int, float, float)
    assert (config.batch, config.g_lr) == (4, 0.5)


def test_each_end_of_a_range_is_within():
    from imgops._settings import SEED, Bounds

    Bounds(0, 1).check("x", 0.0)
    Bounds(0, 1).check("x", 1)
    SEED.check("x", 2**63 - 1)
    for bounds, value in (
        *((Bounds(0, 1, above=True), 0), (Bounds(0, 1, below=True), 1), (Bounds(0, most=3), 4)),
        *((SEED, 2**63), (Bounds(1), 0)),
    ):
        with pytest.raises(ValueError, match="x must be"):
            bounds.check("x", value)


def test_help_dry_run_and_run_say_the_same_of_a_resolution(tmp_path):
    text = " ".join(imgops("train", "--help")[0].replace("│", " ").split())
    assert "sides of 8 to 4096 that halve together until the shorter is at most 16" in text
    start = ("train", "--data", "samples:textures", "--out", tmp_path / "run", *TINY)
    for size in 4, 47:
        said = {error(*start, "--resolution", size, *more) for more in ([], ["--dry-run"])}
        wanted = f"--resolution must be {SHAPES}; got {size} (see imgops train --help)"
        assert said == {f"imgops: error: {wanted}"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("settings") / "run"
    imgops("train", "--data", "samples:textures", "--out", out, *TINY)
    return out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    "command",
    [
        ("train", "--data", "samples:textures", "--out", "new"),
        ("train", "--resume", "--kimg", "0.016", "--out", "RUN"),
        ("generate", "RUN"),
        ("dream", "samples:astronaut", "--size", "32", "--steps", "1"),
        ("style", "samples:chelsea", "samples:hubble", "--size", "32", "--steps", "1"),
        ("style", "train-fast", "samples:hubble", "-o", "net.safetensors"),
        ("style", "train-adain", "-o", "net.safetensors"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
@pytest.mark.parametrize("device", ["cuda", "cuda:7"])
def test_a_gpu_that_is_not_here(tmp_path, monkeypatch, run, command, device):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "RUN")
    line = error(*command, "--device", device)
    assert f"device {device} is not here: there is cpu" in line
    assert not (tmp_path / "new").exists()


def test_errors_of_numbers_of_generate_and_demo(tmp_path, run):
    def of(*arguments: object) -> str:
        return error("generate", run, "--out", tmp_path / "g", *arguments)

    assert "--seeds must be at most 9,223,372,036,854,775,807" in of("--seeds", 10**20)
    assert "--seeds takes at most 100,000 at once" in of("--seeds", f"0-{10**12}")
    for value in "nan", "inf", "-1", 1e20:
        assert "--trunc must be" in of("--trunc", value)
    for value in 0, -1, 10**20:
        assert "--batch must be" in of("--batch", value)
    assert not (tmp_path / "g").exists()
    for minutes in "nan", "inf", "0", "-5", 1e20:
        assert "--minutes must be" in error("demo", "--out", tmp_path / "d", "--minutes", minutes)
    for seed in -1, 10**20:
        assert "--seed must be" in error("demo", "--out", tmp_path / "d", "--seed", seed)


@pytest.mark.parametrize(
    "command",
    [
        ("dream", "samples:astronaut", "--size", "32"),
        ("style", "samples:chelsea", "samples:hubble", "--size", "32"),
        ("style", "train-fast", "samples:hubble", "-o", "net.safetensors"),
        ("style", "train-adain", "-o", "net.safetensors"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_seeds_beyond_what_generators_take(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    assert "seed must be at most 9,223,372,036,854,775,807" in error(*command, "--seed", 10**20)
    assert "seed must be" in error(*command, "--seed", -1)


def test_a_jitter_beyond_any_picture():
    line = error("dream", "samples:astronaut", "--size", "32", "--jitter", 10**20)
    assert f"jitter must be at most 65,536; got {10**20}" in line
