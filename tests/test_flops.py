"""PyTorch's counter of FLOPs counts the kernels: as much as it counts of plain operators with the same result."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry

import imgops
from imgops.ops._common import STATUSES
from imgops.ops._registration import _NAMESPACES
from tests.op_specs import SCHEMAS, SHEETS

pytestmark = pytest.mark.skipif(not STATUSES["cpu", "cpu"].available, reason="the CPU extension is not built")


#: plain operators that sum the same products; an op that is not here sums none
PRODUCTS = {name: plain for sheet in SHEETS.values() for name, plain in sheet.products.items()}


def count(function, *arguments):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(*arguments)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", sorted(vars(_NAMESPACES["imgops"])))
def test_every_op(name):
    assert getattr(torch.ops.imgops, name) in flop_registry
    arguments = SCHEMAS[name]()
    expected = count(PRODUCTS[name], *arguments) if name in PRODUCTS else 0
    assert count(getattr(_NAMESPACES["imgops"], name), *arguments) == expected
    assert (expected > 0) == (name in PRODUCTS)


@pytest.mark.parametrize(("stride", "up"), [(1, 1), (2, 1), (1, 2)])
def test_a_convolution_and_its_gradients(stride, up):
    x, weight = torch.randn(2, 64, 16, 16, requires_grad=True), torch.randn(64, 64, 3, 3, requires_grad=True)
    padding = [1, 1, 1, 1] if up == 1 else [0] * 4
    arguments = None, stride, padding, up, 1, None, 1.0, None, None, None, "linear", 0.0, 1.0, -1.0, False

    def passes(function):
        with torch.enable_grad():
            y = function(x, weight, *arguments)
            torch.autograd.grad((y if isinstance(y, torch.Tensor) else y[0]).sum(), [x, weight])

    assert count(passes, _NAMESPACES["imgops"].fused_conv2d) == count(passes, PRODUCTS["fused_conv2d"])


def test_groups_multiply_their_own_channels():
    """PyTorch's own count of a grouped weight's gradient has the products of all channels."""
    x, ops = torch.randn(2, 8, 4, 4), _NAMESPACES["imgops"]
    products = 2 * 8 * 2 * 9 * x[:, 0].numel()
    rest = None, 1.0, None, None, None, "linear", 0.0, 1.0, -1.0, False
    assert count(ops.fused_conv2d, x, torch.randn(8, 2, 3, 3), None, 1, [1] * 4, 1, 4, *rest) == products
    assert count(ops.conv2d_weight_gradient, x, x, 1, [1] * 4, 4, False) == products


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
print(counter.get_total_flops())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{2 * 2 * 2 * 12}\n"), done.stderr
