"""PyTorch's counter of FLOPs counts the kernels: as much as it counts of plain operators with the same result."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from ops.test_orders import SAMPLES
from torch.utils.flop_counter import FlopCounterMode, flop_registry

import imgops
from imgops import reference
from imgops.ops._common import STATUSES
from imgops.ops._registration import _NAMESPACES
from imgops.reference.upfirdn2d import upfirdn2d

pytestmark = pytest.mark.skipif(not STATUSES["cpu", "cpu"].available, reason="the CPU extension is not built")


def slopes(x, codes, fu, fd, up, down, padding_up, padding_down, flip, gain_up, gain_down, *_):
    high = upfirdn2d(x, fu, (up, up), (1, 1), padding_up, flip, gain_up)
    return upfirdn2d(high, fd, (1, 1), (down, down), padding_down, flip, gain_down)


def convolution(x, weight, *arguments):
    stride, padding, up, _ = arguments[-4:]
    if up > 1:
        return F.conv_transpose2d(x, weight.transpose(0, 1), stride=up)
    return F.conv2d(F.pad(x, padding), weight, stride=stride)


#: plain operators that sum the same products; an op that is not here sums none
PLAIN = {
    "upfirdn2d": upfirdn2d,
    "upfirdn2d_bias_act": lambda *a: upfirdn2d(*a[:7]),
    "filtered_lrelu": lambda *a: reference.filtered_lrelu.filtered_lrelu(*a[:-1]),
    "filtered_lrelu_slopes": slopes,
    "fused_conv2d": convolution,
    "conv2d_weight_gradient": lambda dy, x, stride, padding: torch.nn.grad.conv2d_weight(
        F.pad(x, padding), (dy.shape[1], x.shape[1], 3, 3), dy, stride=stride
    ),
    "gram_matrix": lambda x, _: reference.gram_matrix.gram_matrix(x, 1),
    "feature_statistics": lambda x: reference.gram_matrix.feature_statistics(x),
    "mix_channels": lambda x, weight, *_: weight @ x.flatten(2),
}


def count(function, *arguments):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(*arguments)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", sorted(vars(_NAMESPACES["imgops"])))
def test_every_op(name):
    assert getattr(torch.ops.imgops, name) in flop_registry
    arguments = SAMPLES[name]()
    expected = count(PLAIN[name], *arguments) if name in PLAIN else 0
    assert count(getattr(_NAMESPACES["imgops"], name), *arguments) == expected
    assert (expected > 0) == (name in PLAIN)


@pytest.mark.parametrize(("stride", "up"), [(1, 1), (2, 1), (1, 2)])
def test_a_convolution_and_its_gradients(stride, up):
    x, weight = torch.randn(2, 64, 16, 16, requires_grad=True), torch.randn(64, 64, 3, 3, requires_grad=True)
    arguments = *[None] * 4, "linear", 0.0, 1.0, -1.0, stride, [1, 1, 1, 1] if up == 1 else [0] * 4, up, False

    def passes(function):
        with torch.enable_grad():
            y = function(x, weight, *arguments)
            torch.autograd.grad((y if isinstance(y, torch.Tensor) else y[0]).sum(), [x, weight])

    assert count(passes, _NAMESPACES["imgops"].fused_conv2d) == count(passes, convolution)


def test_both_passes_of_a_style_loss():
    x, target = torch.randn(1, 6, 8, 8, requires_grad=True), torch.zeros(1, 6, 6)
    with FlopCounterMode(display=False) as counter:
        imgops.style_loss(x, target, impl="cpu").backward()
    # the forward's product and the one of the gradient, of 6 x 6 channels at 64 pixels
    assert counter.get_total_flops() == 2 * (2 * 6 * 6 * 64)


@pytest.mark.parametrize("first", ["import imgops.ops.gram_matrix", "import torch.utils.flop_counter", ""])
def test_in_whichever_order_they_are_imported(first):
    code = f"""
import sys, torch
{first}
assert "flop" in {first!r} or "triton" not in sys.modules
from torch.utils.flop_counter import FlopCounterMode
with FlopCounterMode(display=False) as counter:
    import imgops
    imgops.gram_matrix(torch.ones(1, 2, 3, 4), impl="cpu")
assert counter.get_total_flops() == 2 * 2 * 2 * 12, counter.get_total_flops()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
