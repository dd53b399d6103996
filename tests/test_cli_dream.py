"""``imgops dream``: pictures, noise, guides, zooms, metadata; every error in one line, and nothing half written."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

from imgops.cli._pictures import Reporter
from imgops.data.pictures import read_picture, read_settings, resize_picture, write_picture
from imgops.data.video import VideoWriter, probe_video, read_frames, read_timed_frames
from imgops.dream import ClassObjective, DreamSettings, Objective, default_objectives, dream, dream_frames
from imgops.models.encoders.vgg import VGG
from imgops.models.encoders.weights import load_encoder
from tests.models.test_efficientnet_lite import made
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


@pytest.mark.parametrize(
    "more",
    [
        ("--fourier",),
        ("--alpha", "2"),
        ("--normalization", "mean"),
        ("--tile", "32"),
        ("--intensity", "0.5", "--natural-colors", "1"),
        ("--tile", "32", "--padding", "6", "--random-scale", "0.1", "--random-rotation", "5"),
    ],
)
def test_other_ways(folder, tmp_path, more):
    imgops("dream", folder / "cat.png", "-o", tmp_path / "dream.jpg", *more, *options(folder))
    assert read_settings(tmp_path / "dream.jpg")["command"] == "dream"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    """A file of EfficientNet-Lite0's layout, with random weights."""
    path = tmp_path_factory.mktemp("classifier") / "lite.pth"
    torch.save(made(0), path)
    return path


def test_a_class_by_its_name(classifier, tmp_path):
    out = tmp_path / "cat.png"
    imgops("dream", "noise", "--class", "Tabby", "-c", "7=0.5", "-o", out, *QUICK, "--weights", classifier)
    beside = ["blocks_9", None, 0.5]
    assert read_settings(out)["objectives"] == [["classifier", 281, 1.0], ["classifier", 7, 0.5], beside]
    network = load_encoder(classifier, frame=False, classifier=True)
    objectives = [ClassObjective(281), ClassObjective(7, 0.5), Objective("blocks_9", weight=0.5)]
    expected = dream(None, network, objectives, DreamSettings(octaves=2, steps=2, jitter=4), size=48)
    assert (read_picture(out).pixels - expected).abs().max() < 0.6 / 255
    # what was chosen by eye is told, and that the picture was seen at random sizes and angles
    assert read_settings(out)["settings"]["random_rotation"] > 0


def test_a_class_beside_a_guide(classifier, folder, tmp_path):
    out = tmp_path / "cat.png"
    arguments = ("dream", folder / "cat.png", "--class", "tabby", "--guide", folder / "sea.png", "-o", out)
    imgops(*arguments, *QUICK, "--weights", classifier)
    layer = default_objectives(load_encoder(classifier))[0].layer
    assert [one[:2] for one in read_settings(out)["objectives"]] == [["classifier", 281], [layer, None]]


def test_classes_are_listed():
    stdout, _ = imgops("dream", "--list-classes")
    assert stdout.splitlines()[281] == "281 tabby, tabby cat"
    assert len(stdout.splitlines()) == 1000


def test_classes_that_a_network_lacks(classifier, folder, tmp_path):
    arguments = ("dream", folder / "cat.png", "-o", tmp_path / "x.png", *QUICK, "--weights")
    assert "has no classifier, which classes need" in error(*arguments, folder / "enc.safetensors", "--class", "tabby")
    assert "--class: no class is called 'taby'; close names are tabby" in error(*arguments, classifier, "-c", "taby")
    state = made(0)
    state |= {"_fc.weight": state["_fc.weight"][:9], "_fc.bias": state["_fc.bias"][:9]}
    torch.save(state, tmp_path / "nine.pth")
    nine = (*arguments, tmp_path / "nine.pth", "--class")
    assert "--class tabby: the network has 9 classes, not ImageNet's; give a number" in error(*nine, "tabby")
    assert "--class: number must be 0 to 8; got 9" in error(*nine, "9")
    imgops(*nine, "8")
    assert "of the picture as a whole; leave out tile" in error(*arguments, classifier, "-c", "tabby", "--tile", "64")


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


