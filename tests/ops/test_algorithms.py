"""The rules that choose a backend or an algorithm, and the C++ that each of them must agree with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from imgops._epilogue import Epilogue
from imgops.ops import _algorithms
from imgops.ops._algorithms import (
    depthwise_pays,
    four_taps_pay,
    fused_conv2d_pays,
    one_cuda_pass_pays,
    pointwise_product_pays,
    product_pays,
    scaled_smaller,
    winograd_pays,
)
from imgops.ops._common import STATUSES

CSRC = Path(__file__).resolve().parents[2] / "csrc"
needs_cpu_backend = pytest.mark.skipif(not STATUSES["cpu", "cpu"].available, reason="the CPU extension is not built")


def test_where_winograd_pays():
    """Some tiles, or many channels, of images that its tiles fit."""

    def pays(shape, up=1, down=1, kernel=3, out=4, crop=(0, 0, 0, 0), **kwargs):
        weight = torch.empty(out, shape[1], kernel, kernel)
        return winograd_pays(torch.empty(shape, **kwargs), weight, up, down, crop=crop)

    assert pays((4, 8, 16, 16))
    assert pays((4, 8, 32, 32), down=2)
    assert pays((4, 8, 16, 16), up=2)
    assert not pays((4, 8, 8, 8), up=2)
    assert pays((4, 8, 8, 8), up=2, crop=(1, 0, 1, 0))
    assert pays((1, 8, 16, 16))
    assert pays((16, 8, 4, 4))
    assert not pays((15, 8, 4, 4))
    assert not pays((1, 8, 12, 12))
    assert pays((4, 512, 4, 4), out=512)
    assert pays((4, 512, 9, 9), out=512, down=2)
    assert not pays((4, 512, 4, 4), out=500)
    assert pays((4, 8, 8, 8), down=2)
    assert not pays((3, 8, 8, 8), down=2)
    assert not pays((4, 8, 16, 16), dtype=torch.bfloat16)
    assert not pays((4, 8, 16, 16), kernel=5)
    assert not pays((4, 8, 16, 16), up=3)
    assert not pays((600, 8, 1, 2))
    assert not pays((200, 8, 1, 6))
    assert not pays((4, 8, 16, 16), memory_format=torch.channels_last)


def test_where_one_pass_of_a_convolution_pays():
    """The CPU's kernel crops rows and columns alike, Triton's takes no groups."""
    x, weight = torch.empty(4, 8, 16, 16), torch.empty(4, 8, 3, 3)

    def pays(backend, up=(2, 2), groups=1, crop=(0, 0, 0, 0), weight=weight):
        return fused_conv2d_pays(backend, x, weight, up, (1, 1), groups, crop)

    for backend in ("cpu", "triton"):
        assert pays(backend)
        assert pays(backend, crop=(1, 0, 3, 0))
        assert not pays(backend, up=(2, 1))
        assert not pays(backend, groups=2, weight=torch.empty(4, 4, 3, 3))
        assert pays(backend, crop=(1, 0, 0, 0)) == (backend == "triton")
    assert not pays("cuda")


def test_where_winograd_pays_for_groups():
    """With channels enough in each group, the fewer the smaller the images."""

    def pays(shape, each, groups=4, **kwargs):
        return winograd_pays(torch.empty(shape), torch.empty(groups * each, each, 3, 3), groups=groups, **kwargs)

    plain = {"up": 1, "down": 1}
    assert pays((1, 64, 8, 8), 16, **plain)
    assert not pays((3, 64, 4, 4), 16, **plain)
    assert not pays((4, 32, 64, 64), 8, **plain)
    assert not pays((4, 4, 64, 64), 1, **plain)
    assert not pays((1, 256, 8, 8), 64, **plain)
    assert pays((4, 256, 16, 16), 64, **plain)
    assert not pays((4, 64, 16, 16), 16, up=2, down=1)
    assert not pays((4, 64, 32, 32), 16, up=1, down=2)


def test_the_most_channels_of_a_group_are_those_of_the_kernel():
    text = (CSRC / "cpu" / "convolution" / "winograd.h").read_text()
    assert int(re.search(r"kNarrowChannels = (\d+)", text)[1]) == _algorithms.NARROW_CHANNELS


@needs_cpu_backend
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (3, 1), (1, 3)])
def test_winograd_is_asked_for_what_the_kernel_takes(up, down, kernel, dtype):
    x, weight = torch.zeros(1, 2, 64, 64, dtype=dtype), torch.zeros(2, 2, kernel, kernel, dtype=dtype)
    call = (x, weight, None, down, [0] * 4, up, 1, None, 1.0, *Epilogue(), False)
    if winograd_pays(x, weight, up, down):
        torch.ops.imgops.fused_conv2d(*call)
    else:
        with pytest.raises(RuntimeError, match="imgops::fused_conv2d: on the CPU"):
            torch.ops.imgops.fused_conv2d(*call)


def test_where_each_channel_by_itself_pays():
    """Planar images with some lanes to fill."""

    def pays(shape, kernel=3, stride=(1, 1), groups=None, outputs=None, backend="cpu", **kwargs):
        c = shape[1]
        weight = torch.empty(outputs or c, c // (groups or c), kernel, kernel)
        return depthwise_pays(backend, torch.empty(shape, **kwargs), weight, stride, groups or c)

    assert pays((1, 4, 5, 5))
    assert pays((2, 2, 5, 5), kernel=7, stride=(2, 2), dtype=torch.float64)
    assert not pays((1, 3, 5, 5))
    assert not pays((8, 1, 5, 5))
    assert not pays((1, 8, 5, 5), groups=4)
    assert not pays((1, 8, 5, 5), outputs=16)
    assert not pays((1, 8, 5, 5), stride=(3, 3))
    assert not pays((1, 8, 5, 5), stride=(1, 2))
    assert not pays((1, 8, 5, 5), backend="triton")
    assert not pays((1, 8, 5, 5), kernel=4)
    assert not pays((1, 8, 5, 5), dtype=torch.float16)
    assert not pays((1, 8, 5, 5), memory_format=torch.channels_last)


@needs_cpu_backend
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 7, 9])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_each_channel_by_itself_is_asked_for_what_the_kernel_takes(stride, kernel, dtype):
    x, weight = torch.zeros(1, 8, 16, 16, dtype=dtype), torch.zeros(8, 1, kernel, kernel, dtype=dtype)
    call = (x, weight, stride, [0] * 4, 1, *Epilogue(), False)
    if depthwise_pays("cpu", x, weight, (stride, stride), 8):
        torch.ops.imgops.depthwise_conv2d(*call)
    else:
        with pytest.raises(RuntimeError, match="imgops::depthwise_conv2d: "):
            torch.ops.imgops.depthwise_conv2d(*call)


@pytest.mark.parametrize("name", ["PLAIN", "TRANSPOSED", "STRIDED"])
def test_the_products_of_a_tile_are_those_of_the_kernel(name):
    text = (CSRC / "cpu" / "convolution" / "winograd_axes.h").read_text()
    body = text[text.index(f"struct {name.capitalize()} {{") :]
    products, step, pixels = (int(re.search(rf"{key} = (\d+)", body)[1]) for key in ("kProducts", "kStep", "kPixels"))
    # outputs of the transposed convolution are pixels of the higher resolution, of which its step has half
    assert getattr(_algorithms, name) == (products, step if name == "TRANSPOSED" else pixels)


def test_where_a_pointwise_product_pays():
    x, weight = torch.empty(4, 8, 8, 8), torch.empty(2, 8, 1, 1)
    assert pointwise_product_pays("cpu", x, weight)
    assert not pointwise_product_pays("cuda", x, weight)
    assert not pointwise_product_pays("cpu", x, torch.empty(2, 8, 3, 3))
    assert not pointwise_product_pays("cpu", x.bfloat16(), weight)
    assert not pointwise_product_pays("cpu", x.contiguous(memory_format=torch.channels_last), weight)


def test_the_gain_goes_to_the_smaller():
    x, weight = torch.ones(4, 8), torch.ones(3, 8)
    assert [float(t[0, 0]) for t in scaled_smaller(x, weight, 2.0)] == [1, 2]
    assert [float(t[0, 0]) for t in scaled_smaller(x[:2], weight, 2.0)] == [2, 1]


def test_where_a_product_pays():
    x, weight = torch.empty(4, 512, 8, 8), torch.empty(2, 512, 3, 3)
    assert product_pays("cpu", x, weight, 2)
    assert not product_pays("cuda", x, weight, 2)
    assert not product_pays("cpu", x, weight, 1)
    assert not product_pays("cpu", torch.empty(5, 512, 8, 8), weight, 2)
    assert not product_pays("cpu", torch.empty(4, 500, 8, 8), torch.empty(2, 500, 3, 3), 2)


def test_four_taps_are_those_of_the_cuda_kernel():
    text = (CSRC / "cuda" / "upfirdn2d.cu").read_text()
    assert "filter.w == 4 && filter.h == 4 && linear_in_pieces(o.act)" in text
    factors = re.findall(r"if \(four_taps && up\[0\] == (\d) && down\[0\] == (\d)\)", text)
    assert tuple((int(up), int(down)) for up, down in factors) == _algorithms.FOUR_TAPS_FACTORS
    line = re.search(
        r"bool linear_in_pieces\(Act act\) \{(.*)\}", (CSRC / "cuda" / "upfirdn2d_four_taps.cuh").read_text()
    )
    assert tuple(re.findall(r"Act::(\w+)", line[1])) == _algorithms.LINEAR_IN_PIECES


def test_where_four_taps_pay():
    planar, f = torch.empty(2, 8, 8, 8), torch.empty(4, 4)
    assert four_taps_pay(planar, f, (2, 2), (1, 1), "lrelu")
    assert not four_taps_pay(planar, f, (2, 1), (1, 1), "lrelu")
    assert not four_taps_pay(planar, f, (2, 2), (2, 2), "lrelu")
    assert not four_taps_pay(planar, f, (2, 2), (1, 1), "swish")
    assert not four_taps_pay(planar, torch.empty(6), (1, 1), (1, 1), "linear")
    assert not four_taps_pay(planar.double(), f, (1, 1), (1, 1), "linear")
    assert not four_taps_pay(planar.contiguous(memory_format=torch.channels_last), f, (1, 1), (1, 1), "linear")


def test_one_pass_takes_the_factors_of_the_cuda_kernel():
    tile = (CSRC / "cuda" / "filtered_lrelu_tile.cuh").read_text()
    assert int(re.search(r"kPhaseTaps = (\d+)", tile)[1]) == _algorithms.PHASE_TAPS
    text = (CSRC / "cuda" / "filtered_lrelu.cu").read_text()
    body = text[text.index("bool fits(") :].split("\n}\n")[0]
    factors = {(int(up), int(down)) for up, down in re.findall(r"q\.up == (\d) && q\.down == (\d)", body)}
    # a pass and its gradient, which swaps them
    assert factors == {pair for up, down in _algorithms.ONE_PASS_FACTORS for pair in ((up, down), (down, up))}


def test_where_one_pass_pays():
    x, twelve, long = torch.empty(1, 2, 8, 8), torch.empty(12), torch.empty(24)
    assert one_cuda_pass_pays(x, twelve, twelve, 2, 2)
    assert one_cuda_pass_pays(x, long, torch.empty(12, 12), 4, 2)
    assert not one_cuda_pass_pays(x, torch.empty(12, 12), twelve, 2, 2)
    assert not one_cuda_pass_pays(x, twelve, long, 2, 4)
    assert not one_cuda_pass_pays(x, None, twelve, 2, 2)
    assert not one_cuda_pass_pays(x.double(), twelve, twelve, 2, 2)
