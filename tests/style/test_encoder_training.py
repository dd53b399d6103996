"""The training of the package's own encoder, for two steps on few sources."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from imgops.data.datasets.textures import procedural_texture
from imgops.models.encoders.efficientnet_lite import EfficientNetLite
from imgops.models.encoders.weights import load_encoder
from imgops.models.weight_files import shipped
from imgops.nn import Features
from imgops.style import encoder_data as data
from imgops.style import encoder_recipe as recipe
from imgops.style import encoder_training as encoder
from imgops.style.encoder_config import EncoderConfig
from imgops.training import checkpoint as files
from imgops.training import train


def untrained():
    return EfficientNetLite(2, classes=1000)


@pytest.fixture
def few(monkeypatch, tmp_path):
    """A folder with a picture for each use, few textures, and a teacher of random weights."""
    monkeypatch.setattr(data, "TEXTURES", 12)
    monkeypatch.setattr(data, "TEST_TEXTURES", 6)
    monkeypatch.setattr(data, "SAMPLE_SETS", {})
    monkeypatch.setattr(recipe, "_MEASURED", 16)
    torch.manual_seed(0)
    teacher = untrained().eval().requires_grad_(False)
    monkeypatch.setattr(recipe, "load_encoder", lambda name, **options: teacher)
    pictures = tmp_path / "pictures"
    for use in ("contents", "styles", "patterns", "stamps"):
        (pictures / use).mkdir(parents=True)
        pixels = procedural_texture(40).permute(1, 2, 0).numpy()
        alpha = np.full((*pixels.shape[:2], 1), 128, np.uint8)
        Image.fromarray(np.concatenate([pixels, alpha], 2)).save(pictures / use / "a.png")
    return pictures


def config_of(few, out, **settings) -> EncoderConfig:
    return EncoderConfig(str(few), str(out), preset="tiny", device="cpu", **settings)


def batch(few, n: int) -> torch.Tensor:
    views = data.Views(config_of(few, few.with_name("out")).resolve())
    return torch.stack([views.view(i) for i in range(n)])


def test_two_steps(few, tmp_path, monkeypatch):
    monkeypatch.setattr(encoder, "LOGGED", 1)
    out, log = tmp_path / "encoder.safetensors", tmp_path / "log.csv"
    encoder.train(few, out, log, steps=2, batch=8, seed=0)
    assert out.stat().st_size < 4e6
    network = load_encoder(out)
    assert network.blocks == recipe.BLOCKS
    assert network.widths == recipe.WIDTHS
    # each channel's mean is 1 over what it was trained on
    means = Features(network, ["relu3_1"])(batch(few, 64))["relu3_1"].mean((0, 2, 3))
    assert 0.7 < means.median() < 1.4
    rows = list(csv.DictReader(log.open()))
    assert [row["step"] for row in rows[:2]] == ["1", "2"]
    assert all(float(rows[0][name]) > 0 for name in [*recipe.LAYERS, "classes"])
    assert {row["step"] for row in rows[2:]} == {f"relu{block}_1" for block in range(1, 6)}
    assert all(0 <= float(row[score]) <= 1 for row in rows[2:] for score in ("retrieval", "random"))
    # called again it only tests, with the same result, and says where settings are others
    before = log.read_text(), out.read_bytes()
    encoder.train(few, out, log, steps=2, batch=8, seed=0)
    assert (log.read_text(), out.read_bytes()) == before
    for change in {"seed": 1}, {"batch": 4}, {"steps": 3}:
        with pytest.raises(ValueError, match="cannot change when a run is continued"):
            encoder.train(few, out, log, **{"steps": 2, "batch": 8, "seed": 0, **change})


def test_a_run_goes_on_bit_by_bit(few, tmp_path):
    def tensors(out):
        newest, names = files.find_checkpoint(out), ("student", "network", "state")
        return {f"{name}.{k}": t for name in names for k, t in files.read_tensors(newest, name).items()}

    config = config_of(few, tmp_path / "whole", kimg=0.016)
    train(config, quiet=True)
    # the rates follow from the length, which stays the same
    config = dataclasses.replace(config, out=str(tmp_path / "parts"))
    train(config, quiet=True, on_step=lambda trainer, measured: trainer.steps == 2)
    train(config, resume=True, quiet=True)
    whole, parts = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    wanted = (tmp_path / "whole" / "network.safetensors").read_bytes()
    assert (tmp_path / "parts" / "network.safetensors").read_bytes() == wanted
    assert (tmp_path / "whole" / "reals.png").exists()
    assert not list((tmp_path / "whole" / "samples").iterdir())


def test_rates_are_those_of_one_cycle():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=0.002)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.002, total_steps=50, pct_start=0.1)
    for step in range(50):
        group = optimizer.param_groups[0]
        assert recipe.one_cycle(step, 50, 0.002) == pytest.approx((group["lr"], group["betas"][0])), step
        optimizer.step()
        if step < 49:
            schedule.step()


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(OSError, match="contents"):
        train(config_of(tmp_path / "nowhere", tmp_path / "out"), quiet=True)


def test_the_student_learns_what_the_teacher_sees(few):
    """On the same few crops, so that a few steps show it."""
    x = batch(few, 8)
    teacher = recipe.Teacher()
    teacher.measure([x])
    features, classes = teacher(x)
    for y in features.values():
        torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(y.shape[1]), atol=1e-3, rtol=0)
    torch.testing.assert_close(classes.exp().sum(1), torch.ones(8))
    student = recipe.Student(recipe.trainable(recipe.new_network()), teacher.channels, 1000)
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-3)
    totals = []
    for _ in range(12):
        total = torch.stack(list(recipe.differences(student(x), (features, classes)).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.8 * totals[0]


def test_what_is_transparent_shows_a_texture(few):
    pixels = data._before_texture(few / "stamps" / "a.png", 7).float()
    ground, picture = procedural_texture(7).float(), procedural_texture(40).float()
    assert (pixels - (ground + (picture - ground) * 128 / 255)).abs().mean() < 12


def test_folding_changes_nothing_but_the_scale(few):
    train = data.sources(few, 64)["textures"]
    body = recipe.trainable(recipe.new_network())
    rng = np.random.default_rng(0)
    x = torch.cat([data.crops(source, 4, rng) for source in train])
    with torch.no_grad():
        for _ in range(30):
            body(x)
    network = recipe.folded(body, iter([x]))
    layer = "relu4_2"
    ours, theirs = Features(network, [layer])(x)[layer], Features(body.eval(), [layer])(x)[layer].detach()
    alive = theirs.mean((0, 2, 3)) > 1e-2
    assert alive.float().mean() > 0.9
    scaled = theirs / theirs.mean((0, 2, 3), keepdim=True)
    torch.testing.assert_close(ours[:, alive], scaled[:, alive], rtol=1e-3, atol=1e-3)


def test_crops_are_of_their_part():
    pixels = torch.zeros(3, 200, 200, dtype=torch.uint8)
    pixels[:, :, 100:] = 255
    source = data._source(pixels, (100, 0, 200, 200))
    x = data.crops(source, 32, np.random.default_rng(0), strong=False)
    assert x.shape == (32, 3, data.CROP, data.CROP)
    # some reach a little beyond it, turned
    assert x.mean() > 0.98


def test_the_encoder_of_the_package():
    """It fits into 4 MB, and tells textures apart that it never saw, far better than the same network untrained."""
    path = shipped("default_encoder")
    assert path is not None
    assert path.stat().st_size <= 4e6
    network = load_encoder("embedded")
    assert (network.blocks, network.widths) == (recipe.BLOCKS, recipe.WIDTHS)
    train_on, few = ([data._source(procedural_texture(first + i)) for i in range(24)] for first in (0, data.TEXTURES))
    torch.manual_seed(0)
    random = encoder.random_network(train_on, np.random.default_rng(0))
    for layer in ("relu3_1", "relu4_1", "relu5_1"):
        trained, untrained = (encoder.retrieval_accuracy(n, few, layer, views=3) for n in (network, random))
        assert trained > 0.75, layer
        assert trained > untrained + 0.3, layer
