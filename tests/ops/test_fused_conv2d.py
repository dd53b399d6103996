"""``fused_conv2d``, convolution and epilogue in one pass: its kernels, and gradients of every order."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from backends import TOLERANCE, backends
from golden import relative_error

from imgops._epilogue import Epilogue
from imgops.ops import _algorithms
from imgops.ops._common import STATUSES, swapped_channels
from imgops.ops.fused_conv2d import fused_conv2d
from imgops.reference.bias_act import bias_act

LRELU = ("lrelu", 0.2, 1.3, 30.0)
RESIDUAL_SCALE = 0.7
#: (n, i, h, w), o, (kh, kw), stride, padding, up, groups
SHAPES = {
    "tile of one sample": ((2, 20, 9, 11), 18, (3, 3), 1, (1, 1, 1, 1), 1, 1),
    "tile of many samples": ((5, 17, 4, 3), 3, (3, 3), 1, (1, 1, 1, 1), 1, 1),
    "groups of tiles, blocks of inputs": ((2, 130, 17, 23), 9, (3, 3), 1, (1, 1, 1, 1), 1, 1),
    "three groups": ((3, 70, 15, 34), 9, (3, 3), 1, (1, 1, 1, 1), 1, 1),
    "uneven padding": ((2, 3, 6, 101), 2, (3, 3), 1, (-1, 3, 2, 0), 1, 1),
    "pointwise": ((2, 33, 8, 8), 3, (1, 1), 1, (0, 0, 0, 0), 1, 1),
    "stride": ((2, 4, 12, 13), 5, (3, 3), 2, (1, 0, 2, 1), 1, 1),
    "strided groups": ((2, 130, 15, 41), 9, (3, 3), 2, (0, 1, 0, 0), 1, 1),
    "crop": ((2, 4, 7, 8), 5, (2, 3), 1, (-1, 1, 0, -1), 1, 1),
    "transposed": ((2, 5, 5, 6), 7, (3, 3), 1, (0, 0, 0, 0), 2, 1),
    "transposed, cropped": ((2, 5, 5, 6), 7, (3, 3), 1, (1, 0, 3, 1), 2, 1),
    "transposed, cropped evenly": ((2, 5, 5, 6), 7, (3, 3), 1, (2, 1, 0, -1), 2, 1),
    "transposed groups": ((2, 147, 7, 21), 9, (3, 3), 1, (0, 0, 0, 0), 2, 1),
    "transposed, phases without taps": ((1, 3, 8, 9), 4, (2, 1), 1, (0, 0, 0, 0), 3, 1),
    "small": ((2, 2, 3, 2), 2, (3, 3), 1, (1, 0, 0, 1), 1, 1),
    "small strided": ((2, 2, 5, 4), 2, (3, 3), 2, (1, 0, 0, 1), 1, 1),
    "small transposed": ((1, 2, 2, 2), 2, (3, 3), 1, (0, 0, 0, 0), 2, 1),
    "small groups": ((1, 4, 3, 2), 4, (3, 3), 1, (1, 0, 0, 1), 1, 2),
    "one pixel": ((3, 4, 1, 1), 2, (3, 3), 1, (1, 1, 1, 1), 1, 1),
    "empty batch": ((0, 4, 5, 5), 2, (3, 3), 1, (1, 1, 1, 1), 1, 1),
    "narrow groups": ((2, 60, 9, 13), 57, (3, 3), 1, (1, 1, 1, 1), 1, 3),
    "narrow groups of small images": ((37, 32, 4, 3), 34, (3, 3), 1, (1, 1, 1, 1), 1, 2),
    "narrow groups of wide images": ((1, 10, 5, 300), 6, (3, 3), 1, (-1, 3, 2, 0), 1, 2),
    "wide groups": ((2, 80, 9, 11), 72, (3, 3), 1, (1, 1, 1, 1), 1, 2),
    "groups, stride": ((2, 6, 12, 13), 8, (3, 3), 2, (1, 0, 2, 1), 1, 2),
    "groups, transposed": ((2, 6, 5, 6), 8, (3, 3), 1, (0, 0, 0, 0), 2, 2),
}

#: the CPU backend takes 3 x 3 weights, stride and up of 1 or 2 alone, in the dtypes that it accumulates in
CPU_SHAPES = [
    name for name, (_, _, kernel, stride, _, up, _) in SHAPES.items() if kernel == (3, 3) and stride <= 2 and up <= 2
]
CPU_DTYPES = (torch.float32, torch.float64)


needs_cpu_backend = pytest.mark.skipif(not STATUSES["cpu", "cpu"].available, reason="the CPU extension is not built")


@pytest.fixture
def any_channels(monkeypatch):
    """The CPU backend's kernel of a weight's gradient, with however few channels."""
    monkeypatch.setattr(_algorithms, "WINOGRAD_CHANNELS", 0)


def problems(names, *others):
    """Parameters (backend, device, shape's name, *others) for what each backend takes; others are lists."""

    def marks(pair, name):
        # made for the groups of tiles of the CPU backend; Triton's interpreter takes half a minute for one
        slow = pair.values == ("triton", "cpu") and "groups" in name
        return [*pair.marks, pytest.mark.slow] if slow else pair.marks

    return [
        pytest.param(*pair.values, *values, id="-".join(map(str, (pair.id, *values))), marks=marks(pair, values[0]))
        for pair in backends(exclude=("reference", "cuda"))
        for values in itertools.product(names, *others)
        if (
            values[0] in CPU_SHAPES and all(v in CPU_DTYPES for v in values if isinstance(v, torch.dtype))
            if pair.values[0] == "cpu"
            else SHAPES[values[0]][-1] == 1
        )
    ]


def operands(shape, dtype, device, noises=None):
    """(x, weight, styles, residual, b, demod, noise) and the rest of the convolution's arguments."""
    (n, i, h, w), o, (kh, kw), stride, padding, up, groups = shape
    acc_dtype = torch.float64 if dtype == torch.float64 else torch.float32

    def random(*size, of=acc_dtype):
        return torch.randn(*size, dtype=torch.float64).to(device=device, dtype=of)

    if up > 1:
        size = ((h - 1) * up + kh - padding[2] - padding[3], (w - 1) * up + kw - padding[0] - padding[1])
    else:
        size = ((h + padding[2] + padding[3] - kh) // stride + 1, (w + padding[0] + padding[1] - kw) // stride + 1)
    # outputs of some 10, so that the clamp of LRELU meets few of them
    x, weight = random(n, i, h, w, of=dtype), random(o, i // groups, kh, kw, of=dtype)
    weight = weight * (10 / weight[0].numel() ** 0.5)
    noise = random(n if noises is None else noises, 1, *size)
    residual = random(n, o, *size, of=dtype)
    return (x, weight, random(n, i), residual, random(o), random(n, o), noise), (stride, padding, up, groups)


def run(function, tensors, rest, activation):
    """``fused_conv2d``, or :func:`plain`, of :func:`operands`."""
    x, weight, styles, residual, *others = tensors
    return function(x, weight, styles, Epilogue(*others, *activation), *rest, residual, RESIDUAL_SCALE)


def plain(x, weight, styles, epilogue, stride, padding, up, groups=1, residual=None, residual_scale=1.0):
    """The same in PyTorch's own differentiable operators."""
    x = x if styles is None else x * styles[:, :, None, None]
    if up > 1:
        u = F.conv_transpose2d(x, swapped_channels(weight, groups), stride=up, groups=groups)
        u = F.pad(u, [-p for p in padding])
    else:
        u = F.conv2d(F.pad(x, list(padding)), weight, stride=stride, groups=groups)
    return bias_act(u if residual is None else u + residual_scale * residual, epilogue)


@pytest.mark.parametrize(("backend", "device", "name", "dtype"), problems(SHAPES, TOLERANCE))
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last], ids=str)
def test_forward(form, backend, device, name, dtype):
    """The kernel against the library in float64; half precision rounds the modulated input, then the result."""
    tensors, rest = operands(SHAPES[name], dtype, device)
    tensors = [t.contiguous(memory_format=form) if t.ndim == 4 else t for t in tensors]
    tf32 = torch.backends.cudnn.conv.fp32_precision
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    try:
        y = run(partial(fused_conv2d, backend), tensors, rest, LRELU)
    finally:
        torch.backends.cudnn.conv.fp32_precision = tf32
    x, weight, styles, *others = tensors
    modulated = (
        (x * styles[:, :, None, None]).to(dtype)
        if dtype.itemsize == 2
        else x.double() * styles.double()[:, :, None, None]
    )
    exact = modulated.double(), weight.double(), None, *(t.double() for t in others)
    expected = run(plain, exact, rest, LRELU)
    assert y.dtype == dtype
    assert relative_error(y, expected) <= 2 * TOLERANCE[dtype]
    assert y.numel() == 0 or y.is_contiguous(memory_format=form)


@pytest.mark.parametrize(("backend", "device"), backends(exclude=("reference", "cuda")))
def test_no_channels(backend, device):
    """A sum over nothing is 0, and the epilogue follows."""
    x, weight = torch.zeros(2, 0, 5, 6, device=device), torch.zeros(3, 0, 3, 3, device=device)
    b = torch.arange(1.0, 4.0, device=device)
    y = fused_conv2d(backend, x, weight, None, Epilogue(b, gain=2.0), 1, (1, 1, 1, 1), 1, 1)
    assert torch.equal(y, (2 * b[:, None, None]).expand(2, 3, 5, 6))


@pytest.mark.parametrize(("backend", "device"), backends(exclude=("reference", "cuda")))
def test_a_crop_that_a_kernel_cannot_do_is_refused(backend, device):
    x, weight = torch.zeros(1, 2, 5, 6, device=device), torch.zeros(3, 2, 3, 3, device=device)
    padding, message = {
        "cpu": ((1, 1, 0, 0), "crops both odd, or both even numbers of rows and columns"),
        "triton": ((0, 0, -1, 0), r"only pads the end; got \[0, 0, -1, 0\]"),
    }[backend]
    with pytest.raises((RuntimeError, ValueError), match=message):
        fused_conv2d(backend, x, weight, None, Epilogue(), 1, padding, 2)


@pytest.mark.parametrize(
    ("backend", "device", "name", "act"),
    problems(
        [
            *("tile of many samples", "uneven padding", "stride", "strided groups", "crop", "transposed", "one pixel"),
            *("transposed, cropped", "transposed, cropped evenly"),
            *("narrow groups of small images", "wide groups", "groups, stride", "groups, transposed"),
        ],
        ["linear", "lrelu", "swish"],
    ),
)
@pytest.mark.usefixtures("any_channels")
def test_gradients(backend, device, name, act):
    """First and second order with respect to every operand, against the same in PyTorch's operators."""
    tensors, rest = operands(SHAPES[name], torch.float64, device, noises=1)
    activation = (act, 0.2, 1.3, 4.0)

    def orders(function):
        leaves = [t.clone().requires_grad_() for t in tensors]
        y = run(function, leaves, rest, activation)
        v = torch.linspace(-1, 1, y.numel(), dtype=y.dtype, device=device).reshape(y.shape)
        first = torch.autograd.grad(y, leaves, v, create_graph=True)
        total = sum(
            (g * torch.linspace(1, 2, g.numel(), dtype=g.dtype, device=device).reshape(g.shape)).sum() for g in first
        )
        return [*first, *torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)]

    for actual, expected in zip(orders(partial(fused_conv2d, backend)), orders(plain), strict=True):
        assert relative_error(actual, expected) <= 1e-10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "device", "name", "act"),
    problems(["small", "small strided", "small transposed", "small groups"], ["lrelu", "swish"]),
)
@pytest.mark.usefixtures("any_channels")
def test_gradcheck(backend, device, name, act):
    """Numerical derivatives, of first and second order."""
    tensors, rest = operands(SHAPES[name], torch.float64, device)
    leaves = [t.requires_grad_() for t in tensors]

    def function(*leaves):
        return run(partial(fused_conv2d, backend), leaves, rest, (act, 0.2, 1.3, -1.0))

    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize(
    ("backend", "device", "name"), problems(["tile of many samples", "stride", "narrow groups of small images"])
)
@pytest.mark.usefixtures("any_channels")
def test_third_order(backend, device, name):
    """R1 on a second-order quantity: three derivatives in a row."""
    tensors, rest = operands(SHAPES[name], torch.float64, device)

    def third(function):
        leaves = [t.clone().requires_grad_() for t in tensors]
        value = run(function, leaves, rest, ("swish", 0.0, 1.0, -1.0)).square().sum()
        for _ in range(3):
            grads = torch.autograd.grad(value, [*leaves[:4], leaves[5]], create_graph=True)
            value = sum(g.square().sum() for g in grads)
        return grads

    for actual, expected in zip(third(partial(fused_conv2d, backend)), third(plain), strict=True):
        assert relative_error(actual, expected) <= 1e-9


