"""The encoders, and the weight files that people have of them; the files are synthetic, of the same keys and shapes."""

from __future__ import annotations

import doctest
import io
import pickle
import re
from urllib.error import URLError

import pytest
import safetensors.torch
import torch
from torch import nn

from imgops.models.encoders import googlenet, inception_v3, vgg, weights
from imgops.models.encoders._layers import Colors, Pool
from imgops.models.encoders.googlenet import GoogLeNet
from imgops.models.encoders.inception_v3 import InceptionV3
from imgops.models.encoders.vgg import VGG
from imgops.models.encoders.weights import load_encoder
from imgops.models.style.adain_decoder import AdaINDecoder
from imgops.models.style.transform_net import TransformNet
from imgops.models.style.weights import load_adain_decoder, load_transform_net
from imgops.nn import Features
from imgops.nn.features import layer_names

#: places of the convolutions in files that people have
VGG16 = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
VGG19 = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
ADAIN = (2, 5, 9, 12, 16, 19, 22, 25, 29, 32, 35, 38, 42, 45, 48, 51)
#: convolutions of torchvision's inception_v3 by block
INCEPTION = {
    "": "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 Conv2d_3b_1x1 Conv2d_4a_3x3",
    "5b 5c 5d": "branch1x1 branch5x5_1 branch5x5_2 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3 branch_pool",
    "6a": "branch3x3 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3",
    "6b 6c 6d 6e": "branch1x1 branch7x7_1 branch7x7_2 branch7x7_3 branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 "
    "branch7x7dbl_4 branch7x7dbl_5 branch_pool",
    "7a": "branch3x3_1 branch3x3_2 branch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4",
    "7b 7c": "branch1x1 branch3x3_1 branch3x3_2a branch3x3_2b branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3a "
    "branch3x3dbl_3b branch_pool",
}
GOOGLENET = ("branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1", "branch4.1")


