"""Without memory: every layer and network is made and run on the meta device or with fakes; memory comes later."""

from __future__ import annotations

import copy

import pytest
import torch
from nn.test_examples import CALLS
from torch._subclasses.fake_tensor import FakeTensorMode

import imgops.nn
from imgops.models.encoders.googlenet import GoogLeNet
from imgops.models.encoders.inception_v3 import InceptionV3
from imgops.models.encoders.vgg import VGG
from imgops.models.style.adain_decoder import AdaINDecoder
from imgops.models.style.transform_net import TransformNet
from imgops.models.stylegan2 import Discriminator, Generator
from imgops.ops._common import autocast_dtype, without_autocast

_IMAGE = (2, 3, 16, 16)
#: how to build each, and the shapes of what it is called with
NETWORKS = {
    "Generator": (lambda: Generator(8, 3, 8, 16, 3, mapping_layers=2, channel_base=64), [(2, 8), (2, 3)]),
    "Generator resnet": (
        lambda: Generator(8, 0, 8, 16, 3, 2, 64, architecture="resnet", num_fp16_res=1), [(2, 8)]
    ),
    "Discriminator": (lambda: Discriminator(3, 16, 3, channel_base=64, mapping_layers=2), [_IMAGE, (2, 3)]),
    "Discriminator skip": (lambda: Discriminator(0, 16, 3, channel_base=64, architecture="skip"), [_IMAGE]),
    "VGG": (lambda: VGG((1, 1), widths=(4, 6)), [_IMAGE]),
    "VGG caffe": (lambda: VGG((1, 1), widths=(4, 6), preprocessing="caffe", pooling="l2"), [_IMAGE]),
    "GoogLeNet": (GoogLeNet, [(2, 3, 64, 64)]),
    "InceptionV3": (InceptionV3, [(2, 3, 80, 80)]),
    "TransformNet": (lambda: TransformNet((2, 3, 4), 1), [_IMAGE]),
    "AdaINDecoder": (lambda: AdaINDecoder((1, 1), widths=(2, 3, 4)), [(2, 4, 5, 6)]),
}  # fmt: skip
SMALL = [name for name in NETWORKS if name not in ("GoogLeNet", "InceptionV3")]
#: made of a tensor or a network, which they keep
KEEPERS = {"ContentLoss", "SlicedWassersteinLoss", "StyleLoss", "Features", "PerceptualLoss"}


def shapes(outputs):
    return [t.shape for t in torch.utils._pytree.tree_leaves(outputs)]


@pytest.mark.parametrize("name", CALLS)
def test_a_layer(name):
    arguments, inputs = CALLS[name]
    expected = shapes(getattr(imgops.nn, name)(*arguments)(*inputs))
    layer = getattr(imgops.nn, name)(*copy.deepcopy(arguments)).to("meta")
    inputs = [t.to("meta") if isinstance(t, torch.Tensor) else t for t in inputs]
    outputs = layer(*inputs)
    assert shapes(outputs) == expected
    assert all(t.is_meta for t in torch.utils._pytree.tree_leaves(outputs))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network(name):
    build, sizes = NETWORKS[name]
    with torch.device("meta"):
        network = build()
        outputs = network(*map(torch.randn, sizes))
    assert all(t.is_meta for t in torch.utils._pytree.tree_leaves(outputs))


@pytest.mark.parametrize("name", [*(n for n in CALLS if n not in KEEPERS), *SMALL])
def test_initialized_afterwards(name):
    """Like one that was made the usual way: constants the same, what is drawn of the same spread, nothing left out."""
    build = NETWORKS[name][0] if name in NETWORKS else lambda: getattr(imgops.nn, name)(*copy.deepcopy(CALLS[name][0]))
    usual, another = build(), build().state_dict()
    with torch.device("meta"):
        late = build()
    late = late.to_empty(device="cpu")
    with torch.no_grad():
        for t in late.state_dict().values():
            t.fill_(float("nan") if t.is_floating_point() else -1)
    for module in late.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    for key, t in usual.state_dict().items():
        other = late.state_dict()[key]
        assert other.isfinite().all(), key
        if torch.equal(t, another[key]):
            torch.testing.assert_close(other, t, msg=key)
        elif t.numel() > 100:
            torch.testing.assert_close(other.std(), t.std(), rtol=0.5, atol=0, msg=key)


@pytest.mark.parametrize("name", SMALL)
def test_fake_tensors(name):
    build, sizes = NETWORKS[name]
    with FakeTensorMode():
        outputs = build()(*map(torch.randn, sizes))
        assert all(t.device.type == "cpu" for t in torch.utils._pytree.tree_leaves(outputs))
    torch.utils._pytree.tree_leaves(outputs)[0].sum()


@pytest.mark.parametrize("kind", ["meta", "vulkan", "lazy", "mps", "xla", "hpu"])
def test_autocast_of_any_device(kind):
    class Elsewhere:
        device = torch.device(kind)

    assert autocast_dtype(Elsewhere) is None
    with without_autocast(Elsewhere):
        pass
