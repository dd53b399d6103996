"""Encoders that users bring: what a function of theirs returns, and networks of timm."""

from __future__ import annotations

import doctest
import sys
import types

import pytest
import torch
from torch import nn

from imgops.data import read_settings, write_picture
from imgops.models.encoders import GoogLeNet, custom, load_encoder, probing
from imgops.models.encoders._layers import Colors
from imgops.models.encoders.tiling import Field, receptive_fields
from imgops.nn import Features
from imgops.style import Objective, OptimizeSettings
from imgops.style.objective import layers_of
from tests.test_cli import error, imgops

#: a network with skip connections, which is no sequence of layers, and a sequence
SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.body = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.skip = nn.Conv2d(8, 8, 3, 1, 1)

    def forward(self, x):
        y = self.body(torch.relu(self.stem(x)))
        return y + self.skip(y)

def seeded(network):
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network

def make():
    return seeded(Net())

def prepared():
    network = make()
    network.preprocessing = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    network.content_layers, network.style_layers = {"body": 1.0}, {"stem": 2.0, "body": 1.0}
    network.fields = {"stem": (2, 2), "body": (4, 4)}
    return network

def sequence():
    network = seeded(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1)))
    network.preprocessing = "caffe"
    return network

def broken():
    return {}["weights"]

def refused():
    raise ValueError("the weights\\nare gone")

number = 3
def nothing(): return 3
def needy(): import a_package_that_is_not_here
def clash():
    network = nn.Sequential()
    network.add_module("input", nn.ReLU())
    network.preprocessing = "imagenet"
    return network
def odd():
    network = make()
    network.preprocessing = (1, 2)
    return network
