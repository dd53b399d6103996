"""modulated_conv2d: every backend against the float64 reference, the recorded cases, and autograd's numeric checks."""

from __future__ import annotations

import pytest
import torch
from backends import TOLERANCE, backends
from errors import raises_in_one_line
from golden import cases, relative_error
from torch.autograd import gradcheck, gradgradcheck

import imgops
from imgops import _backend
from imgops.nn import EqualizedConv2d
from imgops.ops import _algorithms, fused_conv2d
from tests.op_specs.modulated_conv2d import MODULATED_CONV, SHEET
from tests.op_specs.upfirdn2d import resample_filter

CPU = _backend.load()["cpu", "cpu"]
IDS = [f"{i}-k{c.kernel}-up{c.up}-down{c.down}" for i, c in enumerate(MODULATED_CONV)]


def operands(case, device, dtype=torch.float64):
    """Tensors of the case by name (x, weight, styles, and noise and bias where it has them), and its arguments."""
    f = resample_filter(case.filter_taps, rank_one=True, device=device)
    kwargs = {
        "act": case.act,
        "clamp": case.clamp,
        "up": case.up,
        "down": case.down,
        "padding": case.padding,
        "demodulate": case.demodulate,
        "flip_weight": case.flip_weight,
        "resample_filter": None if f is None else f / f.abs().sum(),
    }
    pads = (case.padding,) * 4 if isinstance(case.padding, int) else case.padding
    h, w = (
        (size * case.up + pads[i] + pads[i + 1] - case.kernel) // case.down + 1
        for size, i in zip(case.size, (2, 0), strict=True)
    )
    tensors = {
        "x": torch.randn(case.n, case.in_channels, *case.size),
        "weight": torch.randn(case.out_channels, case.in_channels, case.kernel, case.kernel),
        "styles": torch.randn(case.n, case.in_channels),
    }
    if case.noise:
        tensors["noise"] = torch.randn(case.n, 1, h, w)
    if case.bias:
        tensors["bias"] = torch.randn(case.out_channels)
    return {k: t.to(device, dtype) for k, t in tensors.items()}, kwargs


@pytest.fixture
def sized(request, monkeypatch):
    """The paths of the CPU backend for small problems, for small images with many channels, and for large problems."""
    if request.param == "as deep":
        monkeypatch.setattr(_algorithms, "PRODUCT_CHANNELS", 0)
        monkeypatch.setattr(_algorithms, "PRODUCT_PIXELS", 1 << 30)
    if request.param == "as large":
        monkeypatch.setattr(_algorithms, "WINOGRAD_TILES", 0)
        monkeypatch.setattr(_algorithms, "WINOGRAD_CHANNELS", 0)


def sized_backends(**which):
    """``backends``, the CPU's once for each of its paths; parameters (sized, backend, device)."""
    return [
        pytest.param(size, *pair.values, id=f"{size}-{pair.id}", marks=pair.marks)
        for pair in backends(**which)
        for size in (("as small", "as deep", "as large") if pair.values[0] == "cpu" else ("as small",))
    ]


#: the paths that calls of the fact sheet are too small for
other_paths = pytest.mark.parametrize(
    ("sized", "backend", "device"),
    [pair for pair in sized_backends() if pair.values[0] != "as small"],
    indirect=["sized"],
)


def run(tensors, kwargs, backend):
    return imgops.modulated_conv2d(**tensors, **kwargs, impl=backend)


@other_paths
@pytest.mark.parametrize("case", cases("modulated_conv2d"))
def test_recorded_other_paths(case, sized, backend, device):
    arrays = {k: v.to(device) for k, v in case.arrays.items()}
    for name, value in SHEET.recorded(dict(arrays), dict(case.params), backend).items():
        assert relative_error(value, arrays[name]) < 1e-10, name


@pytest.mark.parametrize(("sized", "backend", "device"), sized_backends(fast_only=True), indirect=["sized"])
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("case", MODULATED_CONV, ids=IDS)
def test_agrees_with_reference(case, channels_last, dtype, sized, backend, device):
    tensors, kwargs = operands(case, device)
    tensors = {k: t.to(dtype) for k, t in tensors.items()}
    if channels_last:
        tensors["x"] = tensors["x"].contiguous(memory_format=torch.channels_last)
    exact = {k: t.double().requires_grad_() for k, t in tensors.items()}
    tensors = {k: t.requires_grad_() for k, t in tensors.items()}
    y, y64 = run(tensors, kwargs, backend), run(exact, kwargs, "reference")
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    # the library's convolution rounds its result, and its inputs, to half precision
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 6e-3, torch.bfloat16: 5e-2}[dtype]
    assert relative_error(y, y64) < tolerance
    if dtype in (torch.float64, torch.float32):
        dy = torch.randn_like(y)
        actual = torch.autograd.grad(y, list(tensors.values()), dy)
        expected = torch.autograd.grad(y64, list(exact.values()), dy.double())
        errors = {k: relative_error(g, e) for k, g, e in zip(tensors, actual, expected, strict=True)}
        assert max(errors.values()) < 10 * tolerance, errors


