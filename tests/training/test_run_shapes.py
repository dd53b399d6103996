"""Pictures of any shape that halves: networks, a run, its sheets, and what becomes of it."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from imgops.models.stylegan2 import Discriminator, Generator
from imgops.training import TrainingConfig, load_generator
from tests.test_cli import TINY, error, imgops

SHAPES = [(8, 12), (24, 16), (48, 64), (36, 64), (96, 96), (16, 128)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_networks_of_a_shape(shape, architecture):
    small = {"channel_base": 64, "channel_max": 8, "mapping_layers": 1, "architecture": architecture}
    generator = Generator(8, 0, 8, shape, 3, **small)
    discriminator = Discriminator(0, shape, 3, **small)
    images = generator(torch.randn(4, 8))
    assert images.shape == (4, 3, *shape)
    logits = discriminator(images)
    assert logits.shape == (4, 1)
    (gradient,) = torch.autograd.grad(logits.sum(), images)
    assert gradient.abs().amax((0, 1)).min() > 0
    # every layer has noise of its own shape
    noise = [torch.randn(4, *size) for size in generator.synthesis.noise_shapes]
    w = generator.mapping(torch.randn(4, 8))
    with torch.no_grad():
        for name, p in generator.named_parameters():
            if name.endswith("noise_strength"):
                p.fill_(1.0)
    first = generator.synthesis(w, noise=noise)
    assert torch.equal(first, generator.synthesis(w, noise=noise))
    assert not torch.equal(first, generator.synthesis(w, noise=[-n for n in noise]))
    with pytest.raises(ValueError, match=r"noise must be \d+ tensors, one for each layer"):
        generator.synthesis(w, noise=noise[1:])


def test_a_side_and_the_two_that_it_stands_for_make_the_same_network():
    for one, two in zip(
        (Generator(8, 0, 8, 16, 3), Discriminator(0, 16, 3)),
        (Generator(8, 0, 8, (16, 16), 3), Discriminator(0, (16, 16), 3)),
        strict=True,
    ):
        shapes = [{name: t.shape for name, t in network.state_dict().items()} for network in (one, two)]
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize("channels", [1, 4])
def test_a_run_of_a_shape(tmp_path, channels):
    run = tmp_path / "run"
    start = ("train", "--data", "samples:pictures", "--out", run, *TINY, "--resolution", "24x16")
    imgops(*start, "--channels", channels, "--augment", "ada", "--augment-p", 0.5)
    config = json.loads((run / "config.json").read_text())
    assert config["resolution"] == [16, 24]
    # width and height, of eight pictures a row beside the names of the classes
    sheet = Image.open(run / "samples" / "0000000008.png")
    assert sheet.height % 16 == 0
    assert sheet.size == Image.open(run / "reals.png").size
    imgops("train", "--out", run, "--resume", "--kimg", 0.016)
    again = TrainingConfig.read(run, {"out": str(tmp_path / "again")})
    assert again.resolution == (16, 24)
    generator, _ = load_generator(run)
    assert generator(torch.randn(1, 8), torch.eye(generator.c_dim)[:1]).shape == (1, channels, 16, 24)
    imgops("generate", run, "--seeds", "0", "--class", "0", "--out", tmp_path / "pictures")
    assert Image.open(next((tmp_path / "pictures").glob("*seed0000.png"))).size == (24, 16)
    assert "resolution cannot change when a run is continued" in error(
        "train", "--out", run, "--resume", "--resolution", "16x24"
    )
