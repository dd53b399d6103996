"""``depthwise_conv2d``, a convolution of each channel by itself with its epilogue: its kernels, and their gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from backends import TOLERANCE, backends
from golden import relative_error

from imgops._epilogue import Epilogue
from imgops.ops._registration import namespace
from imgops.ops.depthwise_conv2d import depthwise_conv2d
from imgops.reference.bias_act import bias_act

pytestmark = pytest.mark.parametrize(("backend", "device"), backends(exclude=("reference", "cuda", "triton")))
#: (n, c, h, w), kernel, stride, padding, up; up stands for zeros between the pixels of x
SHAPES = {
    "one vector": ((1, 16, 7, 7), 3, 1, (1, 1, 1, 1), 1),
    "some lanes": ((2, 3, 9, 14), 5, 1, (2, 2, 2, 2), 1),
    "samples share vectors": ((3, 7, 6, 5), 3, 1, (1, 1, 1, 1), 1),
    "chunks": ((1, 18, 61, 67), 5, 1, (2, 2, 2, 2), 1),
    "strided chunks": ((1, 2, 75, 131), 3, 2, (1, 1, 1, 1), 1),
    "seven taps": ((1, 5, 14, 9), 7, 1, (3, 3, 3, 3), 1),
    "stride": ((2, 9, 15, 15), 3, 2, (1, 1, 1, 1), 1),
    "stride, even": ((2, 9, 14, 12), 5, 2, (2, 2, 2, 2), 1),
    "stride, uneven": ((1, 4, 11, 8), 7, 2, (0, 3, 4, 1), 1),
    "transposed": ((2, 17, 7, 6), 3, 1, (1, 2, 1, 2), 2),
    "transposed, cropped": ((1, 4, 8, 9), 5, 1, (-1, 4, 2, 3), 2),
    "cropped": ((2, 4, 9, 12), 3, 1, (-2, 1, 0, -1), 1),
    "image of the weight's size": ((2, 5, 3, 3), 3, 1, (0, 0, 0, 0), 1),
    "one pixel": ((3, 20, 1, 1), 5, 1, (2, 2, 2, 2), 1),
    "mostly zeros": ((1, 3, 2, 1), 3, 1, (9, 7, 8, 6), 1),
    "empty batch": ((0, 4, 5, 5), 3, 1, (1, 1, 1, 1), 1),
}
#: what an epilogue has, and its activation
EPILOGUES = {
    "relu6": ("b", ("relu", 0.0, 1.0, 6.0)),
    "swish": ("b", ("swish", 0.0, 1.0, -1.0)),
    "all": ("b scale noise", ("swish", 0.0, 1.3, 4.0)),
}


def operands(shape, epilogue, dtype=torch.float64, form=torch.contiguous_format):
    """([x, weight, b, scale, noise], the rest of the arguments)."""
    (n, c, h, w), kernel, stride, padding, up = shape
    x, weight = torch.randn(n, c, h, w, dtype=dtype), torch.randn(c, 1, kernel, kernel, dtype=dtype)
    size = plain(x, weight, Epilogue(), stride, padding, up).shape
    names, activation = EPILOGUES[epilogue]
    shapes = {"b": (c,), "scale": (n, c), "noise": (n, 1, *size[2:])}
    made = [torch.randn(size, dtype=dtype) if name in names.split() else None for name, size in shapes.items()]
    return [x.contiguous(memory_format=form), weight, *made], (activation, stride, padding, up)


def plain(x, weight, epilogue, stride, padding, up):
    """The same in PyTorch's own differentiable operators."""
    n, c, h, w = x.shape
    if up == 2:
        apart = torch.zeros(n, c, 2 * h - 1, 2 * w - 1, dtype=x.dtype)
        apart[:, :, ::2, ::2] = x
        x = apart
    return bias_act(F.conv2d(F.pad(x, list(padding)), weight, stride=stride, groups=c), epilogue)


