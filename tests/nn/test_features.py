"""Features of named layers of a network, and the losses on them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from imgops.nn import ContentLoss, Features, PerceptualLoss, TotalVariation
from imgops.nn.features import find_layer, layer_names


class Raises(nn.Module):
    def forward(self, x):
        raise AssertionError("a layer beyond the deepest was evaluated")


class Nested(nn.Module):
    """A network of a user: layers within layers, one of them called twice, one never."""

    def __init__(self, last: nn.Module | None = None, inplace: bool = False):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace))
        self.body = nn.Conv2d(4, 4, 1)
        self.unused = nn.Conv2d(4, 4, 1)
        self.last = last or nn.Identity()

    def forward(self, x):
        x = self.body(self.body(self.stem(x)))
        return self.last(x)


class Pairs(nn.Module):
    """A network with a layer that returns two tensors."""

    def __init__(self):
        super().__init__()
        self.two = nn.LSTM(8, 8)

    def forward(self, x):
        return self.two(x[:, 0])[0]


def sequence(*more: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), *more)


X = torch.randn(2, 3, 9, 8)


@pytest.mark.parametrize("wrapped", [False, True])
def test_layers_are_those_of_the_network_and_no_deeper_one_runs(wrapped):
    network = sequence(Raises())
    expected = {"2": network[2](network[1](network[0](X))), "0": network[0](X)}
    prefix = "0." if wrapped else ""
    found = Features(nn.Sequential(network) if wrapped else network, [prefix + name for name in expected])(X)
    assert list(found) == [prefix + name for name in expected]
    for name, y in expected.items():
        torch.testing.assert_close(found[prefix + name], y, rtol=0, atol=0)


def test_layers_anywhere_in_a_network():
    network = Nested(last=Raises())
    found = Features(network, ["body", "stem.1"])(X)
    torch.testing.assert_close(found["stem.1"], network.stem(X))
    # its first call
    torch.testing.assert_close(found["body"], network.body(network.stem(X)))
    assert not network.body._forward_hooks
    assert not network.stem[1]._forward_hooks
    (gradient,) = torch.autograd.grad(found["body"].sum(), network.body.weight)
    assert gradient.abs().sum() > 0


def test_faults_of_a_network():
    with pytest.raises(ValueError, match="does not call unused"):
        Features(Nested(), ["unused", "body"])(X)
    # of a network that raises, what it raised, and no hook stays behind
    network = Nested(last=Raises())
    with pytest.raises(AssertionError, match="beyond"):
        Features(network, ["last"])(X)
    assert not network.last._forward_hooks
    with pytest.raises(ValueError, match=r"a layer after stem\.0 overwrites its output in place"):
        Features(Nested(inplace=True), ["stem.0", "body"])(X)
    with pytest.raises(ValueError, match="a layer after 0 overwrites"):
        Features(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(True)), ["0", "1"])(X)
    with pytest.raises(TypeError, match="output of layer two is no tensor but tuple"):
        Features(Pairs(), ["two"])(X)
    with torch.inference_mode():
        assert Features(sequence(), ["1"])(X)["1"].shape == (2, 4, 7, 6)


def test_names():
    network = nn.Sequential()
    for name in ("conv1_1", "relu1_1", "inception_4c", "inception_4d"):
        network.add_module(name, nn.Identity())
    assert layer_names(network) == ["conv1_1", "relu1_1", "inception_4c", "inception_4d"]
    for name in ("inception_4c", "inception4c", "Inception-4c", "inception_4c/output"):
        assert find_layer(network, name) == "inception_4c"
    with pytest.raises(ValueError, match="Sequential has no layer 'relu_11a'; did you mean relu1_1"):
        find_layer(network, "relu_11a")
    with pytest.raises(ValueError, match=r"no layer 'zzz'; it has conv1_1, relu1_1"):
        find_layer(network, "zzz")
    network.add_module("inception4_c", nn.Identity())
    with pytest.raises(ValueError, match="may be any of inception_4c, inception4_c"):
        find_layer(network, "inception4c")
    with pytest.raises(TypeError, match="list of names; got 'conv1_1'"):
        Features(network, "conv1_1")
    with pytest.raises(ValueError, match="one layer at least"):
        Features(network, [])


def test_content_loss_is_its_formula():
    x, content = torch.randn(2, 4, 5, 6), torch.randn(1, 4, 5, 6)
    squares = (x - content).square()
    torch.testing.assert_close(ContentLoss(content)(x), squares.mean())
    torch.testing.assert_close(ContentLoss(content, "sum")(x), squares.sum())
    torch.testing.assert_close(ContentLoss(content, "none")(x), squares.mean((1, 2, 3)))
    with pytest.raises(ValueError, match=r"x has shape \(2, 4, 5, 7\), the content \(1, 4, 5, 6\)"):
        ContentLoss(content)(torch.zeros(2, 4, 5, 7))
    with pytest.raises(ValueError, match="reduction must be one of mean, sum, none; got 'avg'"):
        ContentLoss(content, "avg")


def test_total_variation_is_its_formula():
    x = torch.randn(2, 3, 6, 5)
    right, down = x[:, :, :, 1:] - x[:, :, :, :-1], x[:, :, 1:] - x[:, :, :-1]
    torch.testing.assert_close(TotalVariation()(x), right.square().mean() + down.square().mean())
    torch.testing.assert_close(TotalVariation("l1")(x), right.abs().mean() + down.abs().mean())
    with pytest.raises(ValueError, match="distance must be one of l1, l2; got 'l3'"):
        TotalVariation("l3")
    with pytest.raises(ValueError, match="at least 2 x 2 pixels"):
        TotalVariation()(x[:, :, :1])


@pytest.mark.parametrize(("distance", "compare"), [("l1", F.l1_loss), ("l2", F.mse_loss)])
def test_perceptual_loss_is_its_formula(distance, compare):
    network, target = sequence(), torch.randn_like(X)
    loss = PerceptualLoss(network, {"0": 2.0, "2": 0.25}, distance)
    ours, theirs = (Features(network, ["0", "2"])(t) for t in (X, target))
    torch.testing.assert_close(
        loss(X, target), 2 * compare(ours["0"], theirs["0"]) + compare(ours["2"], theirs["2"]) / 4
    )
    even = PerceptualLoss(network, ["0"], distance)
    torch.testing.assert_close(even(X, target), compare(ours["0"], theirs["0"]))
    with pytest.raises(ValueError, match="the target"):
        loss(X, target[:1])
    with pytest.raises(ValueError, match="no layer '7'"):
        PerceptualLoss(network, ["7"])
