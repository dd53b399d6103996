"""The training of the package's own encoder, for two steps on few sources."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from imgops.data.datasets.textures import procedural_texture
from imgops.models.encoders.efficientnet_lite import EfficientNetLite
from imgops.models.encoders.weights import load_encoder
from imgops.models.weight_files import shipped
from imgops.nn import Features
from imgops.style import encoder_training as encoder


def untrained():
    return EfficientNetLite(2, classes=1000)


@pytest.fixture
def few(monkeypatch, tmp_path):
    """A folder with a picture for each use, few textures, and a teacher of random weights."""
    monkeypatch.setattr(encoder, "TEXTURES", 12)
    monkeypatch.setattr(encoder, "VIEW", 64)
    monkeypatch.setattr(encoder, "TEST_TEXTURES", 6)
    monkeypatch.setattr(encoder, "SAMPLE_SETS", {})
    torch.manual_seed(0)
    monkeypatch.setattr(encoder, "load_encoder", lambda name, **options: untrained().eval().requires_grad_(False))
    for use in ("contents", "styles", "patterns", "stamps"):
        (tmp_path / use).mkdir()
        pixels = procedural_texture(40).permute(1, 2, 0).numpy()
        alpha = np.full((*pixels.shape[:2], 1), 128, np.uint8)
        Image.fromarray(np.concatenate([pixels, alpha], 2)).save(tmp_path / use / "a.png")
    return tmp_path


def test_two_steps(few, tmp_path):
    out, log = tmp_path / "encoder.safetensors", tmp_path / "log.csv"
    encoder.train(few, out, log, steps=2, batch=8, seed=0)
    assert out.stat().st_size < 4e6
    network = load_encoder(out)
    assert network.blocks == encoder.BLOCKS
    assert network.widths == encoder.WIDTHS
    # each channel's mean is 1 over what it was trained on
    x = encoder.views(encoder.sources(few), 64, np.random.default_rng(3))
    means = Features(network, ["relu3_1"])(x)["relu3_1"].mean((0, 2, 3))
    assert 0.7 < means.median() < 1.4
    rows = list(csv.DictReader(log.open()))
    assert rows[0]["step"] == "2"
    assert all(float(rows[0][name]) > 0 for name in [*encoder.LAYERS, "classes"])
    assert {row["step"] for row in rows[1:]} == {f"relu{block}_1" for block in range(1, 6)}
    assert all(0 <= float(row[score]) <= 1 for row in rows[1:] for score in ("retrieval", "random"))


def test_the_student_learns_what_the_teacher_sees(few):
    """On the same few crops, so that a few steps show it."""
    x = encoder.views(encoder.sources(few), 8, np.random.default_rng(0))
    teacher = encoder.Teacher(iter([x]))
    features, classes = teacher(x)
    for y in features.values():
        torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(y.shape[1]), atol=1e-3, rtol=0)
    torch.testing.assert_close(classes.exp().sum(1), torch.ones(8))
    student = encoder.Student(encoder.trainable(encoder.new_network()), teacher, 1000)
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-3)
    totals = []
    for _ in range(12):
        total = torch.stack(list(encoder.differences(student(x), (features, classes)).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.8 * totals[0]


def test_what_is_transparent_shows_a_texture(few):
    pixels = encoder._before_texture(few / "stamps" / "a.png", 7).float()
    ground, picture = procedural_texture(7).float(), procedural_texture(40).float()
    assert (pixels - (ground + (picture - ground) * 128 / 255)).abs().mean() < 12


def test_folding_changes_nothing_but_the_scale(few):
    train = encoder.sources(few)["textures"]
    body = encoder.trainable(encoder.new_network())
    rng = np.random.default_rng(0)
    x = torch.cat([encoder.crops(source, 4, rng) for source in train])
    with torch.no_grad():
        for _ in range(30):
            body(x)
    network = encoder.folded(body, iter([x]))
    layer = "relu4_2"
    ours, theirs = Features(network, [layer])(x)[layer], Features(body.eval(), [layer])(x)[layer].detach()
    alive = theirs.mean((0, 2, 3)) > 1e-2
    assert alive.float().mean() > 0.9
    scaled = theirs / theirs.mean((0, 2, 3), keepdim=True)
    torch.testing.assert_close(ours[:, alive], scaled[:, alive], rtol=1e-3, atol=1e-3)


def test_crops_are_of_their_part():
    pixels = torch.zeros(3, 200, 200, dtype=torch.uint8)
    pixels[:, :, 100:] = 255
    source = encoder._source(pixels, (100, 0, 200, 200))
    x = encoder.crops(source, 32, np.random.default_rng(0), strong=False)
    assert x.shape == (32, 3, encoder.CROP, encoder.CROP)
    # some reach a little beyond it, turned
    assert x.mean() > 0.98


def test_the_encoder_of_the_package():
    """It fits into 4 MB, and tells textures apart that it never saw, far better than the same network untrained."""
    path = shipped("default_encoder")
    assert path is not None
    assert path.stat().st_size <= 4e6
    network = load_encoder("embedded")
    assert (network.blocks, network.widths) == (encoder.BLOCKS, encoder.WIDTHS)
    train_on, few = (
        [encoder._source(procedural_texture(first + i)) for i in range(24)] for first in (0, encoder.TEXTURES)
    )
    torch.manual_seed(0)
    random = encoder.random_network(train_on, np.random.default_rng(0))
    for layer in ("relu3_1", "relu4_1", "relu5_1"):
        trained, untrained = (encoder.retrieval_accuracy(n, few, layer, views=3) for n in (network, random))
        assert trained > 0.75, layer
        assert trained > untrained + 0.3, layer