@pytest.mark.parametrize(("sized", "backend", "device"), sized_backends(exclude=("triton",)), indirect=["sized"])
@pytest.mark.parametrize("case", MODULATED_CONV, ids=IDS)
def test_gradcheck(case, sized, backend, device):
    """First and second order for x, weight, styles, noise and bias."""
    case = case._replace(n=1, in_channels=2, out_channels=2, size=(3, 4) if case.down == 1 else (4, 6))
    tensors, kwargs = operands(case, device)
    leaves = [t.requires_grad_() for t in tensors.values()]

    def call(*values):
        return run(dict(zip(tensors, values, strict=True)), kwargs, backend)

    assert gradcheck(call, leaves)
    assert gradgradcheck(call, leaves)


@pytest.mark.parametrize(("sized", "backend", "device"), sized_backends(exclude=("triton",)), indirect=["sized"])
@pytest.mark.parametrize(("up", "down"), [(2, 1), (1, 2)])
def test_gradient_of_the_filter(up, down, sized, backend, device):
    x, w = torch.randn(1, 2, 5, 4, dtype=torch.float64, device=device), torch.randn(2, 2, 3, 3, dtype=torch.float64)
    s, f = torch.randn(1, 2, dtype=torch.float64, device=device), torch.randn(3, 4, dtype=torch.float64, device=device)

    def call(x, f):
        return imgops.modulated_conv2d(
            x, w.to(device), s, up=up, down=down, padding=1, resample_filter=f, act="lrelu", impl=backend
        )

    assert gradcheck(call, (x.requires_grad_(), f.requires_grad_()))
    assert gradgradcheck(call, (x, f))


@other_paths
@pytest.mark.parametrize("case", MODULATED_CONV[:3], ids=IDS[:3])
def test_compile_other_paths(case, sized, backend, device):
    tensors, kwargs = operands(case, device, torch.float32)
    leaves = [t.requires_grad_() for t in tensors.values()]

    def call(*values):
        return run(dict(zip(tensors, values, strict=True)), kwargs, backend)

    # each case is a program of its own, not a recompilation of the one before
    torch.compiler.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    y, expected = compiled(*leaves), call(*leaves)
    torch.testing.assert_close(y, expected)
    for a, e in zip(torch.autograd.grad(y.sum(), leaves), torch.autograd.grad(expected.sum(), leaves), strict=True):
        torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("layer", ["modulated", "plain"])
def test_export_leaves_the_batch_open(layer, up):
    """One program for any batch, on both sides of the size that the choice of an algorithm turns on."""
    f = imgops.setup_filter([1, 3, 3, 1])
    w = torch.randn(4, 3, 3, 3)

    class Layer(torch.nn.Module):
        def forward(self, x):
            s = x.mean((2, 3))
            return imgops.modulated_conv2d(x, w, s, padding=1, up=up, resample_filter=f, act="lrelu")

    module = Layer() if layer == "modulated" else EqualizedConv2d(3, 4, 3, up=up)
    batch = torch.export.Dim("batch", min=2, max=4096)
    program = torch.export.export(module, (torch.randn(2, 3, 16, 16),), dynamic_shapes=({0: batch},)).module()
    for n in (2, 3, 9):
        x = torch.randn(n, 3, 16, 16)
        torch.testing.assert_close(program(x), module(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("backend", "device"), backends())
@pytest.mark.parametrize("up", [1, 2])
def test_float16_does_not_overflow(up, backend, device):
    """Weights and styles whose product leaves float16 come out right: both are normalized first."""
    x = torch.randn(2, 8, 6, 6, device=device)
    w, s = torch.randn(4, 8, 3, 3, device=device) * 300, torch.randn(2, 8, device=device) * 300
    f = imgops.setup_filter([1, 3, 3, 1], device=device)
    kwargs = {"padding": 1, "up": up, "resample_filter": f}
    y = imgops.modulated_conv2d(x.half(), w, s, **kwargs, impl=backend)
    expected = imgops.modulated_conv2d(x.half().double(), w.double(), s.double(), **kwargs, impl="reference")
    assert y.dtype == torch.float16
    assert relative_error(y, expected) < 1e-2


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_float16_of_zeros(backend):
    """An output whose weights are zeros, and a sample whose styles are, stay zeros."""
    w, s = torch.randn(4, 8, 3, 3), torch.randn(2, 8)
    w[1], s[1] = 0, 0
    y = imgops.modulated_conv2d(torch.randn(2, 8, 6, 6).half(), w, s, padding=1, impl=backend)
    assert y.isfinite().all()
    assert not y[:, 1].any()
    assert not y[1].any()
    assert y[0, 0].any()


@pytest.mark.parametrize("size", [8, 40])
def test_autocast_of_a_plain_layer_does_not_depend_on_the_size(size):
    layer = EqualizedConv2d(3, 4, 3, act="lrelu")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.randn(1, 3, size, size)).dtype == torch.bfloat16


