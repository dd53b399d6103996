"""The classifiers of encoders, from the files that people have, and the names of ImageNet's classes."""

from __future__ import annotations

import doctest

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from imgops.data import read_picture, resize_picture
from imgops.models.encoders import VGG, GoogLeNet, InceptionV3, class_names, classes, find_class, load_encoder, weights
from imgops.nn import Features
from tests.models.test_efficientnet_lite import made, timms
from tests.models.test_encoders import X, googlenet_keys, inception_keys, randomize, saved, torchvisions, values

LITE2 = "efficientnet-lite2"


@pytest.mark.parametrize("layout", [lambda state: state, lambda state: timms(state, 0)], ids=["package", "timm"])
def test_the_logits_of_an_efficientnet_lite(layout, tmp_path):
    state = made(0)
    path = saved(layout(state), tmp_path / "lite.pth")
    network, without = load_encoder(path, classifier=True), load_encoder(path)
    expected = without(X).mean((2, 3)) @ state["_fc.weight"].T + state["_fc.bias"]
    torch.testing.assert_close(network(X), expected)
    # the layers before it are as they are without
    assert [name for name, _ in network.named_children()] == [*(n for n, _ in without.named_children()), "classifier"]
    assert torch.equal(Features(network, ["blocks_3"])(X)["blocks_3"], Features(without, ["blocks_3"])(X)["blocks_3"])
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.skipif(not weights.is_installed(LITE2), reason=f"needs the package of {LITE2}")
@pytest.mark.parametrize(("name", "seen"), [("chelsea", "Egyptian cat"), ("coffee", "espresso")])
def test_the_weights_of_a_package_know_what_they_see(name, seen):
    picture = resize_picture(read_picture(f"samples:{name}").pixels, 288)
    logits = load_encoder(LITE2, classifier=True)(picture[None])
    assert class_names()[int(logits.argmax())][0] == seen
    assert logits.softmax(1).max() > 0.5


@pytest.mark.parametrize(("build", "keys"), [(GoogLeNet, googlenet_keys), (InceptionV3, inception_keys)])
def test_the_logits_of_inceptions(build, keys, tmp_path):
    torch.manual_seed(0)
    network = randomize(build())
    last = {"fc.weight": torch.randn(1000, network(X).shape[1]), "fc.bias": torch.randn(1000)}
    path = saved(dict(zip(keys(), values(network), strict=True)) | last, tmp_path / "a.pth")
    expected = F.linear(network(X).mean((2, 3)), last["fc.weight"], last["fc.bias"])
    torch.testing.assert_close(load_encoder(path, classifier=True)(X), expected)


@pytest.mark.parametrize("places", [(0, 3, 6), (1, 4, 6)], ids=["torchvision", "Caffe"])
def test_the_logits_of_a_vgg(places, tmp_path, monkeypatch):
    """An eighth of the channels, and fewer within the classifier, so that the test is quick."""
    small = [
        layout._replace(options={**layout.options, "widths": (8, 16, 32, 64, 64)}) if layout.build is VGG else layout
        for layout in weights.LAYOUTS
    ]
    monkeypatch.setattr(weights, "LAYOUTS", small)
    monkeypatch.setattr("imgops.models.encoders.vgg._HIDDEN", 32)
    torch.manual_seed(0)
    theirs = torchvisions("vgg16")
    linear = [nn.Linear(64 * 49, 32), nn.Linear(32, 32), nn.Linear(32, 10)]
    state = {f"features.{key}": value for key, value in theirs.state_dict().items()}
    for place, layer in zip(places, linear, strict=True):
        state |= {f"classifier.{place}.weight": layer.weight.data, f"classifier.{place}.bias": layer.bias.data}
    encoder = load_encoder(saved(state, tmp_path / "a.pth"), classifier=True, preprocessing="none")
    y = F.adaptive_avg_pool2d(theirs(X), 7).flatten(1)
    y = linear[2](linear[1](linear[0](y).relu()).relu())
    torch.testing.assert_close(encoder(X), y, rtol=1e-4, atol=1e-4)


def test_whole_networks_have_the_published_sizes():
    with torch.device("meta"):
        found = [sum(p.numel() for p in build(classes=1000).parameters()) for build in (GoogLeNet, InceptionV3, VGG)]
    assert found == [6_624_904, 23_834_568, 143_667_240]


def test_a_file_without_a_classifier_says_so(tmp_path):
    state = {key: value for key, value in made(0).items() if not key.startswith("_fc")}
    for path in ("default", saved(state, tmp_path / "lite.pth")):
        with pytest.raises(ValueError, match=r"(default|lite\.pth) \(.*\) has no classifier, which classes need"):
            load_encoder(path, classifier=True)
    with pytest.raises(ValueError, match=r"1 keys are missing, the first is _fc\.bias"):
        load_encoder(saved(state | {"_fc.weight": torch.zeros(7, 1280)}, tmp_path / "b.pth"), classifier=True)
    with pytest.raises(ValueError, match="VGG: classes must be >= 0; got -1"):
        VGG(classes=-1)


def test_classes_have_names():
    names = class_names()
    assert len(names) == 1000
    assert all(own and all(name == name.strip() != "" for name in own) for own in names)
    assert (names[0][0], names[-1][-1]) == ("tench", "bathroom tissue")


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("tabby", 281),
        ("TABBY  cat", 281),
        ("tabby_cat", 281),
        ("tiger cat", 282),
        ("281", 281),
        (" 0 ", 0),
        ("Canis lupus", 269),
        # the usual name of this class, and a synonym of another
        ("partridge", 86),
    ],
)
def test_classes_are_found(name, number):
    assert find_class(name) == number


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cat", "no class is called 'cat'; close names are tabby cat, tiger cat, Persian cat"),
        ("goldfsh", "close names are goldfish, "),
        ("xyzzyqq", r"no class is called 'xyzzyqq'$"),
        ("horn", r"several classes: 513 \(cornet, horn, trumpet, trump\), 566 \(French horn, horn\); give the number"),
        ("1000", "a number from 0 to 999, or a name; got '1000'"),
        ("-1", "no class is called '-1'"),
        ("", "no class is called ''"),
    ],
)
def test_classes_that_are_none(name, words):
    with pytest.raises(ValueError, match=words):
        find_class(name)


def test_examples():
    assert doctest.testmod(classes).failed == 0
