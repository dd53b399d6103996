"""``imgops ema``: a checkpoint that ``imgops generate`` takes, and mistakes in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from imgops.cli import app
from imgops.models.stylegan2 import Generator
from imgops.training import TrainingConfig, find_checkpoint, load_generator
from imgops.training.ema import PowerAverages, power_of, snapshots, write_snapshot
from imgops.training.recipes.stylegan2 import StyleGAN2


def imgops(*arguments: object, code: int = 0) -> str:
    """The output of a command, or the line that it ends with."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run, with snapshots of a generator whose every parameter grows from 1 to 2."""
    out = tmp_path_factory.mktemp("ema") / "run"
    small = (
        "--resolution 8 --batch 4 --kimg 0.004 --z-dim 8 --w-dim 8 --mapping-layers 1 --channel-base 64 --device cpu"
    )
    imgops("train", "--data", "samples:textures", "--out", out, *small.split())
    network, _ = load_generator(out)
    averages = PowerAverages(network)
    for step in range(1, 101):
        with torch.no_grad():
            for p in network.parameters():
                p.fill_(1 + step / 100)
        averages.update(network, 4 * step)
        if step % 25 == 0:
            write_snapshot(out / "ema", averages)
    return out


def test_the_average_is_a_checkpoint(run, tmp_path):
    out = tmp_path / "averaged"
    said = imgops("ema", run, "--length", 0.08, "-o", out)
    assert said == (f"the average of length 0.08 at 400 images, of 4 snapshots, in {find_checkpoint(out)}\n")
    generator, meta = load_generator(out)
    values = torch.cat([p.flatten() for p in generator.parameters()])
    # the mean of 1 + tau by the power function of that length, tau rounded up to steps
    gamma = power_of(0.08)
    wanted = torch.full_like(values, 1 + (gamma + 1) / (gamma + 2) + 0.005)
    torch.testing.assert_close(values, wanted, rtol=0, atol=2e-3)
    assert meta["ema"]["length"] == 0.08
    assert meta["ema"]["misfit"] < 0.05
    assert len(meta["class_counts"]) == 4
    before, _ = load_generator(run)
    for name, buffer in generator.named_buffers():
        assert torch.equal(buffer, dict(before.named_buffers())[name]) is (name != "mapping.w_avg"), name
    # every z and class becomes about the same w here
    w = generator.mapping(torch.randn(64, 8), torch.eye(4).repeat(16, 1))[:, 0]
    torch.testing.assert_close(generator.mapping.w_avg, w.mean(0), rtol=0.2, atol=0)
    imgops("generate", out, "--seeds", "0", "--class", "0", "--out", tmp_path / "pictures")
    assert (tmp_path / "pictures" / "brick-seed0000.png").is_file()


def test_the_mean_of_w_is_that_of_the_average_and_of_the_classes_in_the_data():
    torch.manual_seed(0)
    network = Generator(z_dim=4, c_dim=2, w_dim=8, img_resolution=8, img_channels=3, mapping_layers=2, channel_base=32)
    StyleGAN2.renew(network, [1, 3], TrainingConfig(data="", out=""), 0)
    z = torch.randn(40_000, 4)
    with torch.no_grad():
        of_class = [network.mapping(z, torch.eye(2)[[k]].expand(len(z), 2))[:, 0].mean(0) for k in (0, 1)]
    wanted = of_class[0].lerp(of_class[1], 0.75)
    found = network.mapping.w_avg
    assert float((found - wanted).abs().max()) < 0.1 * float((of_class[0] - of_class[1]).abs().max())
    StyleGAN2.renew(network, [1, 3], TrainingConfig(data="", out=""), 0)
    assert torch.equal(network.mapping.w_avg, found)


def test_a_run_keeps_snapshots(tmp_path):
    small = "--resolution 8 --batch 4 --kimg 0.016 --log-kimg 0.004 --z-dim 8 --w-dim 8 --mapping-layers 1 --device cpu"
    more = "--channel-base 64 --channel-max 8 --ema-snapshot-kimg 0.004"
    imgops("train", "--data", "samples:textures", "--out", tmp_path / "run", *small.split(), *more.split())
    assert len(snapshots(tmp_path / "run" / "ema")) == 4
    for length in 0.05, 0.15:
        imgops("ema", tmp_path / "run", "--length", length, "-o", tmp_path / str(length))
    short, long, newest = (
        torch.cat([p.flatten() for p in load_generator(tmp_path / place)[0].parameters()])
        for place in ("0.05", "0.15", "run")
    )
    # the run's own average is of the last tenth of an image at most, and so the newest weights
    assert 0 < float((short - newest).norm()) < float((long - newest).norm())


def test_another_time_and_the_default_folder(run):
    imgops("ema", run, "--length", 0.1, "--images", 200)
    _, meta = load_generator(f"{run}-ema0.1")
    assert (meta["seen"], meta["ema"]) == (200, {"length": 0.1, "images": 200, "misfit": 0.0})


def test_a_length_that_snapshots_do_not_allow_is_told(run, tmp_path):
    result = CliRunner().invoke(app, ["ema", str(run), "--length", "0.01", "-o", str(tmp_path / "short")])
    assert result.exit_code == 0
    assert "warning: the snapshots give an average of length 0.01 whose weight over time is " in result.stderr


def test_mistakes_are_one_line(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert "choose a new folder" in imgops("ema", run, "-o", tmp_path / "full", code=2)
    assert "--length must be in (0, 0.288]; got 0.0" in imgops("ema", run, "--length", 0, code=2)
    assert "neither a checkpoint nor the folder of a run" in imgops("ema", tmp_path / "none", code=2)
    assert "there is no snapshot of 50 images or fewer" in imgops(
        "ema", run, "--images", 50, "-o", tmp_path / "a", code=2
    )
    other = tmp_path / "other"
    shutil.copytree(run, other)
    shutil.rmtree(other / "ema")
    assert "keeps no snapshots of averages" in imgops("ema", other, code=2)
    averages = PowerAverages(torch.nn.Linear(2, 2))
    averages.seen = 4
    write_snapshot(other / "ema", averages)
    assert "does not fit the network of" in imgops("ema", other, "-o", tmp_path / "b", code=2)
    assert not (tmp_path / "b").exists()
    config = find_checkpoint(other) / "config.json"
    config.write_text(json.dumps({"format": 99}))
    assert "has format 99" in imgops("ema", other, code=2)
