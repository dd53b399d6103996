"""Pooled features: which layer, what happens to the colors and the size, and what is refused."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import nn

from imgops.metrics import FeatureExtractor
from imgops.metrics.features import as_rgb, resized
from imgops.models.encoders import load_encoder


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor("embedded", device="cpu", batch=3, size=32)


def pictures(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_features_are_the_means_of_the_last_layer(extractor):
    x = pictures(2, 3, 48, 48)
    y = load_encoder("embedded")(resized(x / 255, 32)).mean((2, 3))
    torch.testing.assert_close(extractor(x), y, rtol=1e-4, atol=1e-5)
    assert extractor.features == y.shape[1] == 256
    assert (extractor.name, extractor.size) == ("embedded", 32)


def test_the_batch_changes_nothing(extractor):
    x = pictures(7, 3, 32, 32)
    torch.testing.assert_close(extractor(x), torch.cat([extractor(one[None]) for one in x]), rtol=1e-4, atol=1e-5)


def test_gray_is_its_rgb_and_transparency_is_over_white(extractor):
    gray = pictures(2, 1, 32, 32)
    assert torch.equal(extractor(gray), extractor(gray.expand(-1, 3, -1, -1)))
    rgba = pictures(2, 4, 32, 32)
    rgba[:, 3] = 255
    assert torch.equal(extractor(rgba), extractor(rgba[:, :3]))
    rgba[:, 3] = 0
    assert torch.equal(as_rgb(rgba), torch.ones(2, 3, 32, 32))
    rgba[:, :3], rgba[:, 3] = 0, 51
    torch.testing.assert_close(as_rgb(rgba), torch.full((2, 3, 32, 32), 0.8))


def test_the_shorter_side_has_the_size():
    x = torch.rand(1, 3, 20, 45)
    assert resized(x, 40).shape == (1, 3, 40, 90)
    assert resized(x, 10).shape == (1, 3, 10, 22)
    assert resized(x, 20) is x
    # no overshoot, and a reduction is antialiased: stripes of one pixel become gray
    stripes = (torch.arange(64) % 2).float().expand(1, 3, 64, 64)
    assert resized(stripes, 128).min() >= 0
    assert float((resized(stripes, 16)[..., 2:-2] - 0.5).abs().max()) < 0.01


def test_the_size_follows_the_pictures(extractor):
    own = FeatureExtractor("embedded", device="cpu")
    x = pictures(1, 3, 24, 48)
    torch.testing.assert_close(own(x), load_encoder("embedded")(resized(x / 255, 128)).mean((2, 3)))
    assert {own.side(*shape) for shape in ((32, 32), (100, 200), (512, 300))} == {128}
    assert extractor.side(1024, 1024) == 32


def test_each_network_sees_the_size_that_suits_it(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text(
        "from imgops.models.encoders import EfficientNetLite as lite, InceptionV3 as inception"
    )
    lite = FeatureExtractor(f"{tmp_path}/nets.py:lite", device="cpu")
    assert [lite.side(*shape) for shape in ((48, 256), (200, 220), (1024, 512))] == [64, 200, 224]
    own = FeatureExtractor(f"{tmp_path}/nets.py:inception", device="cpu")
    assert (own.side(32, 32), own.features, own.name) == (299, 2048, "nets.py-inception")

    class OfTimm(nn.Module):
        """A classifier, as timm has them: it pools unless its classifier is taken off, and takes 96 pixels."""

        pretrained_cfg: ClassVar = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "input_size": (3, 96, 96)}

        def __init__(self) -> None:
            super().__init__()
            self.head: nn.Module = nn.Linear(3, 1000)

        def reset_classifier(self, classes: int) -> None:
            self.head = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[2:] == (96, 96)
            return self.head(x.mean((2, 3)))

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=lambda name, pretrained: OfTimm()))
    own = FeatureExtractor("timm:small", device="cpu")
    white = torch.full((2, 3, 40, 40), 255, dtype=torch.uint8)
    assert own(white).tolist() == [[1.0] * 3] * 2
    assert own.name == "timm-small"


def test_making_one_draws_no_random_numbers():
    before = torch.get_rng_state()
    FeatureExtractor("embedded", device="cpu", size=32)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_layer_and_a_network_of_ones_own(tmp_path, monkeypatch):
    layer = FeatureExtractor("embedded", layer="relu2_2", size=32, device="cpu")
    assert layer(pictures(1, 3, 32, 32)).shape == (1, 48)
    (tmp_path / "own_net.py").write_text(
        "from torch import nn\n"
        "def pooled(): return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "def wrong(): return nn.Sequential(nn.Flatten(), nn.Unflatten(1, (3, -1)))\n"
    )
    monkeypatch.chdir(tmp_path)
    own = FeatureExtractor("own_net:pooled", size=32, device="cpu")
    white = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    assert own(white).tolist() == [[1.0, 1.0, 1.0]]
    assert own.name == "own_net-pooled"
    # by default at the size that most networks were trained with
    own = FeatureExtractor("own_net:pooled", device="cpu")
    assert {own.side(*shape) for shape in ((48, 256), (200, 220), (1024, 512))} == {224}
    with pytest.raises(
        ValueError, match=r"features must be \[N, C, H, W\] or \[N, D\]; the network gives \[1, 3, 1024"
    ):
        FeatureExtractor("own_net.py:wrong", size=32, device="cpu")


def test_fingerprints_tell_weights_layers_and_sizes(extractor):
    same = FeatureExtractor("default", device="cpu", size=32)
    assert extractor.fingerprint() == same.fingerprint()
    others = [FeatureExtractor("embedded", device="cpu", **more) for more in ({"size": 64}, {"layer": "relu5_2"})]
    changed = FeatureExtractor("embedded", device="cpu", size=32)
    nn.init.zeros_(next(p for p in changed.network.parameters() if p.ndim == 1))
    assert len({e.fingerprint() for e in (extractor, changed, *others)}) == 4


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"size": 16}, ValueError, "size must be >= 32; got 16"),
        ({"batch": 0}, ValueError, "batch must be >= 1; got 0"),
        ({"layer": "relu9_9"}, ValueError, "relu9_9"),
        ({"device": "tpu"}, ValueError, "device must be auto, cpu, cuda"),
        ({"weights": "nowhere.pth"}, FileNotFoundError, "nowhere.pth"),
    ],
)
def test_arguments_are_checked(more, error, message):
    with pytest.raises(error, match=message):
        FeatureExtractor(**{"weights": "embedded", "device": "cpu", **more})


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (torch.rand(1, 3, 32, 32), TypeError, "must be a uint8 tensor; got torch.float32"),
        ("photo.png", TypeError, "must be a uint8 tensor; got str"),
        (pictures(3, 32, 32), ValueError, r"must be \[N, C, H, W\] with 1, 3 or 4 channels; got \[3, 32, 32\]"),
        (pictures(1, 2, 32, 32), ValueError, r"got \[1, 2, 32, 32\]"),
        (pictures(1, 3, 32, 32)[:0], ValueError, r"got \[0, 3, 32, 32\]"),
    ],
)
def test_pictures_are_checked(extractor, given, error, message):
    with pytest.raises(error, match=message):
        extractor(given)
