"""What a run will take: steps of each kind by how often they come; the weight of R1, and what is said of it."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
import torch

from imgops.data import open_dataset
from imgops.training import TrainingConfig, _estimate
from imgops.training._data import Pictures
from imgops.training.processes import Processes
from tests.test_cli import TINY, error, imgops
from tests.test_training import tiny, trainer_of


@pytest.mark.parametrize("intervals", [{}, {"r1": 16, "path_length": 4}, {"r1": 3, "path_length": 2}, {"r1": 1}])
def test_kinds_of_steps_by_their_share(intervals):
    shares = _estimate.kinds_of(intervals)
    assert sum(shares.values()) == pytest.approx(1)
    for name, every in intervals.items():
        assert sum(share for step, share in shares.items() if step % every == 0) == pytest.approx(1 / every), name
    # one of each kind
    kinds = [tuple(step % every == 0 for every in intervals.values()) for step in shares]
    assert len(set(kinds)) == len(kinds)


def test_long_intervals_are_counted_in_time():
    shares = _estimate.kinds_of({"a": 999_999_937, "b": 2})
    assert len(shares) == 3
    assert sum(shares.values()) == pytest.approx(1)


class Clock:
    """Trainer and clock in one: a step takes 1 s, with r1 in every fourth 5 s, the first 10 s more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, slowness: float) -> None:
        self.now, self.slowness, self.taken, self.steps = 0.0, slowness, list[int](), 0
        self.config = SimpleNamespace(share=lambda count: 2)
        self.recipe, self.processes = SimpleNamespace(measured_at=0, intervals={"r1": 4}, slow_start=False), Processes()
        self.device = torch.device("cpu")
        monkeypatch.setattr(_estimate, "time", SimpleNamespace(monotonic=lambda: self.now))

    def step(self, real: torch.Tensor, labels: torch.Tensor) -> None:
        assert real.shape == (2, 3, 4, 8)
        assert real.dtype == torch.uint8
        assert labels.tolist() == [0, 1]
        self.now += self.slowness * (1 + 4 * (self.steps % 4 == 0) + 10 * (not self.taken))
        self.taken.append(self.steps)


@pytest.mark.parametrize(
    ("slowness", "seconds", "taken"),
    # of slow steps those are measured first that come most often; a kind without a step of its own takes as the first
    [(0.1, 0.2, [0, 1, 1, 0, 0]), (1.0, 2.0, [0, 1, 1, 0]), (1.3, 1.3 * 0.75 + 1.3 * 15 / 4, [0, 1]), (2.0, 30.0, [0])],
)
def test_each_kind_of_step_counts_by_its_share(monkeypatch, slowness, seconds, taken):
    clock = Clock(monkeypatch, slowness)
    data = Pictures(TrainingConfig("samples:textures", "out"), open_dataset("samples:textures", (4, 8)))
    assert _estimate.measured(clock, data) == (pytest.approx(seconds), len(taken))
    assert clock.taken == taken


def test_a_step_that_compiles_takes_no_time_from_the_others(monkeypatch):
    clock = Clock(monkeypatch, 2.0)
    clock.recipe.slow_start = True
    data = Pictures(TrainingConfig("samples:textures", "out"), open_dataset("samples:textures", (4, 8)))
    assert _estimate.measured(clock, data) == (pytest.approx(2.0 * 0.75 + 10.0 / 4), 5)


def test_the_recipe_says_what_it_does_how_often(tmp_path):
    assert trainer_of(tiny(tmp_path)).recipe.intervals == {"penalty": 2, "path_length": 3}
    assert trainer_of(tiny(tmp_path, r1_gamma=0.0, pl_weight=0.0)).recipe.intervals == {}
    assert trainer_of(tiny(tmp_path, loss="wgan-gp", r1_gamma=0.0)).recipe.intervals == {"penalty": 2, "path_length": 3}


def test_a_dry_run_estimates_and_writes_nothing(tmp_path):
    out = tmp_path / "run"
    start = ("train", "--data", "samples:textures", "--out", out, *TINY, "--kimg", 1, "--dry-run")
    stdout, told = imgops(*start)
    assert json.loads(stdout)["kimg"] == 1
    assert not out.exists()
    lines = dict(line.split(maxsplit=1) for line in told.splitlines())
    assert {"data:", "device", "networks", "disk", "gamma", "memory", "speed"} == lines.keys()
    peak = re.fullmatch(r"([\d.]+) [MG]B at most(, of [\d.]+ [MG]B)?", lines["memory"])
    assert peak
    assert float(peak[1]) > 0
    assert re.fullmatch(r"[\d.]+ images/s after \d+ steps: about \d+ \w+ for 1,000 images", lines["speed"])
    stdout, told = imgops(*start, "--no-estimate")
    assert json.loads(stdout)["kimg"] == 1
    assert told.startswith("data: ")
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("settings", "gamma", "origin"),
    [
        ({}, 0.0002 * 32 * 32 / 32, "by resolution and batch"),
        ({"preset": "paper256"}, 1.0, "of the preset paper256"),
        ({"preset": "paper256", "r1_gamma": "auto"}, 0.0002 * 32 * 32 / 64, "by resolution and batch"),
        (
            {"preset": "tiny", "r1_gamma": "auto", "resolution": (32, 64)},
            0.0002 * 32 * 64 / 16,
            "by resolution and batch",
        ),
        ({"r1_gamma": 3}, 3.0, "as given"),
        (
            {"preset": "tiny", "loss": "relativistic"},
            0.05,
            "by resolution (Huang et al. 2024)",
        ),
    ],
)
def test_the_weight_of_r1_and_what_is_said_of_it(settings, gamma, origin):
    small = {"z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8, "device": "cpu"}
    config = TrainingConfig("samples:textures", "o", **{"resolution": 32, **small, **settings}).resolve()
    assert config.r1_gamma == config.gamma == pytest.approx(gamma)
    assert isinstance(config.r1_gamma, float)
    said = trainer_of(config).recipe.advice()["gamma"]
    assert said.startswith(f"{gamma:.3g}, {origin}; worth trying: {gamma / 5:.3g} and {gamma * 5:.3g}, ")
    assert len(said) < 110


def test_the_weight_of_r1_on_the_command_line():
    start = ("train", "--data", "samples:textures", "--out", "o", "--dry-run", "--no-estimate", "--resolution", 32)
    for flag, text, gamma in ("--gamma", "auto", 0.0128), ("--r1-gamma", "auto", 0.0128), ("--gamma", "2.5", 2.5):
        assert json.loads(imgops(*start, "--preset", "tiny", flag, text)[0])["r1_gamma"] == gamma
    assert json.loads(imgops(*start, "--preset", "paper512")[0])["r1_gamma"] == 0.5
    wanted = "imgops: error: --r1-gamma must be 0 or more, or auto; got 'much' (see imgops train --help)"
    assert error(*start, "--gamma", "much") == wanted
    # no penalty, nothing to say
    assert trainer_of(tiny("o", r1_gamma=0.0)).recipe.advice() == {}
