"""The progress line in 80 columns, what is said of gradients that are not finite, and Weights & Biases."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from imgops.training import DivergenceError, train
from imgops.training._report import Report
from tests.test_cli import TINY, error
from tests.test_reports import bar_of, line_of
from tests.test_training import tiny

MEASURED = {"images": 1_234_560, "seconds": 9.0, "images_per_second": 123.4, "loss_g": 1.234, "loss_d": 0.9876}
FIGURES = {"fd_efficientnet-lite2": 1129.4, "augment_p": 0.123}


def line(out: Any, total: int, *records: dict[str, float]) -> str:
    report = Report(out, total, 0)
    for record in records:
        report.record(record)
    report.advance(1_234_568, 123.4)
    return line_of(bar_of(report))


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (200, "123.4 images/s  p 0.123  fd 1.129k  G 1.23  D 0.988  R1 0.5"),
        (80, "123.4 images/s  p 0.123  fd 1.129k  G 1.23"),
        (64, "123.4 images/s  p 0.123"),
    ],
)
def test_the_line_has_what_fits_whole_the_most_important_first(tmp_path, monkeypatch, width, shown):
    monkeypatch.setenv("COLUMNS", str(width))
    text = line(tmp_path, 25_000_000, MEASURED | FIGURES, MEASURED | {"r1": 0.5})
    assert len(text) <= width
    assert text.endswith(f" left {shown}")
    assert "1,234 of 25,000 kimg" in text
    assert "…" not in text


def test_a_line_without_a_distance(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert line(tmp_path, 2_000_000, MEASURED).endswith(" left 123.4 images/s  G 1.23  D 0.988")


def test_gradients_that_are_not_finite_are_told_once(tmp_path, capsys):
    report = Report(tmp_path, 100, 0)
    for share in 0.0, 0.25, 0.5:
        report.warn({"bad_gradients": share})
    report.warn({})
    said = capsys.readouterr().err
    assert said.count("gradients were not finite") == 1
    assert "0.25 of the gradients were not finite: the learning rate is too high, or --gamma too low\n" in said


@pytest.mark.parametrize(("half", "share", "told"), [(0, 0.5, 1), (1, 0.5, 0), (1, 0.75, 1)])
def test_only_half_precision_may_have_them_but_not_most(tmp_path, monkeypatch, capsys, half, share, told):
    from imgops.training.recipes.stylegan2 import StyleGAN2

    step = StyleGAN2.step

    def bad(*given: Any) -> dict[str, torch.Tensor]:
        return step(*given) | {"bad_gradients": torch.tensor(share)}

    monkeypatch.setattr(StyleGAN2, "step", bad)
    train(tiny(tmp_path / "run", kimg=0.016, num_fp16_res=half, half_dtype="bfloat16"))
    assert capsys.readouterr().err.count("gradients were not finite") == told


def test_damaged_records_are_left_out(tmp_path):
    whole = [json.dumps({"images": images, "loss_g": 1.0}) + "\n" for images in (8, 16, 24)]
    # a sector of zeros, another value, no number of images, one that is not text, and a part of a line
    damaged = b"\0\0\0\n[1]\n{}\n\xff\n" + b'{"images": 20'
    (tmp_path / "stats.jsonl").write_bytes("".join(whole).encode() + damaged)
    report = Report(tmp_path, 100, 16)
    assert (tmp_path / "stats.jsonl").read_text() == "".join(whole[:2])
    assert report.last["images"] == 16


class FakeWandB:
    """The module, as far as it is used, and the runs that it began."""

    def __init__(self) -> None:
        self.runs: list[SimpleNamespace] = []

    def init(self, **given: Any) -> SimpleNamespace:
        logged: list[dict[str, Any]] = []
        run = SimpleNamespace(given=given, id=given.get("id", "abc123"), logged=logged, log=logged.append, ended=None)
        run.define_metric = lambda name, step_metric: logged.append({"steps": (name, step_metric)})
        run.finish = lambda exit_code: setattr(run, "ended", exit_code)
        self.runs.append(run)
        return run

    def Image(self, image: Any) -> tuple[str, tuple[int, int]]:
        return "image", image.size


@pytest.fixture
def online(monkeypatch):
    fake = FakeWandB()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_records_and_sheets_go_online_and_a_run_is_continued_there(tmp_path, online):
    run = tmp_path / "textures"
    train(tiny(run, wandb="pictures", grid_kimg=0.016), quiet=True)
    (first,) = online.runs
    assert first.given["project"] == "pictures"
    assert first.given["name"] == "textures"
    assert first.given["dir"] == str(run)
    assert first.given["config"]["r1_interval"] == 2
    assert "id" not in first.given
    assert first.logged[0] == {"steps": ("*", "images")}
    records = [json.loads(text) for text in (run / "stats.jsonl").read_text().splitlines()]
    assert [entry for entry in first.logged if "loss_g" in entry] == records
    assert [entry["images"] for entry in first.logged if "samples" in entry] == [16, 24]
    assert first.ended == 0
    train(tiny(run, wandb="pictures", kimg=0.032), quiet=True, resume=True)
    assert (online.runs[1].given["id"], online.runs[1].given["resume"]) == ("abc123", "allow")
    assert [entry["images"] for entry in online.runs[1].logged if "loss_g" in entry] == [32]


def test_a_run_that_fails_is_one_online(tmp_path, online):
    with pytest.raises(DivergenceError):
        train(tiny(tmp_path / "run", wandb="p", g_lr=1e30, kimg=1.0), quiet=True)
    assert online.runs[0].ended == 1


def test_without_the_package_a_run_ends_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "wandb")
    monkeypatch.setattr(sys, "meta_path", [_Without(), *sys.meta_path])
    said = error("train", "--data", "samples:textures", "--out", tmp_path / "run", *TINY, "--wandb", "pictures")
    assert said.startswith(
        "imgops: error: --wandb: the package wandb is not installed; install it with: pip install wandb"
    )
    assert not (tmp_path / "run").exists()


class _Without:
    """An importer that does not find wandb, whether it is installed or not."""

    def find_spec(self, name: str, *rest: object) -> None:
        if name == "wandb":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
