"""What a run tells while it runs and when it goes on: bars that fit, time that is left, records without a gap."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import time

import pytest
from test_cli import TINY, imgops
from test_training import tiny

from imgops.cli import _demo as demo
from imgops.cli._pictures import Reporter
from imgops.training import _report as reports
from imgops.training import load_generator, train


def line_of(progress) -> str:
    """The bar as a terminal shows it."""
    with progress.console.capture() as caught:
        progress.console.print(progress.get_renderable())
    (line,) = caught.get().splitlines()
    return line.rstrip()


def bar_of(owner) -> object:
    return next(value for value in vars(owner).values() if hasattr(value, "get_renderable"))


def training_line(out, seconds: float | None = None) -> str:
    limit = {} if seconds is None else {"deadline": time.monotonic() + seconds}
    out.mkdir(exist_ok=True)
    report = reports.Report(out, 1_000_000, 12_000, **limit)
    report.record(
        {
            "images": 12_000,
            "seconds": 1.0,
            "images_per_second": 30.0,
            "loss_g": 0.71234,
            "loss_d": 1.2345,
            "r1": 0.01234,
        }
    )
    report.advance(13_000, 30.0)
    report.advance(14_000, 30.0)
    return line_of(bar_of(report))


def picture_line() -> str:
    reporter = Reporter("a-long-name-of-a-picture-of-a-cat-in-the-stars.jpg")
    for share in 0.1, 0.2, 0.3:
        reporter.update(share, None, "181 px, content 0.123, style 0.0456, tv 0.0123")
        time.sleep(0.01)
    return line_of(bar_of(reporter))


@pytest.mark.parametrize("width", [200, 80, 60, 40])
@pytest.mark.parametrize("command", ["train", "pictures"])
def test_the_time_that_is_left_stays_on_a_narrow_terminal(tmp_path, monkeypatch, command, width):
    monkeypatch.setenv("COLUMNS", str(width))
    line = training_line(tmp_path) if command == "train" else picture_line()
    assert len(line) <= width
    assert re.search(r"(?<!\S)\d+:\d\d:\d\d left", line)
    assert ("14,000 of" if command == "train" else "30%") in line
    if width == 200:
        assert ("R1 0.0123" if command == "train" else "a-long-name-of-a-pictur… 30% ━") in line


@pytest.mark.parametrize("width", [120, 80, 40])
def test_a_limited_run_counts_towards_its_limit(tmp_path, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    line = training_line(tmp_path / "a", 32.0)
    assert re.search(r"0:00:3[12] left", line)
    assert "1,000,000" not in line
    assert "14,000 images" in line
    assert "0:00:00 left" in training_line(tmp_path / "b", -5.0)


def test_share_of_a_limited_run_is_that_of_its_time(tmp_path):
    report = reports.Report(tmp_path, 1000, 0, deadline=time.monotonic() + 100)
    report.begun -= 100
    report.advance(10, 1.0)
    assert 0.49 < bar_of(report).tasks[0].percentage / 100 < 0.51
    report.advance(990, 100.0)
    assert bar_of(report).tasks[0].percentage > 98


def test_a_bar_ends_at_its_total(tmp_path, capsys):
    train(tiny(tmp_path / "run", kimg=0.014, log_kimg=0.004))
    text = capsys.readouterr().err
    assert "16 of 16 images" in text
    assert "0:00:00 left" in text


def test_lines_of_a_limited_run_promise_no_more_than_the_limit(tmp_path, capsys):
    train(tiny(tmp_path / "run", kimg=1000.0), max_seconds=1.5)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.endswith(" left")]
    assert lines
    assert all(re.search(r" 0:00:0[012] left$", line) for line in lines)
    assert not any("1,000,000" in line for line in lines)


@pytest.mark.parametrize("minutes", ["0.1", "0.3"])
def test_demo_names_no_negative_time(tmp_path, monkeypatch, minutes):
    given = []
    for name in "_paint", "_samples", "_draw_losses", "_choose_threads", "png_bytes":
        monkeypatch.setattr(demo, name, lambda *_: b"")
    monkeypatch.setattr(demo, "measure_speed", lambda *_: [])
    monkeypatch.setattr(demo, "train", lambda config, max_seconds: given.append(max_seconds))
    stdout, _ = imgops("demo", "--out", tmp_path / "demo", "--minutes", minutes)
    (seconds,) = re.findall(r"for (\S+) seconds", stdout.replace("\n", " "))
    assert float(seconds) == round(given[0]) >= 1


def points(run) -> dict[str, list[int]]:
    """The steps of each curve, and of the sheets, that TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0}).Reload()
    found = {name: [event.step for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
    return found | {name: [event.step for event in events.Images(name)] for name in events.Tags()["images"]}


def test_a_resumed_run_keeps_every_point_and_its_clock(tmp_path):
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    train(tiny(run, grid_kimg=0.008), quiet=True)
    for kimg in 0.032, 0.040:
        train(tiny(run, kimg=kimg, grid_kimg=0.008), quiet=True, resume=True)
    # as if it had been killed behind the last checkpoint but one
    shutil.rmtree(run / "checkpoint-0000000040")
    train(tiny(run, kimg=0.048, grid_kimg=0.008), quiet=True, resume=True)
    shown = points(run)
    # in the order of their files, whose names tell no order within a second
    assert sorted(shown["loss_g"]) == sorted(shown["samples"]) == [8, 16, 24, 32, 40, 48]
    records = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    assert [record["images"] for record in records] == [8, 16, 24, 32, 40, 48]
    seconds = [record["seconds"] for record in records]
    assert seconds == sorted(seconds)
    assert all(a < b for a, b in itertools.pairwise(seconds))
    assert load_generator(run)[1]["seconds"] >= seconds[-1]


def test_a_finished_run_says_so_and_stays_as_it_is(tmp_path):
    run = tmp_path / "a run"
    imgops("train", "--data", "samples:textures", "--out", run, *TINY)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    for more in ([], ["--kimg", "0.004"]):
        stdout, stderr = imgops("train", "--out", run, "--resume", *more)
        assert stdout == ""
        assert f"{run} is finished: it was shown 8 images, and --kimg asks for {4 if more else 8}" in stderr
        assert f"imgops train --out '{run}' --resume --kimg 0.016" in stderr
        assert "trained on" not in stderr
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    _, stderr = imgops("train", "--out", run, "--resume", "--kimg", "0.016")
    assert "trained on 16 images" in stderr