def clip(path, frames=4):
    """A GIF whose frames are shown for different times, of a picture that moves."""
    picture = torch.rand(3, 8, 12, generator=torch.Generator().manual_seed(3))
    picture = torch.nn.functional.interpolate(picture[None], (40, 60), mode="bicubic").clamp(0, 1)[0]
    with VideoWriter(path, 10) as video:
        for i in range(frames):
            video.write(picture.roll(2 * i, 2), 0.1 + 0.1 * (i % 2))
    return path


@pytest.mark.parametrize("result", ["out.gif", "out.mp4"])
def test_a_video_is_dreamt_with_its_times(folder, tmp_path, result):
    if result == "out.mp4":
        pytest.importorskip("av")
    source = clip(tmp_path / "in.gif")
    stdout, _ = imgops("dream", source, "-l", "relu3_1", "-o", tmp_path / result, *options(folder))
    assert stdout.startswith(f"{tmp_path / result}: 4 frames of 48 x 32 pixels, ")
    before, after = list(read_timed_frames(source)), list(read_timed_frames(tmp_path / result))
    assert [frame.duration for frame in after] == [frame.duration for frame in before]
    for old, new in zip(before, after, strict=True):
        # beyond what a palette changes
        assert (new.pixels - resize_picture(old.pixels, 48)).abs().mean() > 0.03


def test_a_dream_moves_with_its_video_and_is_as_strong_in_every_frame():
    """Beside dreams of which each forgets the last."""
    network = load_encoder("embedded")
    wide = resize_picture(read_picture("samples:coffee").pixels, 64)
    frames = [wide[:, :, 3 * i : 3 * i + 48].contiguous() for i in range(5)]
    settings, objectives = DreamSettings(octaves=2, steps=4, jitter=4), [Objective("relu3_1")]

    def agreement(dreams):
        """The correlation of what was dreamt into a frame and into the next one, at the same places."""
        parts = [result - frame for result, frame in zip(dreams, frames, strict=True)]
        pairs = [(a[:, :, 7:-4].flatten(), b[:, :, 4:-7].flatten()) for a, b in itertools.pairwise(parts)]
        return min(torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs)

    carried = list(dream_frames(frames, network, objectives, settings))
    single = [dream(frame, network, objectives, settings) for frame in frames]
    assert 1 - agreement(carried) < 0.5 * (1 - agreement(single))
    strength = torch.stack([(result - frame).std() for result, frame in zip(carried, frames, strict=True)])
    assert 0.8 * strength[0] < strength.min()
    assert strength.max() < 1.2 * strength[0]


def test_a_folder_is_dreamt(folder, tmp_path):
    for name in ("cat", "sea"):
        (tmp_path / f"{name}.png").write_bytes((folder / f"{name}.png").read_bytes())
    Image.open(folder / "cat.png").save(tmp_path / "cat.jpg")
    clip(tmp_path / "moving.gif", 2)
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "notes.txt").write_text("no picture")
    _, stderr = imgops("dream", tmp_path, "-o", tmp_path, *options(folder), code=1)
    results = {"cat-png-dream.png", "cat-jpg-dream.png", "sea-dream.png", "moving-dream.gif"}
    assert results <= {path.name for path in tmp_path.iterdir()}
    assert f"{tmp_path / 'text.png'} is left out: not a picture" in stderr
    assert "left out: .txt (1)" in stderr
    assert stderr.splitlines()[-1] == "imgops: error: 1 of 5 results could not be made"
    _, stderr = imgops("dream", tmp_path, "-o", tmp_path, *options(folder), code=1)
    assert "4 of the files are results of an earlier run" in stderr


@pytest.mark.parametrize("kind", ["clip", "zoom"])
def test_a_stopped_video_goes_on(folder, tmp_path, monkeypatch, kind):
    """To the same bytes as if it had not been stopped."""
    more = (clip(tmp_path / "in.gif"),) if kind == "clip" else (folder / "cat.png", "--frames", "4", "--rotate", "3")
    arguments = ("dream", *more, "-l", "relu3_1", *options(folder))
    imgops(*arguments, "-o", tmp_path / "whole.gif")
    update, frames = Reporter.update, []

    def pressed(self, share, picture, state):
        update(self, share, picture, state)
        frames.append(state)
        if state == "frame 2" and len(frames) == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Reporter, "update", pressed)
    stdout, _ = imgops(*arguments, "-o", tmp_path / "out.gif", code=130)
    assert "2 frames of 48 x 32 pixels, stopped (the same command goes on)" in stdout
    _, stderr = imgops(*arguments, "-o", tmp_path / "out.gif")
    assert "goes on after 2 frames of a stopped job" in stderr
    whole, out = (list(read_frames(tmp_path / name)) for name in ("whole.gif", "out.gif"))
    assert len(out) == 4
    assert all(torch.equal(a, b) for a, b in zip(whole, out, strict=True))
    assert not (tmp_path / "out.gif.frames").exists()


