"""The memory that a dream is said to take, and what is told where there is less."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from imgops.dream import Objective, dream, dream_frames, planning
from imgops.dream.gradient import Gradient
from imgops.dream.looks import Resolved
from imgops.models.encoders.vgg import VGG
from tests.test_cli import error

EMBEDDED = ("--device", "cpu", "--weights", "embedded")


def test_a_dream_beyond_the_memory_is_told_before_the_work(tmp_path, monkeypatch):
    out = tmp_path / "out.png"
    message = error("dream", "samples:camera", "-o", out, "--size", "40000", *EMBEDDED)
    assert "dream: 40000 x 40000 pixels take about" in message
    assert message.endswith("GB; give a smaller --size")
    # what fits in tiles says so
    monkeypatch.setattr(planning, "program_memory", lambda device: 425e6)
    monkeypatch.setattr(planning, "room_on", lambda device: 1.6e9)
    command = ("dream", "samples:camera", "-o", out, "--size", "1500", *EMBEDDED)
    message = error(*command)
    assert "; give --tile 768, which makes tiles, or a smaller --size" in message
    assert "; give a smaller --size" in error(*command[:4], "--size", "4000", *EMBEDDED)
    assert not out.exists()


def test_in_python_too_and_in_every_frame(monkeypatch):
    network = VGG((1,), widths=(8,)).eval()
    monkeypatch.setattr(planning, "program_memory", lambda device: 425e6)
    monkeypatch.setattr(planning, "room_on", lambda device: 0.46e9)
    with pytest.raises(ValueError, match=r"dream: 400 x 300 pixels take about 0\.5 GB of memory"):
        dream(torch.rand(3, 30, 40), network, [Objective("relu1_1")], size=400)
    frames = dream_frames(torch.rand(2, 3, 30, 40), network, [Objective("relu1_1")], size=400)
    with pytest.raises(ValueError, match="400 x 300 pixels"):
        next(frames)


class OfOneSize(nn.Module):
    """As networks with a fixed head are."""

    def forward(self, x):
        if x.shape[2:] != (224, 224):
            raise ValueError("must be 224 x 224")
        return x


def test_of_networks_that_cannot_be_counted_the_pictures_are(monkeypatch):
    monkeypatch.setattr(planning, "program_memory", lambda device: 425e6)
    gradient = Gradient(nn.Sequential(OfOneSize()), [Objective("0")])
    assert planning.memory_of(gradient, Resolved(), 1000, 1000, None) == 450e6 + 12e6 * 20


_MEASURED = """
import sys
from imgops._memory import peak_memory
from imgops.data import read_picture
from imgops.dream import default_objectives, dream, planning
from imgops.dream.gradient import Gradient
from imgops.dream.looks import Resolved
from imgops.models.encoders.weights import load_encoder

network = load_encoder("embedded", frame=False)
tile, kind = int(sys.argv[1]) or None, sys.argv[2]
settings = Resolved(octaves=2, steps=2, tile=tile, parametrization=kind)
objectives = default_objectives(network)
print(planning.memory_of(Gradient(network, objectives), settings, 1024, 1024, tile))
dream(read_picture("samples:camera").pixels.expand(3, -1, -1), network, objectives, settings, size=1024)
print(peak_memory())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
@pytest.mark.parametrize(("tile", "kind"), [(0, "pixels"), (0, "fourier"), (256, "pixels"), (256, "fourier")])
def test_a_dream_takes_the_memory_that_was_announced(tile, kind):
    command = [sys.executable, "-c", _MEASURED, str(tile), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    announced, peak = map(float, done.stdout.split())
    assert 0.85 * peak < announced < 1.15 * peak
