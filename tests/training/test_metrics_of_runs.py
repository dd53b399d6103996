"""Distances that are measured while a run trains, and the best checkpoint by the first of them."""

from __future__ import annotations

import json
import os
import signal
import time
import warnings

import pytest
import torch
from PIL import Image

from imgops.training import TrainingConfig, find_checkpoint, load_generator, train
from imgops.training import checkpoint as files
from imgops.training.recipes.stylegan2 import StyleGAN2
from tests.test_training import contents, tiny, trainer_of
from tests.training.test_processes import run as imgops_train
from tests.training.test_processes import stats

MEASURED = {"metrics": "fd,swd", "metrics_kimg": 0.016, "metrics_samples": 16, "metrics_weights": "embedded"}
FIGURES = {"fd_embedded", "swd_embedded"}

pytestmark = pytest.mark.filterwarnings("ignore:fd_embedded of .* is biased")


def measured(out: object) -> dict[int, dict[str, float]]:
    """The figures of a run, by the images shown before."""
    found = {record["images"]: {k: v for k, v in record.items() if k in FIGURES} for record in stats(out)}
    return {images: figures for images, figures in found.items() if figures}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for i in range(12):
        Image.effect_noise((16, 16), 20 + 10 * i).save(folder / f"{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMGOPS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield str(folder)


def test_figures_are_recorded_and_the_best_checkpoint_stays(tmp_path, data):
    run = tmp_path / "run"
    train(tiny(run, kimg=0.064, keep=1, data=data, **MEASURED), quiet=True)
    found = measured(run)
    assert set(found) == {16, 32, 48, 64}
    assert all(figures.keys() == FIGURES and min(figures.values()) > 0 for figures in found.values())
    (best,) = files.bests(run)
    images = min(found, key=lambda images: found[images]["fd_embedded"])
    assert best.name == f"best-{images:010d}"
    assert json.loads((best / "best.json").read_text()) == {
        "figure": "fd_embedded",
        "value": found[images]["fd_embedded"],
        "of": "16 samples, 12 pictures",
    }
    assert load_generator(best)[1]["seen"] == images
    # a run is still loaded at its newest
    assert find_checkpoint(run).name == "checkpoint-0000000064"


def test_samples_that_are_measured_have_the_classes_of_the_data(tmp_path):
    trainer = trainer_of(tiny(tmp_path))
    recipe = trainer.recipe
    recipe.labels = torch.tensor([2, 2, 2, 2])
    assert torch.equal(recipe.drawn([5, 6]), recipe.samples([5, 6], 2))
    assert not torch.equal(recipe.drawn([5, 6]), recipe.samples([5, 6], 1))


def test_measuring_changes_no_bit_of_the_training(tmp_path, data):
    train(tiny(tmp_path / "with", kimg=0.032, data=data, **MEASURED), quiet=True)
    train(tiny(tmp_path / "without", kimg=0.032, data=data), quiet=True)
    one, other = contents(tmp_path / "with"), contents(tmp_path / "without")
    assert all(one[name].equal(other[name]) for name in one)
    # nor does a stop change what is measured
    train(tiny(tmp_path / "parts", kimg=0.016, data=data, **MEASURED), quiet=True)
    train(tiny(tmp_path / "parts", kimg=0.032, data=data, **MEASURED), quiet=True, resume=True)
    assert measured(tmp_path / "parts") == measured(tmp_path / "with")


def test_a_termination_signal_ends_a_measurement_and_saves(tmp_path, data, monkeypatch):
    run, more = tmp_path / "run", {**MEASURED, "metrics_samples": 96, "data": data, "checkpoint_kimg": 1.0}
    drawn, calls = StyleGAN2.drawn, []

    def asked_to_end(recipe, seeds):
        calls.append(len(seeds))
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return drawn(recipe, seeds)

    monkeypatch.setattr(StyleGAN2, "drawn", asked_to_end)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(run, kimg=0.032, **more), quiet=True)
    assert calls == [32, 32]
    assert find_checkpoint(run).name == "checkpoint-0000000016"
    assert [record["images"] for record in stats(run)] == [8, 16]
    train(tiny(run, kimg=0.032, **more), quiet=True, resume=True)
    assert measured(run).keys() == {32}


