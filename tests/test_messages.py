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
    ("train", RUN, "--resolution", "47"),
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


SAID = [
    ("dream c.png --tile x", "--tile must be a whole number; got 'x'"),
    ("dream c.png --tile 0", "--tile must be 1 or more; got 0"),
    ("dream c.png --fps=x", "--fps must be a number; got 'x'"),
    ("dream c.png --fps 0", "--fps must be in [0.01, 1000]; got 0.0"),
    ("dream c.png --frames 0", "--frames must be 1 or more; got 0"),
    ("dream c.png --frames 2.5", "--frames must be a whole number; got '2.5'"),
    ("dream c.png --zoom 1 --frames 2 -o d.gif", "--zoom must be in (-1, 1); got 1.0"),
    ("dream c.png --rotate nan --frames 2 -o d.gif", "--rotate must be finite; got nan"),
    ("dream c.png --quality 0", "--quality must be in [1, 100]; got 0"),
    ("dream c.png --quality 1 --quality best", "--quality must be a whole number; got 'best'"),
    ("dream c.png -l relu2_1:x", "--layer relu2_1:x is no objective; write a layer,"),
    ("dream c.png -l relu2_1:-1", "--layer relu2_1:-1: channel must be >= 0; got -1"),
    ("dream c.png -l relu2_1=0", "--layer relu2_1=0: weight must be finite and other than 0; got 0.0"),
    ("dream c.png -l relu2_1:3 --guide s.png", "--layer relu2_1:3: an objective with a guide takes a whole layer;"),
    ("dream c.png -l nosuch --weights embedded", "--layer nosuch: VGG has no layer 'nosuch'; it has input, conv1_1, "),
    ("dream c.png -l relu2_1:999", "--layer: channel of layer relu2_1 must be 0 to 47; got 999"),
    ("style c.png s.png --quality 101", "--quality must be in [1, 100]; got 101"),
    ("style c.png s.png --lr fast", "--lr must be a number; got 'fast'"),
    (
        "style c.png s.png --size 32 --content-layers relu9_9",
        "--content-layers: VGG has no layer 'relu9_9'; did you mean",
    ),
    (
        "style c.png s.png --size 32 --style-layers x=1 --weights embedded",
        "--style-layers: VGG has no layer 'x'; it has input, ",
    ),
    (
        "style c.png s.png --size 32 --method nnst --hypercolumn-layers x=1 --weights embedded",
        "--hypercolumn-layers: VGG has no layer 'x'; it has input, ",
    ),
    (
        "style c.png s.png --size 32 --method nnst --hypercolumn-layers relu1_1=much",
        "--hypercolumn-layers takes layers like relu1_1=256,relu2_1=64; got 'relu1_1=much'",
    ),
    ("style train-fast", "STYLE is missing: the picture whose style the network learns"),
    ("style train-adain", "--out is missing: the decoder: NAME.safetensors"),
    (
        "style train-fast s.png -o n.safetensors --widths 1,x,3",
        "--widths takes three numbers like 32,64,128; got '1,x,3'",
    ),
    (
        "style train-fast s.png -o n.safetensors --content-weight 0 --style-weight 0",
        "--content-weight and --style-weight cannot both be 0",
    ),
    ("train --data d --out r --batch many", "--batch must be a whole number; got 'many'"),
    ("generate", "CHECKPOINT is missing: a checkpoint, or the folder of a run (takes its newest)"),
    ("generate run --trunc x", "--trunc must be a number; got 'x'"),
    ("generate run --noise loud", "--noise must be random, const or none; got 'loud'"),
    ("generate run --batch 0", "--batch must be 1 or more; got 0"),
    ("demo --minutes 0", "--minutes must be 0.1 or more; got 0.0"),
    ("demo --minutes x", "--minutes must be a number; got 'x'"),
]


@pytest.mark.parametrize(("line", "message"), SAID, ids=[line for line, _ in SAID])
def test_a_mistake_is_told_by_option_value_and_what_is_allowed(line, message, capsys):
    words = line.split()
    text = said(capsys, *words)
    assert text.startswith(message)
    page = words[:2] if words[1:2] in (["train-fast"], ["train-adain"]) else words[:1]
    assert text.endswith(f"(see imgops {' '.join(page)} --help)")


@pytest.mark.parametrize("arguments", FILES, ids=" ".join)
def test_a_file_that_cannot_be_used_begins_the_line(arguments, capsys):
    text = said(capsys, *arguments)
    assert text.startswith(("no.", "c.png"))
    assert "Errno" not in text


@pytest.mark.parametrize(
    "line", ["style c.png s.png -o c.png/o.png", "dream c.png -o c.png/o.png", "demo --out c.png", "demo --out c.png/d"]
)
def test_a_file_in_the_place_of_a_folder_is_said_to_be_none(line, capsys):
    assert said(capsys, *line.split()).startswith("c.png")
    assert said(capsys, *line.split()).endswith("Not a directory")


def test_the_name_of_a_file_is_no_setting(capsys):
    text = said(capsys, *["style", "train-fast", "s.png", "-o", "style_weight/n.txt", "--style-weight", "-1"])
    assert text.startswith("--style-weight must be 0 or more; got -1.0 (see")
    assert said(capsys, "train", "--out", "r", "--config", "style_weight.json") == (
        "style_weight.json: No such file or directory"
    )


def test_weights_of_styles_are_not_the_file_of_weights(capsys):
    assert said(capsys, "style", *STYLE, "--size", "32", "--style-weights", "0").startswith("--style-weights must")
