"""``imgops generate``: pictures that tell what made them, and folders of one origin."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_cli import TINY, error, imgops

from imgops import __version__
from imgops.cli import generate
from imgops.data import read_settings
from imgops.nn import synthesis
from imgops.training import checkpoint as files
from imgops.training import recipes
from imgops.training.config import RunConfig


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with two checkpoints."""
    out = tmp_path_factory.mktemp("generate") / "run"
    imgops("train", "--data", "samples:textures", "--out", out, *TINY, "--checkpoint-kimg", "0.004")
    return out


def test_pictures_tell_what_made_them(run, tmp_path):
    imgops(
        "generate", run, "--seeds", "3,7", "--trunc", "0.7", "--class", "gravel", "--noise", "const", "--out", tmp_path
    )
    told = read_settings(tmp_path / "gravel-seed0007.png")
    assert told.pop("sha256")
    assert told == {
        "imgops": __version__,
        "command": "generate",
        "checkpoint": f"{run}/checkpoint-0000000008",
        "images": 8,
        "truncation": 0.7,
        "noise": "const",
        "class": "gravel",
        "seed": 7,
    }
    assert read_settings(tmp_path / "grid.png")["seed"] == [3, 7]
    assert read_settings(tmp_path / "grid.png")["class"] == ["gravel"]


@pytest.mark.parametrize(
    ("checkpoint", "more", "inside"),
    [
        ("checkpoint-0000000008", [], ""),
        (".", ["--seeds", "5-6"], ""),
        ("checkpoint-0000000004", [], "checkpoint-0000000004-trunc1-random"),
        ("checkpoint-0000000008", ["--trunc", "0.5"], "checkpoint-0000000008-trunc0.5-random"),
        ("checkpoint-0000000008", ["--noise", "none"], "checkpoint-0000000008-trunc1-none"),
    ],
)
def test_a_folder_holds_pictures_of_one_origin(run, tmp_path, checkpoint, more, inside):
    imgops("generate", run, "--seeds", "0", "--class", "0", "--out", tmp_path)
    first = (tmp_path / "brick-seed0000.png").read_bytes()
    for _ in range(2):
        stdout, _ = imgops("generate", run / checkpoint, "--seeds", "0", "--class", "0", "--out", tmp_path, *more)
        assert stdout.startswith(f"{2 if '--seeds' in more else 1} pictures and grid.png in {tmp_path / inside}")
        assert ("holds pictures of another checkpoint, truncation or noise" in stdout) is bool(inside)
    assert (tmp_path / "brick-seed0000.png").read_bytes() == first
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == bool(inside)


def test_pictures_of_unknown_origin_stay(run, tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "brick-seed0000.png")
    (tmp_path / "seed0001.png").write_bytes(b"no picture")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "cat.png")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    stdout, _ = imgops("generate", run, "--seeds", "0", "--out", tmp_path)
    assert "checkpoint-0000000008-trunc1-random" in stdout
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["a/b", "..", "c:d", "a\nb"], ["0-a_b", "1", "c_d", "3-a_b"]),
        (["Cat", "cat", "dog", "\u732b"], ["0-Cat", "1-cat", "dog", "\u732b"]),
    ],
)
def test_names_of_classes_that_no_file_can_have(run, tmp_path, names, files):
    path = run / "checkpoint-0000000004" / "config.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), "class_names": names}))
    try:
        imgops("generate", path.parent, "--seeds", "0", "--out", tmp_path / "g")
    finally:
        path.write_text(before)
    found = {file.name for file in (tmp_path / "g").iterdir()}
    assert found == {"grid.png", *(f"{file}-seed0000.png" for file in files)}
    assert read_settings(tmp_path / "g" / f"{files[0]}-seed0000.png")["class"] == names[0]


def test_noise_is_one_of_three(run, tmp_path):
    line = error("generate", run, "--noise", "loud", "--out", tmp_path / "g")
    assert "--noise must be random, const or none; got 'loud'" in line
    assert not (tmp_path / "g").exists()