def test_the_limit_in_time_ends_a_measurement(tmp_path, data, monkeypatch):
    run, more = tmp_path / "run", {**MEASURED, "metrics_samples": 96, "data": data, "checkpoint_kimg": 1.0}
    drawn, calls, now = StyleGAN2.drawn, [], time.monotonic

    def slow(recipe, seeds):
        calls.append(len(seeds))
        if len(calls) == 2:
            monkeypatch.setattr(time, "monotonic", lambda: now() + 3600)
        return drawn(recipe, seeds)

    monkeypatch.setattr(StyleGAN2, "drawn", slow)
    assert train(tiny(run, kimg=0.032, minutes=30, **more), quiet=True).name == "checkpoint-0000000016"
    assert calls == [32, 32]
    assert not measured(run)


def test_a_measurement_that_fails_costs_no_step(tmp_path, data, monkeypatch):
    def fail(recipe, seeds):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(StyleGAN2, "drawn", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        train(tiny(tmp_path / "run", data=data, checkpoint_kimg=1.0, **MEASURED), quiet=True)
    assert find_checkpoint(tmp_path / "run").name == "checkpoint-0000000016"


def test_a_better_one_takes_the_place_of_the_best_and_a_kill_leaves_one(tmp_path, monkeypatch):
    last = train(tiny(tmp_path / "run", kimg=0.008), quiet=True)
    run = last.parent
    assert files.is_best(run, "fd", 3.0)
    best = files.keep_best(last, "fd", 3.0)
    assert not files.is_best(run, "fd", 3.0)
    assert files.is_best(run, "fd", 2.9)
    # figures of another name do not compare
    assert files.is_best(run, "swd", 5.0)
    # nor do those of other numbers of samples
    assert files.is_best(run, "fd", 3.5, "1,000 samples")
    moved = last.rename(run / "checkpoint-0000000012")

    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "_sync_folder", killed)
    with pytest.raises(KeyboardInterrupt):
        files.keep_best(moved, "fd", 1.0)
    monkeypatch.undo()
    assert files.bests(run) == [best]
    files.keep_best(moved, "fd", 1.0)
    assert [path.name for path in files.bests(run)] == ["best-0000000012"]
    (run / "best-0000000012" / "best.json").write_text("{")
    assert files.is_best(run, "fd", 9.0)


def test_a_file_of_a_run_names_no_function_that_would_be_called(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"data": "d", "out": "o", "metrics_weights": "net.py:make"}))
    with pytest.warns(UserWarning, match="metrics_weights net.py:make of a run's file is a function, which only the"):
        assert TrainingConfig.read(path, {}).metrics_weights is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path.write_text(json.dumps({"data": "d", "out": "o", "metrics_weights": "embedded"}))
        assert TrainingConfig.read(path, {"metrics_weights": "net.py:make"}).metrics_weights == "net.py:make"


def test_metrics_that_are_none_are_refused_before_the_work(tmp_path):
    with pytest.raises(ValueError, match="metrics must be one or several of fd, swd, as fd,swd; got 'fid'"):
        tiny(tmp_path, metrics="fid")


@pytest.mark.slow
def test_two_processes_measure_what_one_does(tmp_path, data):
    more = [word for name, value in MEASURED.items() for word in (f"--{name.replace('_', '-')}", value)]
    for processes in 1, 2:
        imgops_train(processes, "--kimg", 0.032, *more, "--data", data, "--out", tmp_path / str(processes))
    one, two = measured(tmp_path / "1"), measured(tmp_path / "2")
    assert one.keys() == two.keys() == {16, 32}
    for images, figures in one.items():
        assert figures == pytest.approx(two[images], rel=1e-3)