@pytest.mark.parametrize("shape", [(1, 1), (15, 15), (3, 60)])
def test_small_pictures_are_enlarged(folder, tmp_path, shape):
    """As far as the layers need it; a size that is too small says which is not."""
    write_picture(tmp_path / "small.png", torch.rand(3, *shape))
    arguments = ["dream", tmp_path / "small.png", "--guide", tmp_path / "small.png", "-l", "relu4_2", *options(folder)]
    del arguments[arguments.index("--size") : arguments.index("--size") + 2]
    least = 8 * max(shape) // min(shape)
    _, stderr = imgops(*arguments, "-o", tmp_path / "out.png")
    assert (f"enlarged to a size of {least}," in stderr) == (min(shape) < 8)
    assert max(Image.open(tmp_path / "out.png").size) == max(least, max(shape))
    message = error(*arguments, "-o", tmp_path / "out.png", "--size", least // 2)
    assert f"which is large enough with a size of {least}" in message
    imgops(*arguments, "-o", tmp_path / "out.png", "--size", least)


def test_a_video_has_frames_of_its_own(folder, tmp_path):
    source = clip(tmp_path / "in.gif")
    assert "has frames of its own" in error("dream", source, "--frames", "3", *options(folder))
    _, stderr = imgops("dream", source, "-o", tmp_path / "out.png", *options(folder))
    assert "in.gif: the first of 4 frames is taken" in stderr


def test_layers_are_listed(folder):
    stdout, _ = imgops("dream", "--list-layers", "--weights", folder / "enc.safetensors")
    assert "relu4_2" in stdout
    row = next(line for line in stdout.splitlines() if "relu4_2" in line)
    assert row.split("│")[2].strip() == "10"


@pytest.mark.parametrize("more", [(), ("--guide", "samples:camera")])
def test_an_own_network_needs_a_layer(tmp_path, more):
    own = tmp_path / "own.py"
    own.write_text("from torch import nn\n\n\ndef network():\n    return nn.Sequential(nn.Conv2d(3, 4, 3))\n")
    arguments = ("dream", "samples:camera", *more, "-o", tmp_path / "out.png", *QUICK, "--weights", f"{own}:network")
    message = error(*arguments)
    assert "--layer is missing: Sequential has none to dream with by default; --list-layers prints all" in message
    imgops(*arguments, "--layer", "0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{tmp}/nowhere.png",), "No such file or directory"),
        (("{tmp}/text.png",), "{tmp}/text.png: not a picture"),
        (("{tmp}/empty.png",), "{tmp}/empty.png: the file is empty"),
        (("samples:dog",), "samples:dog: no such sample"),
        ((), "PICTURE is missing: a file, samples:NAME or noise (see imgops dream --help)"),
        (("{dir}/cat.png", "-l", "relu4_9"), "has no layer 'relu4_9'; did you mean relu4_"),
        (("{dir}/cat.png", "-l", "relu4_2:99"), "channel of layer relu4_2 must be 0 to 9; got 99"),
        (("{dir}/cat.png", "-l", "relu4_2=much"), "--layer relu4_2=much is no objective"),
        (
            ("{dir}/cat.png", "--normalization", "max"),
            "--normalization must be mean, std, laplacian or none; got 'max'",
        ),
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


def test_memory_that_runs_out_is_told_with_what_helps(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99999999999 bytes")

    monkeypatch.setattr("imgops.cli._dream.dream", fail)
    line = error("dream", "samples:camera", "-o", tmp_path / "x.png", "--size", 64)
    assert "memory ran out; give --tile" in line
    assert "Allocator" not in line