@pytest.mark.parametrize(
    ("backend", "device", "name"),
    problems(["tile of one sample", "uneven padding", "transposed", "stride", "narrow groups"]),
)
@pytest.mark.parametrize(
    "form", [torch.contiguous_format, pytest.param(torch.channels_last, marks=pytest.mark.slow)], ids=str
)
def test_opcheck(form, backend, device, name):
    """Schema, fake tensors and autograd registration, with and without the kept convolution."""
    tensors, rest = operands(SHAPES[name], torch.float32, device)
    leaves = [t.requires_grad_() for t in (tensors[0].contiguous(memory_format=form), *tensors[1:])]
    for keep in (False, True):
        activation = LRELU if not keep else ("swish", 0.0, 1.0, -1.0)
        tensors = leaves if keep else [leaves[0], leaves[1], *[None] * 5]
        ops = torch.ops.imgops_triton if backend == "triton" else torch.ops.imgops
        arguments = *tensors[:3], *rest, tensors[3], RESIDUAL_SCALE, *tensors[4:], *activation, keep
        torch.library.opcheck(ops.fused_conv2d, arguments)


@needs_cpu_backend
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dtype", CPU_DTYPES, ids=str)
@pytest.mark.parametrize(
    ("n", "i", "h", "w", "o", "groups"),
    [
        (2, 20, 9, 13, 18, 1), (3, 131, 6, 5, 70, 1), (1, 33, 3, 150, 130, 1), (0, 4, 5, 5, 2, 1),
        (2, 60, 9, 13, 57, 3), (37, 32, 4, 3, 34, 2), (1, 10, 5, 300, 6, 2), (2, 80, 9, 11, 72, 2), (0, 4, 5, 5, 2, 2),
    ],
)  # fmt: skip
@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (1, 1, 1, 1), (-1, 3, 2, 0)], ids=str)
def test_weight_gradient(padding, n, i, h, w, o, groups, dtype, stride):
    """The kernel against autograd through the library's convolution in float64; memory of any strides."""
    x = torch.randn(n, h, w, i, dtype=torch.float64).movedim(3, 1)
    weight = torch.zeros(o, i // groups, 3, 3, dtype=torch.float64, requires_grad=True)
    y = F.conv2d(F.pad(x, padding), weight, stride=stride, groups=groups)
    dy = torch.randn_like(y)
    (expected,) = torch.autograd.grad(y, weight, dy)
    threads, results = torch.get_num_threads(), []
    try:
        # each thread has a block: of all channels, of some, of few
        for number in (1, 5, 64):
            torch.set_num_threads(number)
            results += [
                torch.ops.imgops.conv2d_weight_gradient(dy.to(dtype), x.to(dtype), stride, padding, groups, swapped)
                for swapped in (False, True)
            ]
    finally:
        torch.set_num_threads(threads)
    assert all(result.is_contiguous() for result in results)
    actual, *others = results[::2]
    assert all(torch.equal(actual, other) for other in others)
    assert all(torch.equal(swapped_channels(actual, groups), other) for other in results[1::2])
    assert actual.dtype == dtype
    assert actual.shape == expected.shape
    assert relative_error(actual, expected) <= 2 * TOLERANCE[dtype]


@needs_cpu_backend
@pytest.mark.parametrize(("stride", "up", "bound"), [(1, 1, 1.1e-6), (2, 1, 4e-7), (1, 2, 5e-7)])
def test_accuracy_with_many_channels(stride, up, bound):
    """The norm of the error in float32, relative to the output's; the library's direct sum has 2.4e-7."""
    x, weight = torch.randn(1, 512, 33, 33), torch.randn(16, 512, 3, 3)
    y = fused_conv2d("cpu", x, weight, None, Epilogue(), stride, (0, 0, 0, 0), up, 1)
    exact = plain(x.double(), weight.double(), None, Epilogue(), stride, (0, 0, 0, 0), up)
    assert (y - exact).norm() < bound * exact.norm()
    if up == 1:
        dweight = torch.ops.imgops.conv2d_weight_gradient(y, x, stride, [0] * 4, 1, False)
        leaf = weight.double().requires_grad_()
        (exact,) = torch.autograd.grad(F.conv2d(x.double(), leaf, stride=stride), leaf, y.double())
        assert (dweight - exact).norm() < 1.1e-6 * exact.norm()


@needs_cpu_backend
@pytest.mark.parametrize("name", ["three groups", "strided groups", "transposed groups", "narrow groups"])
def test_the_number_of_threads_changes_nothing(name):
    tensors, rest = operands(SHAPES[name], torch.float32, "cpu")
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 3, 5):
            torch.set_num_threads(number)
            results.append(run(partial(fused_conv2d, "cpu"), tensors, rest, LRELU))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(results[0], other) for other in results[1:])


@needs_cpu_backend
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_weight_gradient_opcheck(stride, swapped):
    x, dy = torch.randn(2, 5, 7, 8, requires_grad=True), torch.randn(2, 3, 7 // stride, 8 // stride, requires_grad=True)
    arguments = dy, x, stride, [1, 2 - stride, 1, 2 - stride], 1, swapped
    torch.library.opcheck(torch.ops.imgops.conv2d_weight_gradient, arguments)


@needs_cpu_backend
@pytest.mark.parametrize(("stride", "up"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_weights_gradient_is_laid_out_as_the_weight(stride, up, transposed):
    """Also in the second order, where a network's weights come back transposed."""
    leaf = torch.randn(24, 32, 3, 3, requires_grad=True)
    weight = leaf.transpose(0, 1) if transposed else leaf
    x = torch.randn(2, weight.shape[1], 16, 16, requires_grad=True)
    y = fused_conv2d("cpu", x, weight, None, Epilogue(), stride, (0, 0, 0, 0), up, 1)
    (dweight,) = torch.autograd.grad(y.square().sum(), weight, create_graph=True)
    assert dweight.stride() == weight.stride()
    (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(dx.square().sum(), leaf)
    assert second.stride() == leaf.stride()