def test_pictures_on_the_way_from_seed_to_seed(run, tmp_path):
    line, _ = imgops("generate", run, "--seeds", "3,5,4", "--interpolate", "2", "--class", "brick", "--out", tmp_path)
    assert line.startswith("7 pictures and grid.png")
    ends = [f"brick-seed000{seed}" for seed in (3, 5, 4)]
    between = [f"brick-seed000{a}-seed000{b}-{k}of3" for a, b in ((3, 5), (5, 4)) for k in (1, 2)]
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(["grid", *ends, *between])
    told = read_settings(tmp_path / "brick-seed0003-seed0005-2of3.png")
    assert (told["class"], told["seed"], told["to"], told["share"]) == ("brick", 3, 5, pytest.approx(2 / 3))
    assert read_settings(tmp_path / "grid.png")["interpolate"] == 2
    grid, side = Image.open(tmp_path / "grid.png"), 8
    assert grid.height == 2 * side
    margin = grid.width - 4 * side
    rows = [[ends[0], *between[:2], ends[1]], [ends[1], *between[2:], ends[2]]]
    for row, names in enumerate(rows):
        for column, name in enumerate(names):
            left, top = margin + column * side, row * side
            shown = grid.crop((left, top, left + side, top + side))
            assert shown.tobytes() == Image.open(tmp_path / f"{name}.png").tobytes()
    # the ends are the seeds' own pictures, and a grid of all classes has rows of each
    imgops("generate", run, "--seeds", "5", "--class", "brick", "--out", tmp_path / "own")
    own = (tmp_path / "own" / "brick-seed0005.png").read_bytes()
    assert own == (tmp_path / "brick-seed0005.png").read_bytes()
    imgops("generate", run, "--seeds", "3-5", "--interpolate", "1", "--out", tmp_path / "all")
    assert Image.open(tmp_path / "all" / "grid.png").height == 2 * side * len(
        read_settings(tmp_path / "all" / "grid.png")["class"]
    )


def test_ways_that_there_are_not_are_told(run, tmp_path):
    def of(*arguments: object) -> str:
        return error("generate", run, "--out", tmp_path / "g", *arguments)

    assert "--interpolate must be 1 or more; got 0" in of("--interpolate", 0)
    assert "--interpolate needs --seeds of two or more; got 3" in of("--interpolate", 8, "--seeds", 3)
    assert "at most 100,000 pictures of a class at once; got 299,998" in of("--interpolate", 2, "--seeds", "0-99999")
    codes = tmp_path / "codes"
    small = ("--resolution", 8, "--base-channels", 4, "--num-codes", 4, "--code-dim", 4, "--prior-channels", 4)
    short = ("--preset", "tiny", "--batch", 2, "--kimg", 0.002)
    imgops("train", "--recipe", "vqvae", "--data", "samples:textures", "--out", codes, *small, *short)
    line = error("generate", codes, "--interpolate", 2, "--out", tmp_path / "g")
    assert "--interpolate must not be given, as this network draws codes one by one; got 2" in line
    assert not (tmp_path / "g").exists()


def test_the_kinds_of_noise_are_those_of_the_networks():
    assert generate.NOISE_MODES == synthesis.NOISE_MODES


@dataclasses.dataclass(frozen=True)
class Painting(RunConfig):
    """Settings of a recipe whose network makes pictures of pictures."""

    recipe = "painting"


def test_a_network_that_is_no_generator_is_told(tmp_path, monkeypatch):
    settings = (Painting.__module__, "Painting")
    monkeypatch.setitem(recipes._PLACES, "painting", recipes._Place(settings, settings))
    meta = {"config": Painting(data="d", out="o").as_json(), "steps": 1, "c_dim": 0, "class_names": []}
    checkpoint = files.save(tmp_path / "run", 8, {"net": {"weight": torch.zeros(2)}}, meta, 1)
    wanted = f"imgops: error: {checkpoint}: is of the recipe painting, which makes no generator"
    assert error("generate", tmp_path / "run", "--out", tmp_path / "g") == wanted
    assert error("metrics", "samples:textures", tmp_path / "run") == wanted