"""
X = torch.rand(2, 3, 40, 52)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_net.py").write_text(SOURCE)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "wrong.py").write_text("def make(:\n")
    monkeypatch.delitem(sys.modules, "own_net", raising=False)
    yield tmp_path
    sys.modules.pop("own_net", None)


def test_a_function_makes_an_encoder(place):
    path = list(sys.path)
    network = load_encoder("own_net:make")
    assert sys.path == path
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    for name in ("own_net.py:make", f"{place / 'own_net.py'}:make"):
        torch.testing.assert_close(load_encoder(name)(X), network(X))
    # a file of this name is a file of weights
    torch.save({}, "own_net:make")
    with pytest.raises(ValueError, match="holds no state dict"):
        load_encoder("own_net:make")


def test_colors_are_prepared_as_the_network_asks(place):
    plain, prepared = load_encoder("own_net:make"), load_encoder("own_net:prepared")
    mean, std = torch.tensor([0.5, 0.4, 0.3])[:, None, None], torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    torch.testing.assert_close(prepared(X), plain((X - mean) / std))
    for name, y in Features(prepared, ["stem", "body.1"])(X).items():
        torch.testing.assert_close(y, Features(plain, [name])((X - mean) / std)[name])
    torch.testing.assert_close(load_encoder("own_net:prepared", preprocessing="none")(X), plain(X))
    sequence = load_encoder("own_net:sequence")
    assert [name for name, _ in sequence.named_children()] == ["input", "0", "1", "2"]
    torch.testing.assert_close(sequence(X), load_encoder("own_net:sequence", preprocessing="none")(Colors("caffe")(X)))
    assert receptive_fields(sequence, ["2"]) == {"2": Field(2, 2)}


def test_zero_padding_gives_way_where_no_frame_is_wanted(place):
    assert load_encoder("own_net:make").stem.padding_mode == "zeros"
    network = load_encoder("own_net:make", frame=False)
    assert {layer.padding_mode for layer in network.modules() if isinstance(layer, nn.Conv2d)} == {"replicate"}
    y = network(torch.full((1, 3, 40, 52), 0.3))
    torch.testing.assert_close(y, y[..., :1, :1].expand_as(y))
    assert load_encoder("own_net:make", frame=False, padding_mode="reflect").stem.padding_mode == "reflect"


def test_layers_by_default():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Sequential(nn.ReLU(), nn.MaxPool2d(8)))
    assert probing.layers_by_stride(network) == {1: "0", 8: "1"}
    assert layers_of(network, OptimizeSettings()) == ({"1": 1.0}, {"0": 1.0, "1": 1.0})
    assert layers_of(network, OptimizeSettings(init="noise"))[0] == {"0": 1.0}
    network.content_layers = {"0": 3.0}
    assert layers_of(network, OptimizeSettings()) == ({"0": 3.0}, {"0": 1.0, "1": 1.0})
    assert layers_of(network, OptimizeSettings(content_layers={"1": 1.0}))[0] == {"1": 1.0}
    content, style = layers_of(GoogLeNet(), OptimizeSettings())
    assert list(content) == ["inception_4e"]
    assert list(style) == ["conv1", "conv3", "inception_3b", "inception_4e"]
    assert doctest.testmod(probing, extraglobs={"nn": nn}).failed == 0


def test_tiles_by_the_fields_that_a_network_tells(place):
    network = load_encoder("own_net:prepared").double()
    pictures = [torch.rand(3, 72, 88, dtype=torch.float64) for _ in range(3)]
    found = []
    for tile in (None, 32):
        objective = Objective(network, OptimizeSettings(size=88, tile=tile), pictures[0])
        assert len(objective.tiles) == (1 if tile is None else 9)
        objective.set_styles(pictures[1:2], [1.0])
        found.append(objective.gradient(pictures[2])[1])
    torch.testing.assert_close(*found)
    with pytest.raises(ValueError, match=r"tiles need the fields of skip; Net\.fields has stem, body"):
        receptive_fields(network, ["stem", "skip"])
    with pytest.raises(ValueError, match=r"an attribute fields, or a network that is a sequence of layers; got Net"):
        receptive_fields(load_encoder("own_net:make"), ["stem"])
    network.fields = {"stem": (0, 2)}
    with pytest.raises(ValueError, match="stride of stem must be >= 1"):
        receptive_fields(network, ["stem"])


def test_commands_take_it(place):
    torch.manual_seed(0)
    write_picture(place / "cat.png", torch.rand(3, 36, 48))
    quick = ("-o", "out.png", "--device", "cpu", "--size", "48")
    steps = ("--first-size", "48", "--steps", "2")
    imgops("style", "cat.png", "cat.png", *quick, *steps, "--weights", "own_net:make")
    assert read_settings("out.png")["weights"] == "own_net:make"
    imgops(
        "dream", "cat.png", *quick, "--steps", "1", "--octaves", "1", "--weights", "own_net.py:prepared", "-l", "body"
    )
    train = ("style", "train-adain", "--weights", "own_net:make", "--block", "3", "-o", "decoder.safetensors")
    imgops(*train, "--size", "16", "--batch", "2", "--steps", "1", "--device", "cpu")
    adain = ("style", "cat.png", "cat.png", *quick, "--method", "adain", "--decoder", "decoder.safetensors")
    imgops(*adain, "--weights", "own_net:make")
    assert "VGG has no layer 'skip'" in error(*adain)
    style = ("style", "cat.png", "cat.png", *quick, "--weights")
    for name, told in {
        "own_net:made": "own_net has no function made; it has Net, seeded, make, ",
        "own_net:number": "own_net has no function number",
        "own_net:broken": "own_net:broken: raised KeyError: 'weights'",
        "own_net:refused": "own_net:refused: the weights are gone",
        "own_net:nothing": "must return a torch.nn.Module; got int",
        "own_net:needy": "the package a_package_that_is_not_here is not installed",
        "own_net:clash": "the network has one of this name",
        "own_net:odd": "preprocessing must be one of imagenet, caffe",
        "no_net:make": "no_net:make: there is no module no_net, neither installed nor in ",
        "no_net.py:make": "no_net.py: No such file",
        "folder/wrong.py:make": "folder/wrong.py:make: raised SyntaxError: ",
    }.items():
        assert told in error(*style, name), name
    assert "pooling has no effect on own_net:make" in error(*style, "own_net:make", "--pooling", "max")
    assert "has no layer 'steam'; did you mean stem" in error(*style, "own_net:make", "--style-layers", "steam")


def test_names():
    assert doctest.testmod(custom, extraglobs={"names_custom": custom.names_custom}).failed == 0
    assert not custom.names_custom(r"C:\weights\vgg19.pth")
    assert custom.names_custom(r"C:\nets\own.py:make")


def test_timm_is_asked_for_its_networks(monkeypatch):
    def create_model(name, pretrained):
        assert pretrained
        if name == "offline":
            raise ConnectionError("no\nroute")
        if name != "small":
            raise RuntimeError(f"Unknown model ({name})")
        network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1))
        network.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
        return network

    fake = types.SimpleNamespace(create_model=create_model, list_models=lambda pattern: [pattern])
    monkeypatch.setitem(sys.modules, "timm", fake)
    network = load_encoder("timm:small")
    torch.testing.assert_close(network(X), network[1]((X - 0.5) / 0.25))
    with pytest.raises(ValueError, match=r"^timm:smal: timm has no such network; it has \*smal\*$"):
        load_encoder("timm:smal")
    with pytest.raises(OSError, match=r"^timm:offline: timm could not get its weights \(no route\); where"):
        load_encoder("timm:offline")
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "timm:small: the package timm is not installed; install it with: pip install 'imgops[timm]'" in error(
        "dream", "--list-layers", "--weights", "timm:small"
    )


def test_a_network_of_timm(monkeypatch):
    timm = pytest.importorskip("timm")
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: create(name, pretrained=False))
    network = load_encoder("timm:resnet18", frame=False)
    assert list(layers_of(network, OptimizeSettings())[1]) == ["act1", "layer1", "layer2", "layer3"]
    assert network.conv1.padding_mode == "replicate"
    made = create("resnet18").eval()
    made.load_state_dict({key: value for key, value in network.state_dict().items() if not key.startswith("input.")})
    expected = made.forward_features(Colors("imagenet")(X))
    torch.testing.assert_close(Features(load_encoder("timm:resnet18"), ["layer4"])(X)["layer4"].shape, expected.shape)
