"""``imgops dream``: pictures, noise, guides, zooms, metadata; every error in one line, and nothing half written."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

from imgops.data.pictures import read_picture, read_settings, resize_picture, write_picture
from imgops.data.video import probe_video, read_frames
from imgops.models.vgg import VGG
from tests.test_cli import error, imgops

QUICK = ("--size", "48", "--octaves", "2", "--steps", "2", "--jitter", "4", "--device", "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    made = tmp_path_factory.mktemp("dream")
    for name, size in {"cat": (40, 60), "sea": (48, 48)}.items():
        write_picture(made / f"{name}.png", torch.rand(3, *size))
    network = VGG((1, 1, 1, 2, 1), widths=(4, 6, 8, 10, 12))
    safetensors.torch.save_file(network.state_dict(), made / "enc.safetensors")
    return made


def options(folder):
    return (*QUICK, "--weights", folder / "enc.safetensors")


def test_a_picture_and_its_settings(folder, tmp_path):
    out = tmp_path / "new" / "dream.png"
    arguments = ("dream", folder / "cat.png", "-l", "relu3_1", "-l", "relu2_1:3=0.5", "--seed", "5", "-o", out)
    stdout, _ = imgops(*arguments, "--preview", tmp_path / "now.png", *options(folder))
    assert stdout.startswith(f"{out}: 48 x 32 pixels, ")
    assert "peak memory" in stdout
    settings = read_settings(out)
    assert (settings["network"], settings["settings"]["seed"]) == ("VGG", 5)
    assert settings["objectives"] == [["relu3_1", None, 1.0], ["relu2_1", 3, 0.5]]
    change = read_picture(out).pixels - resize_picture(read_picture(folder / "cat.png").pixels, 48)
    assert change.abs().mean() > 0.005
    assert Image.open(tmp_path / "now.png").size[0] <= 48


def test_the_same_seed_gives_the_same_file(folder, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        imgops("dream", "noise", "-o", tmp_path / f"{name}.png", "--seed", seed, *options(folder))
    a, b, c = (read_picture(tmp_path / f"{name}.png").pixels for name in "abc")
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert a.shape == (3, 48, 48)


@pytest.mark.parametrize("more", [("--fourier",), ("--alpha", "2"), ("--normalization", "mean"), ("--tile", "32")])
def test_other_ways(folder, tmp_path, more):
    imgops("dream", folder / "cat.png", "-o", tmp_path / "dream.jpg", *more, *options(folder))
    assert read_settings(tmp_path / "dream.jpg")["command"] == "dream"


def test_options_that_do_nothing_are_told(folder, tmp_path):
    _, stderr = imgops("dream", folder / "cat.png", "-o", tmp_path / "a.png", "--zoom", "0.1", *options(folder))
    assert stderr == "imgops: warning: --zoom does nothing without --frames\n"


def test_a_guide(folder, tmp_path):
    arguments = ("dream", folder / "cat.png", "--guide", folder / "sea.png", "-l", "relu3_1")
    imgops(*arguments, "-o", tmp_path / "guided.png", *options(folder))
    imgops("dream", folder / "cat.png", "-l", "relu3_1", "-o", tmp_path / "plain.png", *options(folder))
    guided, plain = (read_picture(tmp_path / name).pixels for name in ("guided.png", "plain.png"))
    assert (guided - plain).abs().max() > 0.02


def test_a_zoom(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stdout, _ = imgops("dream", folder / "cat.png", "--frames", "3", "--fps", "10", *options(folder))
    assert stdout.startswith("cat-dream.gif: 3 frames of 48 x 32 pixels")
    assert probe_video("cat-dream.gif").fps == 10
    assert [frame.shape for frame in read_frames("cat-dream.gif")] == [(3, 32, 48)] * 3


def test_layers_are_listed(folder):
    stdout, _ = imgops("dream", "--list-layers", "--weights", folder / "enc.safetensors")
    assert "relu4_2" in stdout
    row = next(line for line in stdout.splitlines() if "relu4_2" in line)
    assert row.split("│")[2].strip() == "10"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{tmp}/nowhere.png",), "No such file or directory"),
        (("{tmp}/text.png",), "{tmp}/text.png: not a picture"),
        (("{tmp}/empty.png",), "{tmp}/empty.png: the file is empty"),
        (("samples:dog",), "samples:dog: no such sample"),
        ((), "a picture is missing: a file, samples:NAME or noise"),
        (("{dir}/cat.png", "-l", "relu4_9"), "has no layer 'relu4_9'; did you mean relu4_"),
        (("{dir}/cat.png", "-l", "relu4_2:99"), "channel of layer relu4_2 must be 0 to 9; got 99"),
        (("{dir}/cat.png", "-l", "relu4_2=much"), "'relu4_2=much' is no objective"),
        (("{dir}/cat.png", "--normalization", "max"), "normalization must be one of mean, std, laplacian, none"),
        (("{dir}/cat.png", "--alpha", "0.5"), "alpha must be above 1"),
        (("{dir}/cat.png", "--frames", "3", "--out", "{tmp}/out/x.png"), "--out must be a GIF or video for 3 frames"),
        (("{dir}/cat.png", "--out", "{tmp}/out/x.doc"), "pictures are written as .png"),
        (("{dir}/cat.png", "--out", "{dir}/cat.png"), "is one of the sources"),
        (("{dir}/cat.png", "--guide", "{tmp}/text.png"), "{tmp}/text.png: not a picture"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(folder, tmp_path, arguments, message):
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    put = [text.format(tmp=tmp_path, dir=folder) for text in arguments]
    out = () if "--out" in put else ("--out", tmp_path / "out" / "x.png")
    assert message.format(tmp=tmp_path) in error("dream", *put, *out, *options(folder))
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
