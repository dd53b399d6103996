"""What the command line says of mistakes: the option by its name and where to read on, a file by its own."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

from imgops.cli import app

HUGE = str(10**20)
RUN = ["--data", "samples:textures", "--out", "run", "--resolution", "8", "--dry-run"]
STYLE = ["c.png", "s.png", "-o", "o.png"]
DREAM = ["c.png", "-o", "o.png"]
OPTIONS = [
    ("train", RUN, "--resolution", "48"),
    ("train", RUN, "--channel-base", "0"),
    ("train", RUN, "--ema-rampup", "nan"),
    ("train", RUN, "--seed", HUGE),
    ("train", RUN, "--labels", "cats"),
    ("train", RUN, "--device", "mps"),
    ("train", RUN, "--out", ""),
    ("train", RUN, "--data", ""),
    ("style", STYLE, "--size", "0"),
    ("style", STYLE, "--size", HUGE),
    ("style", STYLE, "--first-size", HUGE),
    ("style", STYLE, "--style-scale", HUGE),
    ("style", STYLE, "--tv-weight", "nan"),
    ("style", STYLE, "--method", "x"),
    ("dream", DREAM, "--size", HUGE),
    ("dream", DREAM, "--octaves", HUGE),
    ("dream", DREAM, "--octave-scale", "1"),
]
FILES = [
    ("train", "--config", "no.json", "--out", "run"),
    (
        "train",
        "--data",
        "samples:textures",
        "--out",
        "c.png/run",
        "--resolution",
        "8",
        "--kimg",
        "0.01",
        "--batch",
        "1",
    ),
    ("style", "no.png", "s.png"),
    ("style", "c.png", "s.png", "--mask", "no.png", "-o", "o.png"),
    ("style", "c.png", "s.png", "-o", "c.png/o.png"),
    ("dream", "no.png"),
]


@pytest.fixture(autouse=True)
def pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("c.png", "s.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(name)


def said(capsys, *arguments):
    capsys.readouterr()
    with warnings.catch_warnings(), pytest.raises(SystemExit) as left:
        app(list(arguments))
    assert left.value.code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("imgops: error: ")
    return line.removeprefix("imgops: error: ")


@pytest.mark.parametrize(("command", "rest", "option", "value"), OPTIONS, ids=[f"{c}{o}={v}" for c, _, o, v in OPTIONS])
def test_a_setting_out_of_range_is_told_by_its_option(command, rest, option, value, capsys):
    text = said(capsys, command, *rest, option, value)
    assert text.startswith(f"{option} ")
    assert text.endswith(f"(see imgops {command} --help)")
    assert len(text) < 200


@pytest.mark.parametrize("arguments", FILES, ids=" ".join)
def test_a_file_that_cannot_be_used_begins_the_line(arguments, capsys):
    text = said(capsys, *arguments)
    assert text.startswith(("no.", "c.png"))
    assert "Errno" not in text


def test_weights_of_styles_are_not_the_file_of_weights(capsys):
    assert said(capsys, "style", *STYLE, "--size", "32", "--style-weights", "0").startswith("--style-weights must")
