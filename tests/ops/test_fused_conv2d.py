"""``fused_conv2d``, the convolution of the Triton twin: its kernel, and gradients of every order."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from golden import relative_error
from twins import TOLERANCE

from imgops import _backend
from imgops.ops.fused_conv2d import fused_conv2d
from imgops.reference.bias_act import bias_act

DEVICES = [device for device in ("cpu", "cuda") if _backend.load()["triton", device].available]
pytestmark = pytest.mark.skipif(not DEVICES, reason="Triton is not available")

LRELU = ("lrelu", 0.2, 1.3, 30.0)
#: (n, i, h, w), o, (kh, kw), stride, padding, up
SHAPES = {
    "tile of one sample": ((2, 20, 9, 11), 18, (3, 3), 1, (1, 1, 1, 1), 1),
    "tile of many samples": ((5, 17, 4, 3), 3, (3, 3), 1, (1, 1, 1, 1), 1),
    "pointwise": ((2, 33, 8, 8), 3, (1, 1), 1, (0, 0, 0, 0), 1),
    "stride": ((2, 4, 12, 13), 5, (3, 3), 2, (1, 0, 2, 1), 1),
    "crop": ((2, 4, 7, 8), 5, (2, 3), 1, (-1, 1, 0, -1), 1),
    "transposed": ((2, 5, 5, 6), 7, (3, 3), 1, (0, 0, 0, 0), 2),
    "transposed, phases without taps": ((1, 3, 8, 9), 4, (2, 1), 1, (0, 0, 0, 0), 3),
    "one pixel": ((3, 4, 1, 1), 2, (3, 3), 1, (1, 1, 1, 1), 1),
    "empty batch": ((0, 4, 5, 5), 2, (3, 3), 1, (1, 1, 1, 1), 1),
}


def operands(shape, dtype, device, noises=None):
    """(x, weight, styles, demod, noise, b) and the rest of the arguments."""
    (n, i, h, w), o, (kh, kw), stride, padding, up = shape
    wide = torch.float64 if dtype == torch.float64 else torch.float32

    def random(*size, of=wide):
        return torch.randn(*size, dtype=torch.float64).to(device=device, dtype=of)

    if up > 1:
        size = ((h - 1) * up + kh, (w - 1) * up + kw)
    else:
        size = ((h + padding[2] + padding[3] - kh) // stride + 1, (w + padding[0] + padding[1] - kw) // stride + 1)
    x, weight = random(n, i, h, w, of=dtype), random(o, i, kh, kw, of=dtype)
    noise = random(n if noises is None else noises, 1, *size)
    return (x, weight, random(n, i), random(n, o), noise, random(o)), (stride, padding, up)


def plain(x, weight, styles, demod, noise, b, activation, stride, padding, up):
    """The same in PyTorch's own differentiable operators."""
    x = x if styles is None else x * styles[:, :, None, None]
    if up > 1:
        u = F.conv_transpose2d(x, weight.transpose(0, 1), stride=up)
    else:
        u = F.conv2d(F.pad(x, list(padding)), weight, stride=stride)
    return bias_act(u, b, demod, noise, 1, *activation)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_forward(shape, form, dtype, device):
    """The kernel against the library in float64; half precision rounds the modulated input, then the result."""
    tensors, rest = operands(shape, dtype, device)
    x, weight, styles, *others = (t.contiguous(memory_format=form) if t.ndim == 4 else t for t in tensors)
    tf32 = torch.backends.cudnn.conv.fp32_precision
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    try:
        y = fused_conv2d(x, weight, styles, *others, LRELU, *rest)
    finally:
        torch.backends.cudnn.conv.fp32_precision = tf32
    modulated = (
        (x * styles[:, :, None, None]).to(dtype)
        if dtype.itemsize == 2
        else x.double() * styles.double()[:, :, None, None]
    )
    expected = plain(modulated.double(), weight.double(), None, *(t.double() for t in others), LRELU, *rest)
    assert y.dtype == dtype
    assert relative_error(y, expected) <= 2 * TOLERANCE[dtype]
    assert y.numel() == 0 or y.is_contiguous(memory_format=form)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("act", ["linear", "lrelu", "swish"])
@pytest.mark.parametrize("name", ["tile of many samples", "stride", "crop", "transposed"])
def test_gradients(name, act, device):
    """First and second order with respect to every operand, against the same in PyTorch's operators."""
    tensors, rest = operands(SHAPES[name], torch.float64, device, noises=1)
    activation = (act, 0.2, 1.3, 4.0)

    def orders(function):
        leaves = [t.clone().requires_grad_() for t in tensors]
        y = function(*leaves, activation, *rest)
        v = torch.linspace(-1, 1, y.numel(), dtype=y.dtype, device=device).reshape(y.shape)
        first = torch.autograd.grad(y, leaves, v, create_graph=True)
        total = sum(
            (g * torch.linspace(1, 2, g.numel(), dtype=g.dtype, device=device).reshape(g.shape)).sum() for g in first
        )
        return [*first, *torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)]

    for actual, expected in zip(orders(fused_conv2d), orders(plain), strict=True):
        assert relative_error(actual, expected) <= 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("shape", "activation"),
    [
        (((2, 2, 3, 2), 2, (2, 2), 1, (1, 0, 0, 1), 1), ("swish", 0.0, 1.3, -1.0)),
        (((1, 2, 2, 2), 2, (3, 3), 1, (0, 0, 0, 0), 2), ("lrelu", 0.2, 1.3, -1.0)),
    ],
    ids=["plain, swish", "transposed, lrelu"],
)
def test_gradcheck(shape, activation, device):
    """Numerical derivatives, of first and second order."""
    tensors, rest = operands(shape, torch.float64, device)
    leaves = [t.requires_grad_() for t in tensors]

    def function(*leaves):
        return fused_conv2d(*leaves, activation, *rest)

    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("device", DEVICES)
def test_third_order(device):
    """R1 on a second-order quantity: three derivatives in a row."""
    tensors, rest = operands(SHAPES["tile of many samples"], torch.float64, device)

    def third(function):
        leaves = [t.clone().requires_grad_() for t in tensors]
        value = function(*leaves, ("swish", 0.0, 1.0, -1.0), *rest).square().sum()
        for _ in range(3):
            grads = torch.autograd.grad(value, leaves[:4], create_graph=True)
            value = sum(g.square().sum() for g in grads)
        return grads

    for actual, expected in zip(third(fused_conv2d), third(plain), strict=True):
        assert relative_error(actual, expected) <= 1e-9


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device):
    """Schema, fake tensors and autograd registration, with and without the kept convolution."""
    tensors, rest = operands(SHAPES["stride"], torch.float32, device)
    leaves = [t.requires_grad_() for t in tensors]
    for keep in (False, True):
        activation = LRELU if not keep else ("swish", 0.0, 1.0, -1.0)
        tensors = leaves if keep else [leaves[0], leaves[1], None, None, None, None]
        torch.library.opcheck(torch.ops.imgops_triton.fused_conv2d, (*tensors, *activation, *rest, keep))