def test_strides_of_input_and_gradient():
    """Expanded, sliced and channels-last inputs, and a channels-last gradient, on the path of large problems."""
    w, s = torch.randn(4, 3, 3, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    base = torch.randn(2, 3, 40, 80, dtype=torch.float64)
    inputs = [base[:, :, :, ::2], base[:1, :, :, :40].expand(2, 3, 40, 40), base.transpose(2, 3)[:, :, :40]]
    for x in [*inputs, inputs[0].contiguous(memory_format=torch.channels_last)]:
        x = x.detach().requires_grad_()
        y = imgops.modulated_conv2d(x, w, s, padding=1)
        expected = imgops.modulated_conv2d(x, w, s, padding=1, impl="reference")
        dy = torch.randn_like(expected).contiguous(memory_format=torch.channels_last)
        assert relative_error(y, expected) < 1e-12
        (dx,), (wanted,) = torch.autograd.grad(y, x, dy), torch.autograd.grad(expected, x, dy)
        assert relative_error(dx, wanted) < 1e-12


@pytest.mark.parametrize("shape", [(1, 2, 3, 3), (2, 2, 1, 2), (2, 2, 2, 1), (2, 1, 3, 3)], ids=str)
@pytest.mark.parametrize("factors", [(1, 1), (2, 1), (1, 2)], ids=str)
@pytest.mark.parametrize(("backend", "device"), backends())
def test_strides_of_a_weight_with_a_side_of_one(shape, factors, backend, device):
    """They are ambiguous, and of some PyTorch's own convolution has no gradient. Random calls found it."""
    up, down = factors
    x = torch.randn(1, 6, 7, shape[1], device=device).permute(0, 3, 1, 2).requires_grad_()
    styles = torch.randn(1, shape[1], device=device, requires_grad=True)

    def gradients(weight: torch.Tensor, impl: str) -> tuple[torch.Tensor, ...]:
        arguments = {"padding": 2, "demodulate": False, "up": up, "down": down}
        y = imgops.modulated_conv2d(x, weight, styles, **arguments, impl=impl)
        return torch.autograd.grad(y.square().sum(), [x, weight, styles])

    dense = torch.randn(shape, device=device)
    expected = gradients(dense.clone().requires_grad_(), "reference")
    for order in ((2, 0, 3, 1), (0, 2, 3, 1), (1, 0, 2, 3), (3, 2, 1, 0), (1, 2, 3, 0)):
        weight = dense.permute(order).contiguous().permute([order.index(i) for i in range(4)])
        for gradient, wanted in zip(gradients(weight.requires_grad_(), backend), expected, strict=True):
            assert relative_error(gradient, wanted) < 1e-5


@pytest.mark.parametrize("shape", [(8, 0, 3, 3), (0, 4, 3, 3), (8, 4, 0, 3)])
def test_a_convolution_with_an_empty_weight_is_refused(shape):
    with pytest.raises(ValueError, match="weight must have input channels, output channels and taps; got shape"):
        imgops.modulated_conv2d(torch.ones(2, shape[1], 16, 16), torch.ones(shape), torch.ones(2, shape[1]))


def test_backend_is_chosen_for_the_whole_call():
    x, w, s = torch.randn(1, 2, 4, 4), torch.randn(2, 2, 3, 3), torch.randn(1, 2)
    with imgops.use_impl("reference"):
        inside = imgops.modulated_conv2d(x, w, s)
    torch.testing.assert_close(inside, imgops.modulated_conv2d(x, w, s))
    with pytest.raises(RuntimeError, match="the cuda backend is not available on cpu"):
        imgops.modulated_conv2d(x, w, s, impl="cuda")


@pytest.mark.parametrize(("up", "down"), [(2, 1), (1, 2)])
@pytest.mark.parametrize(("convolves", "filters"), [("cpu", "triton"), ("triton", "cpu")])
def test_one_backend_convolves_and_another_filters(convolves, filters, up, down, monkeypatch):
    """As the automatic choice may want it; gradients of any order run on the backend of their forward."""
    for backend in (convolves, filters):
        status = _backend.load()[backend, "cpu"]
        if not status.available:
            pytest.skip(f"{backend}: {status.reason}")
    case = MODULATED_CONV[0]._replace(up=up, down=down, size=(8, 6))
    tensors, kwargs = operands(case, "cpu", torch.float32)
    monkeypatch.setattr(_algorithms, "WINOGRAD_TILES", 0)
    monkeypatch.setattr(fused_conv2d, "choose_resampler", lambda *args: filters)
    orders = []
    for backend in (convolves, "reference"):
        inputs = {k: t.clone().requires_grad_() for k, t in tensors.items()}
        y = run(inputs, kwargs, backend)
        gradients = torch.autograd.grad(y.square().sum(), list(inputs.values()), create_graph=True)
        (second,) = torch.autograd.grad(gradients[0].square().sum(), inputs["weight"])
        orders.append((y, *gradients, second))
    for actual, expected in zip(*orders, strict=True):
        assert relative_error(actual, expected.double()) < 1e-5


X, W, S = torch.zeros(2, 3, 8, 8), torch.zeros(4, 3, 3, 3), torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("error", "match", "args", "kwargs"),
    [
        (ValueError, "x must have 4 dimensions", (X[0], W, S), {}),
        (ValueError, r"weight must have shape \[4, 3, 3, 3\]", (X, torch.zeros(4, 2, 3, 3), S), {}),
        (ValueError, r"styles must have shape \[2, 3\]; got \[2, 4\]", (X, W, torch.zeros(2, 4)), {}),
        (
            ValueError,
            r"noise must have shape \[1 or 2, 1, 8, 8\]",
            (X, W, S),
            {"noise": torch.zeros(2, 1, 4, 4), "padding": 1},
        ),
        (ValueError, r"bias must have shape \[4\]", (X, W, S), {"bias": torch.zeros(3)}),
        (ValueError, "bias must be on x's device", (X, W, S), {"bias": torch.zeros(4, device="meta")}),
        (ValueError, "up must be >= 1", (X, W, S), {"up": 0}),
        (TypeError, "down must be an int", (X, W, S), {"down": 2.0}),
        (ValueError, "up and down cannot both be above 1", (X, W, S), {"up": 2, "down": 2}),
        (ValueError, "padding must be >= 0", (X, W, S), {"padding": -1}),
        (ValueError, "act must be one of", (X, W, S), {"act": "gelu"}),
        (ValueError, "at least one pixel", (X[:, :, :2, :2], W, S), {}),
        (TypeError, "resample_filter must be a torch.Tensor", (X, W, S), {"up": 2, "resample_filter": [1, 3, 3, 1]}),
        (
            ValueError,
            "resample_filter must have 1 or 2 dimensions",
            (X, W, S),
            {"resample_filter": torch.zeros(1, 4, 4)},
        ),
        (TypeError, "x must have one of the dtypes", (X.long(), W, S), {}),
    ],
)
def test_bad_input(error, match, args, kwargs):
    raises_in_one_line(error, match, lambda: imgops.modulated_conv2d(*args, **kwargs))


@pytest.mark.parametrize(
    "impl", ["reference", pytest.param("cpu", marks=pytest.mark.skipif(not CPU.available, reason=CPU.reason))]
)
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_input_gain_is_a_factor_on_x_that_the_norms_leave_alone(impl, demodulate, dtype):
    x, weight, styles = (torch.randn(s, dtype=dtype) for s in ((2, 4, 6, 5), (3, 4, 3, 3), (2, 4)))
    gain = torch.tensor(0.3, dtype=dtype, requires_grad=True)
    found = imgops.modulated_conv2d(x, weight, styles, padding=1, demodulate=demodulate, input_gain=gain, impl=impl)
    wanted = imgops.modulated_conv2d(0.3 * x, weight, styles, padding=1, demodulate=demodulate, impl="reference")
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    (slope,) = torch.autograd.grad(found.sum(), gain)
    torch.testing.assert_close(slope, (wanted / 0.3).sum(), rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="input_gain"):
        imgops.modulated_conv2d(x, weight, styles, input_gain=torch.ones(2, dtype=dtype), impl=impl)