def norm_keys(convolutions):
    """Keys of convolutions with batch normalization, in torchvision's order."""
    parts = (
        "conv.weight",
        *(f"bn.{p}" for p in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    )
    return [f"{name}.{part}" for name in convolutions for part in parts]


def inception_keys():
    blocks = [(f"Mixed_{b}." if b else "", text) for names, text in INCEPTION.items() for b in (names.split() or [""])]
    return norm_keys(prefix + name for prefix, text in blocks for name in text.split())


def googlenet_keys():
    blocks = [f"inception{b}" for b in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")]
    return norm_keys(["conv1", "conv2", "conv3", *(f"{block}.{branch}" for block in blocks for branch in GOOGLENET)])


def randomize(network):
    """Weights that keep the size of what passes, and statistics of a network that was trained."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
        elif isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.8, 1.2),
                (module.running_var, 0.8, 1.2),
                (module.bias, -0.1, 0.1),
            ):
                nn.init.uniform_(tensor, low, high)
            nn.init.normal_(module.running_mean, std=0.1)
    return network.eval().requires_grad_(False)


def values(network):
    """Tensors of a network in order, without those of its colors."""
    return [v for k, v in network.state_dict().items() if not k.startswith("input.")]


def vgg_state(network, places, prefix="features."):
    keys = [f"{prefix}{i}.{part}" for i in places for part in ("weight", "bias")]
    return dict(zip(keys, values(network), strict=True))


def saved(state, path):
    torch.save(state, path)
    return path


X = torch.rand(1, 3, 75, 80)


@pytest.fixture(scope="module")
def vgg19():
    torch.manual_seed(0)
    return randomize(VGG(19))


def test_layers_have_their_names(vgg19):
    names = [n for n in layer_names(vgg19) if n != "input"]
    assert names[:6] == ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1", "conv2_1"]
    assert names[-3:] == ["conv5_4", "relu5_4", "pool5"]
    shapes = {k: tuple(v.shape[1:]) for k, v in Features(vgg19, ["relu4_2", "relu1_1"])(X).items()}
    assert shapes == {"relu4_2": (512, 9, 10), "relu1_1": (64, 75, 80)}
    assert len(VGG(16)) + 6 == len(VGG(19))
    assert layer_names(VGG([1, 2], widths=[4, 8]))[1:] == [
        *("conv1_1", "relu1_1", "pool1"), *("conv2_1", "relu2_1", "conv2_2", "relu2_2", "pool2")
    ]  # fmt: skip
    assert {"inception_4c", "inception_4c.branch2", "pool4"} <= set(layer_names(GoogLeNet()))
    assert {"Mixed_6e", "Mixed_7c.branch3x3.1.a"} <= set(layer_names(InceptionV3()))


def test_sizes_are_the_known_ones():
    """Keys with the auxiliary classifiers, of which 20 and 14 are left out, and the last layer, 2."""
    assert len(googlenet_keys()) + 20 + 2 == 364
    assert len(inception_keys()) + 14 + 2 == 580
    assert sum(p.numel() for p in VGG(16).parameters()) == 14_714_688
    assert sum(p.numel() for p in VGG(19).parameters()) == 20_024_384
    # of 6,624,904 and 23,834,568 those of the last layers are left out
    assert sum(p.numel() for p in GoogLeNet().parameters()) == 6_624_904 - 1_025_000
    assert sum(p.numel() for p in InceptionV3().parameters()) == 23_834_568 - 2_049_000


def test_every_layout_gives_the_same_outputs(vgg19, tmp_path):
    plain = VGG(19, preprocessing="none", padding_mode="reflect", ceil_mode=True)
    plain.load_state_dict({**plain.state_dict(), **{k: v for k, v in vgg19.state_dict().items() if k[:5] != "input"}})
    classifier = {f"classifier.{i}.{part}": torch.zeros(1) for i in (0, 3, 6) for part in ("weight", "bias")}
    state = vgg_state(vgg19, VGG19)
    safe = tmp_path / "vgg19.safetensors"
    safetensors.torch.save_file(state, safe)
    files = {
        "torchvision": saved(state | classifier, tmp_path / "vgg19.pth"),
        "safetensors": safe,
        "in a state_dict of DataParallel": saved(
            {"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, tmp_path / "parallel.pth"
        ),
        "ours": saved(vgg19.state_dict(), tmp_path / "ours.pth"),
    }
    for name, path in files.items():
        torch.testing.assert_close(load_encoder(path)(X), vgg19(X), msg=name)
    # AdaIN's has a convolution for the colors, reflection padding and pools that keep the last row
    colors = Colors("imagenet")
    adain = {"0.weight": colors.weight, "0.bias": colors.bias} | vgg_state(vgg19, ADAIN, "")
    path = saved(adain, tmp_path / "vgg_normalized.pth")
    torch.testing.assert_close(load_encoder(path)(X), plain(colors(X)))
    torch.testing.assert_close(load_encoder(files["ours"], padding_mode="reflect").pool1.ceil_mode, False)
    vgg16 = randomize(VGG(16))
    path = saved(vgg_state(vgg16, VGG16), tmp_path / "vgg16.pth")
    torch.testing.assert_close(load_encoder(path)(X), vgg16(X))


@pytest.mark.parametrize(("build", "keys"), [(GoogLeNet, googlenet_keys), (InceptionV3, inception_keys)])
def test_inceptions_of_torchvision(build, keys, tmp_path):
    torch.manual_seed(0)
    network = randomize(build())
    theirs = dict(zip(keys(), values(network), strict=True))
    extra = {"fc.weight": torch.zeros(1000, 1), "aux1.fc1.weight": torch.zeros(1), "AuxLogits.fc.bias": torch.zeros(1)}
    path = saved(theirs | extra, tmp_path / "weights.pth")
    torch.testing.assert_close(load_encoder(path)(X), network(X))
    legacy = {k: v for k, v in theirs.items() if not k.endswith("num_batches_tracked")}
    path = saved(legacy, tmp_path / "legacy.pth")
    torch.testing.assert_close(load_encoder(path)(X), network(X))
    if build is InceptionV3:
        fid = saved(legacy | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}, tmp_path / "fid.pth")
        expected = InceptionV3(fid=True)
        expected.load_state_dict(network.state_dict())
        ours = load_encoder(fid)
        torch.testing.assert_close(ours(X), expected.eval()(X))
        assert not torch.allclose(ours(X), network(X))
        layers = ["Mixed_6a", "Conv2d_4a_3x3"]
        assert Features(ours, layers)(X)["Mixed_6a"].shape == (1, 768, 3, 3)


def test_options_are_those_of_the_caller(vgg19, tmp_path):
    path = saved(vgg_state(vgg19, VGG19), tmp_path / "vgg19.pth")
    encoder = load_encoder(path, pooling="l2", padding_mode="replicate", preprocessing="caffe")
    assert encoder.pool1.kind == "l2"
    assert encoder.conv1_1.padding_mode == "replicate"
    assert not encoder.training
    assert not any(p.requires_grad for p in encoder.parameters())
    torch.testing.assert_close(
        encoder.input(torch.ones(1, 3, 1, 1)).flatten(), 255 - torch.tensor([103.939, 116.779, 123.68])
    )


def test_a_name_is_downloaded_with_its_hash(vgg19, monkeypatch):
    calls = []

    def download(url, **options):
        calls.append((url, options))
        return vgg_state(vgg19, VGG19)

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    torch.testing.assert_close(load_encoder("vgg19")(X), vgg19(X))
    ((url, options),) = calls
    assert re.search(r"vgg19-[0-9a-f]{8}\.pth$", url)
    assert options["check_hash"]
    assert options["weights_only"]


def test_a_download_that_fails_says_where_a_file_goes(monkeypatch, tmp_path):
    def fail(*args, **options):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(OSError, match=r"vgg19: cannot be downloaded from https://.*; put the file at ") as caught:
        load_encoder("vgg19")
    assert str(tmp_path / "checkpoints" / "vgg19-") in str(caught.value)


class Code:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return (print, ("this ran",))


def test_files_that_are_no_weights(vgg19, tmp_path, capsys):
    good = io.BytesIO()
    torch.save(vgg_state(VGG([1], widths=[2]), (0,)), good)
    cases = {
        "empty": (b"", "the file is empty"),
        "html": (b"\n<!DOCTYPE html><html>404</html>", "a web page, not weights"),
        "text": (b"hello, these are not weights", "not a file of weights, or a damaged"),
        "picture": (b"\x89PNG\r\n\x1a\n" + bytes(64), "not a file of weights, or a damaged"),
        "truncated": (good.getvalue()[: len(good.getvalue()) // 2], "not a file of weights, or a damaged"),
        "code": (pickle.dumps({"features.0.weight": Code()}, protocol=2), "holds more than tensors"),
        "number": (_bytes(3), "holds no state dict, but int"),
        "values": (_bytes({"features.0.weight": 3}), "holds no state dict"),
        "other": (
            _bytes({"a.weight": torch.zeros(1)}),
            r"no known layout of weights \(vgg16, .*; its keys are a.weight",
        ),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / f"{name}.pth"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as raised:
            load_encoder(path)
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)
    assert "this ran" not in capsys.readouterr().out
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(ValueError, match="damaged or truncated"):
        load_encoder(damaged)
    with pytest.raises(FileNotFoundError):
        load_encoder(tmp_path / "missing.pth")


def _bytes(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("features.21.bias"), r"\(vgg19\): 1 keys are missing, the first is features\.21\.bias"),
        (
            lambda s: s.update({"features.99.bias": torch.zeros(1)}),
            "1 keys have no place in the network, the first is f",
        ),
        (lambda s: s.update({"features.5.bias": torch.zeros(7)}), r"features\.5\.bias has shape \(7,\) where \(128,\)"),
    ],
)
def test_keys_that_do_not_fit_are_named(vgg19, change, message, tmp_path):
    state = vgg_state(vgg19, VGG19)
    change(state)
    with pytest.raises(ValueError, match=message):
        load_encoder(saved(state, tmp_path / "vgg19.pth"))


def test_pools_and_colors():
    x = torch.rand(1, 2, 4, 4)
    blocks = x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    torch.testing.assert_close(Pool("max")(x), blocks.amax(4))
    torch.testing.assert_close(Pool("average")(x), blocks.mean(4))
    torch.testing.assert_close(Pool("l2")(x), blocks.square().mean(4).sqrt())
    zeros = torch.zeros(1, 1, 2, 2, requires_grad=True)
    Pool("l2")(zeros).sum().backward()
    assert zeros.grad.isfinite().all()
    rgb = torch.rand(1, 3, 2, 2)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(Colors("imagenet")(rgb), (rgb - mean[:, None, None]) / std[:, None, None])
    bgr = 255 * rgb.flip(1) - torch.tensor([103.939, 116.779, 123.68])[:, None, None]
    torch.testing.assert_close(Colors("caffe")(rgb), bgr)
    torch.testing.assert_close(Colors("symmetric")(rgb), 2 * rgb - 1)
    torch.testing.assert_close(Colors("none")(rgb), rgb)
    for shape in ((1, 1, 2, 2), (3, 2, 2)):
        with pytest.raises(ValueError, match=r"x must be RGB \[N, 3, H, W\]; got"):
            Colors()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: VGG(17), "VGG: depth must be 16, 19 or the convolutions of each block; got 17"),
        (lambda: VGG([1, 2]), "VGG: widths must have one value for each of 2 blocks"),
        (lambda: VGG([1, 0], widths=[4, 4]), "VGG: depth must be >= 1; got 0"),
        (lambda: VGG(pooling="min"), "Pool: pooling must be one of max, average, l2; got 'min'"),
        (lambda: GoogLeNet(padding_mode="mirror"), "GoogLeNet: padding_mode must be one of zeros, reflect"),
        (lambda: InceptionV3(preprocessing="vgg"), "Colors: preprocessing must be one of imagenet, caffe"),
    ],
)
def test_bad_options(build, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build()


@pytest.mark.parametrize("module", [vgg, googlenet, inception_v3, weights])
def test_examples_run(module):
    globs = {"torch": torch, "Features": Features}
    failed, tried = doctest.testmod(module, extraglobs=globs)
    assert tried
    assert failed == 0


VGGS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}


def torchvisions(name, norms=False):
    """The layers of torchvision's VGG with an eighth of the channels, and what our own network has for it."""
    layers, channels = [], 3
    for width, count in zip((8, 16, 32, 64, 64), VGGS[name], strict=True):
        for _ in range(count):
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            layers += [nn.BatchNorm2d(width)] * norms + [nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return randomize(nn.Sequential(*layers))


@pytest.fixture
def small(monkeypatch):
    """VGGs of files with an eighth of the channels, so that a test is quick."""
    small = [
        layout._replace(options={**layout.options, "widths": (8, 16, 32, 64, 64)}) if layout.build is VGG else layout
        for layout in weights.LAYOUTS
    ]
    monkeypatch.setattr(weights, "LAYOUTS", small)


@pytest.mark.parametrize("norms", [False, True], ids=["", "bn"])
@pytest.mark.parametrize("name", VGGS)
def test_each_vgg_of_torchvision_is_taken_for_what_it_is(small, name, norms, tmp_path):
    torch.manual_seed(0)
    theirs = torchvisions(name, norms)
    state = {f"features.{key}": value for key, value in theirs.state_dict().items()}
    encoder = load_encoder(saved(state, tmp_path / "a.pth"))
    assert encoder.blocks == VGGS[name]
    torch.testing.assert_close(encoder(X), theirs(Colors("imagenet")(X)), rtol=1e-4, atol=1e-4)
    gone = list(state)[-1] if not norms else [key for key in state if "running_mean" in key][-1]
    del state[gone]
    with pytest.raises(ValueError, match=rf"\({name}{'_bn' * norms}\): \d keys are missing"):
        load_encoder(saved(state, tmp_path / "a.pth"))


@pytest.mark.parametrize(
    ("file", "more", "preprocessing"),
    [
        ("vgg19-d01eb7cb.pth", {}, "caffe"),
        ("my vgg19-d01eb7cb (1).pt", {}, "caffe"),
        ("vgg16-00b39a1b.pth", {}, "caffe"),
        ("vgg19-caffe.pth", {}, "caffe"),
        ("renamed.pth", {f"classifier.{i}.weight": torch.zeros(1) for i in (1, 4, 6)}, "caffe"),
        ("vgg19-dcbb9e9d.pth", {f"classifier.{i}.weight": torch.zeros(1) for i in (0, 3, 6)}, "imagenet"),
        ("renamed.pth", {}, "imagenet"),
    ],
)
def test_vggs_of_caffe_are_known(small, file, more, preprocessing, tmp_path):
    name = "vgg16" if "vgg16" in file else "vgg19"
    state = {f"features.{key}": value for key, value in torchvisions(name).state_dict().items()}
    path = saved(state | more, tmp_path / file)
    torch.testing.assert_close(load_encoder(path).input.weight, Colors(preprocessing).weight)
    # who says it is believed
    for chosen in ("caffe", "imagenet"):
        torch.testing.assert_close(load_encoder(path, preprocessing=chosen).input.bias, Colors(chosen).bias)


def test_gatys_names_of_caffes_vgg(vgg19, tmp_path):
    state = {key: value for key, value in vgg19.state_dict().items() if not key.startswith("input.")}
    encoder = load_encoder(saved(state, tmp_path / "vgg_conv.pth"))
    torch.testing.assert_close(encoder.input.weight, Colors("caffe").weight)
    torch.testing.assert_close(encoder.conv5_4.weight, vgg19.conv5_4.weight)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"model": s},
        lambda s: {"net": s, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(1)}}}},
        lambda s: {"weights of the run": s},
        lambda s: {"state_dict": {"model": {f"module.{k}": v for k, v in s.items()}}},
        lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
        lambda s: {f"model.{k}": v for k, v in s.items()},
    ],
)
@pytest.mark.parametrize(
    ("build", "load"),
    [
        (lambda: VGG([1, 1], widths=[2, 3]), load_encoder),
        (lambda: TransformNet((4, 6, 8), 1), load_transform_net),
        (lambda: AdaINDecoder((1, 1), widths=(4, 6)), load_adain_decoder),
    ],
    ids=["encoder", "fast", "decoder"],
)
def test_what_a_training_puts_around_weights_is_taken_off(build, load, wrap, tmp_path):
    state = build().state_dict()
    found = load(saved(wrap(state), tmp_path / "a.pth")).state_dict()
    assert all(torch.equal(found[key], value) for key, value in state.items())


