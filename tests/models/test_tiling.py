"""Tiles of a picture: their cores' features are those of the whole picture, whatever its size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from imgops._memory import resident_memory
from imgops.models.encoders.efficientnet_lite import EfficientNetLite
from imgops.models.encoders.googlenet import GoogLeNet
from imgops.models.encoders.inception_v3 import InceptionV3
from imgops.models.encoders.tiling import Field, bytes_per_pixel, plan_tiles, receptive_fields, tile_areas
from imgops.models.encoders.vgg import VGG
from imgops.nn import Features


def small_vgg(**options):
    torch.manual_seed(0)
    return VGG((2, 1, 1), widths=(4, 6, 8), **options).double().eval()


NETWORKS = {
    "zeros": (lambda: small_vgg(), ["relu1_1", "relu2_1", "relu3_1"]),
    "reflect, average, ceil": (
        lambda: small_vgg(padding_mode="reflect", pooling="average", ceil_mode=True),
        ["relu1_2", "relu3_1"],
    ),
    "replicate, l2": (lambda: small_vgg(padding_mode="replicate", pooling="l2"), ["relu3_1"]),
    "efficientnet-lite": (
        lambda: EfficientNetLite(2, padding_mode="reflect").double().eval(),
        ["conv_stem", "blocks_4", "blocks_8.depthwise"],
    ),
    "googlenet": (lambda: GoogLeNet().double().eval(), ["conv2", "inception_3a", "inception_4a.branch2"]),
    "inception_v3": (lambda: InceptionV3().double().eval(), ["Conv2d_2a_3x3", "Mixed_5b", "Mixed_6a"]),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(96, 160), (101, 163)])
def test_cores_are_parts_of_the_whole(name, size):
    make, layers = NETWORKS[name]
    network, side = make(), 48
    if name == "inception_v3":
        size = (size[0] + 200, size[1] + 200)
        side = 160
    fields = receptive_fields(network, layers)
    picture = torch.rand(1, 3, *size, dtype=torch.float64)
    features = Features(network, layers)
    whole = features(picture)
    tiles = plan_tiles(*size, side, list(fields.values()))
    assert len(tiles) > 3
    covered = {name: torch.zeros(y.shape[2:]) for name, y in whole.items()}
    for tile in tiles:
        parts = features(tile.cut(picture))
        for name, part in parts.items():
            stride = fields[name].stride
            torch.testing.assert_close(
                tile.core_of(part, stride), tile.core_in_picture(whole[name], stride), rtol=1e-9, atol=1e-9
            )
            tile.core_in_picture(covered[name], stride).add_(1)
    assert all((count == 1).all() for count in covered.values())


def test_the_reach_is_no_larger_than_it_must_be():
    """A pixel just beyond the reach changes nothing, one at its end does."""
    network = small_vgg(pooling="average")
    for parameter in network.parameters():
        parameter.data.abs_()
    (field,) = receptive_fields(network, ["relu3_1"]).values()
    x = torch.rand(1, 3, 128, 128, dtype=torch.float64, requires_grad=True)
    (dx,) = torch.autograd.grad(Features(network, ["relu3_1"])(x)["relu3_1"][0, :, 16, 16].sum(), x)
    # a tile of Winograd's reads more than its outputs depend on, and rounds
    seen = dx.abs().sum((0, 1, 3))
    rows = (seen > 1e-9 * seen.max()).nonzero().flatten()
    first, last = 16 * field.stride - field.reach, 16 * field.stride + field.stride - 1 + field.reach
    assert (rows.min().item(), rows.max().item()) == (first, last)


@pytest.mark.parametrize("size", [(300, 515), (64, 64), (33, 400), (1, 900)])
@pytest.mark.parametrize("side", [None, 32, 50, 1000])
def test_areas_are_those_of_the_tiles(size, side):
    fields = list(receptive_fields(small_vgg(), ["relu3_1"]).values())
    areas = []
    for tile in plan_tiles(*size, side, fields):
        top, left, bottom, right = tile.outer
        areas.append((bottom - top) * (right - left))
    assert tile_areas(*size, side, fields) == (max(areas), sum(areas))


def test_areas_of_millions_of_tiles_are_found_at_once():
    largest, total = tile_areas(10**6, 10**6, 4, [Field(4, 10)])
    assert (largest, total) == (28**2, (10**6 // 4 * 28 - 2 * (12 + 8 + 4)) ** 2)


def test_one_tile_is_the_picture():
    (tile,) = plan_tiles(30, 50, None, [])
    assert tile.core == tile.outer == (0, 0, 30, 50)
    assert len(plan_tiles(30, 50, 64, list(receptive_fields(small_vgg(), ["relu2_1"]).values()))) == 1


def test_what_cannot_be_tiled_is_named():
    with pytest.raises(ValueError, match="sequence of layers; got Wrapper"):
        receptive_fields(Wrapper(), ["inner"])
    with pytest.raises(ValueError, match=r"conv1_1 with padding circular"):
        receptive_fields(small_vgg(padding_mode="circular"), ["relu1_1"])
    with pytest.raises(ValueError, match="layer 1, a Flatten"):
        receptive_fields(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten(), nn.ReLU()), ["2"])
    with pytest.raises(ValueError, match="tile must be >= 4"):
        plan_tiles(99, 99, 3, list(receptive_fields(small_vgg(), ["relu3_1"]).values()))


class Wrapper(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)


def test_the_bytes_of_a_gradient_are_counted():
    # float64: two convolutions' inputs and outputs at full size, less than twice that with the pools
    count = bytes_per_pixel(small_vgg(), ["relu3_1"])
    kept = 8 * (3 + 4 + 4 + 4 / 4 + 6 / 4 + 6 / 16 + 8 / 16)
    assert kept < count < 3 * kept


def test_counting_keeps_nothing():
    network = VGG((1,), widths=(64,)).eval()
    bytes_per_pixel(network, ["relu1_1"])
    before = resident_memory()
    for _ in range(30):
        bytes_per_pixel(network, ["relu1_1"])
    # each looks at 8 MB
    assert resident_memory() - before < 60e6