def convolved(x, weight, epilogue, stride, padding, up):
    if up == 1:
        return depthwise_conv2d(x, weight, epilogue, stride, padding)
    keep = epilogue.act == "swish" and torch.is_grad_enabled()
    return namespace("cpu").depthwise_conv2d(x, weight, stride, padding, up, *epilogue, keep)[0]


@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("name", SHAPES)
def test_forward(name, form, dtype, epilogue, backend, device):
    tensors, (activation, *rest) = operands(SHAPES[name], epilogue, dtype, form)
    y = convolved(*tensors[:2], Epilogue(*tensors[2:], *activation), *rest)
    exact = [None if t is None else t.double() for t in tensors]
    expected = plain(*exact[:2], Epilogue(*exact[2:], *activation), *rest)
    assert y.dtype == dtype
    assert y.shape == expected.shape
    assert relative_error(y, expected) <= TOLERANCE[dtype]
    assert y.numel() == 0 or y.is_contiguous(memory_format=form)


@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("name", SHAPES)
def test_gradients(name, epilogue, backend, device):
    """First and second order with respect to every operand, against the same in PyTorch's operators."""
    tensors, (activation, *rest) = operands(SHAPES[name], epilogue)

    def orders(function):
        leaves = [None if t is None else t.clone().requires_grad_() for t in tensors]
        wanted = [t for t in leaves if t is not None]
        y = function(*leaves[:2], Epilogue(*leaves[2:], *activation), *rest)
        first = torch.autograd.grad(
            y, wanted, torch.linspace(-1, 1, y.numel()).to(y).reshape(y.shape), create_graph=True
        )
        total = sum((g * torch.linspace(1, 2, g.numel()).to(g).reshape(g.shape)).sum() for g in first)
        return [*first, *torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)]

    for actual, expected in zip(orders(convolved), orders(plain), strict=True):
        assert relative_error(actual, expected) <= 1e-10


@pytest.mark.parametrize("epilogue", ["relu6", "all"])
@pytest.mark.parametrize("name", ["samples share vectors", "stride", "transposed"])
def test_gradgradcheck(name, epilogue, backend, device):
    tensors, (activation, *rest) = operands(((2, 2, 4, 3), *SHAPES[name][1:]), epilogue)
    leaves = [t.requires_grad_() for t in tensors if t is not None]

    def function(*leaves):
        others = iter(leaves[2:])
        made = (None if t is None else next(others) for t in tensors[2:])
        return convolved(*leaves[:2], Epilogue(*made, *activation), *rest)

    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("name", ["samples share vectors", "stride", "transposed"])
def test_opcheck(name, backend, device):
    tensors, (activation, stride, padding, up) = operands(SHAPES[name], "all", torch.float32)
    leaves = [t.requires_grad_() for t in tensors]
    for keep in (False, True):
        epilogue = (*leaves[2:], *activation) if keep else Epilogue()
        arguments = *leaves[:2], stride, padding, up, *epilogue, keep
        torch.library.opcheck(torch.ops.imgops.depthwise_conv2d, arguments)
    if up == 1:
        dy = plain(*tensors[:2], Epilogue(), stride, padding, up).detach().requires_grad_()
        arguments = dy, leaves[0], stride, padding, tensors[1].shape[2]
        torch.library.opcheck(torch.ops.imgops.depthwise_weight_gradient, arguments)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_the_number_of_threads_changes_nothing(kernel, stride, backend, device):
    """Nor do the strides of x and dy; the gradient of few channels is summed in parts."""
    x = torch.randn(3, 40, 50, 20).movedim(3, 1)
    weight = torch.randn(20, 1, kernel, kernel, requires_grad=True)
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 3, 8):
            torch.set_num_threads(number)
            y = depthwise_conv2d(x, weight, Epilogue(), stride, (1, 1, 1, 1))
            results.append((y, *torch.autograd.grad(y, weight, torch.ones(()).expand(y.shape))))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))