def test_several_networks_in_a_file_are_named(tmp_path):
    state = VGG([1], widths=[2]).state_dict()
    with pytest.raises(ValueError, match=r"a\.pth: holds several state dicts \(ours, theirs\); save the one"):
        load_encoder(saved({"ours": state, "theirs": state}, tmp_path / "a.pth"))


@pytest.mark.parametrize("build", [VGG, GoogLeNet, InceptionV3])
@pytest.mark.parametrize("mode", ["replicate", "reflect"])
def test_without_zero_padding_a_flat_picture_has_flat_features(build, mode):
    torch.manual_seed(0)
    network = randomize(build(padding_mode=mode))
    layer = {VGG: "relu3_1", GoogLeNet: "inception_4a", InceptionV3: "Mixed_6b"}[build]
    y = Features(network, [layer])(torch.ones(1, 3, 107, 99))[layer]
    assert (y - y.mean((2, 3), keepdim=True)).abs().max() < 1e-3 * y.std()
    assert y.std() > 0.1


def test_frames_are_left_out_where_they_are_not_wanted(small, tmp_path):
    state = {f"features.{key}": value for key, value in torchvisions("vgg16").state_dict().items()}
    path = saved(state, tmp_path / "vgg16.pth")
    assert load_encoder(path).conv1_1.padding_mode == "zeros"
    assert load_encoder(path, frame=False).conv1_1.padding_mode == "replicate"
    assert load_encoder(path, frame=False, padding_mode="zeros").conv1_1.padding_mode == "zeros"
    assert load_encoder("default").conv1_1.padding_mode == "replicate"
    colors = Colors("imagenet")
    plain = VGG(19, widths=(8, 16, 32, 64, 64))
    adain = {"0.weight": colors.weight, "0.bias": colors.bias} | vgg_state(plain, ADAIN, "")
    assert load_encoder(saved(adain, tmp_path / "a.pth"), frame=False).conv1_1.padding_mode == "reflect"
