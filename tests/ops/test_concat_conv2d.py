"""``concat_conv2d``, a convolution of several images or of an up-sampled one: its kernel, and when it runs."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from backends import TOLERANCE, backends
from golden import relative_error

from imgops._epilogue import Epilogue
from imgops.ops._registration import namespace
from imgops.ops.concat_conv2d import concat_conv2d
from imgops.reference.bias_act import bias_act
from imgops.reference.conv2d import concatenated

pytestmark = pytest.mark.parametrize(("backend", "device"), backends(exclude=("reference", "cuda", "triton")))
#: (h, w) of the parts: rows within a vector, of a few tiles, and longer ones, of any width
SIZES = [(1, 1), (1, 7), (2, 2), (3, 5), (4, 4), (5, 8), (8, 3), (9, 12), (13, 17), (6, 31), (18, 35), (70, 5)]
CHANNELS = [(3,), (4, 1), (8, 2, 5), (1, 1, 1, 1), (40, 3, 7, 2, 30), (0, 5, 0)]
#: left, right, top, bottom
PADDINGS = [(1, 1, 1, 1), (0, 0, 0, 0), (2, 2, 2, 2), (1, 0, 2, 1), (0, 1, 1, 2), (2, 1, 0, 0)]
LAYOUTS = ["contiguous", "sliced", "channels-last", "transposed", "expanded"]


def surrounded(shape, dtype=torch.float64, layout="contiguous"):
    """Random values, beside NaNs in the same memory where the layout leaves room."""
    n, c, h, w = shape
    if layout == "sliced":
        t = torch.full((n, c + 2, h, w), torch.nan, dtype=dtype)[:, 1:-1].normal_()
    elif layout == "transposed":
        t = torch.randn(n, c, w, h, dtype=dtype).mT
    elif layout == "expanded":
        t = torch.randn(1, c, h, w, dtype=dtype).expand(shape)
    else:
        t = torch.randn(shape, dtype=dtype)
    return t.contiguous(memory_format=torch.channels_last) if layout == "channels-last" else t


def plain(parts, weight, epilogue, nearest, padding, residual=None, residual_scale=1.0):
    """The same in PyTorch's own operators, in float64."""
    parts = [t.double() for t in parts]
    u = F.conv2d(F.pad(concatenated(parts, nearest), list(padding)), weight.double())
    u = u if residual is None else u + residual_scale * residual.double()
    return bias_act(u, epilogue.to(torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("nearest", [1, 2])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_agrees_with_the_copy(size, nearest, dtype, backend, device):
    torch.manual_seed(0)
    pick = random.Random(f"{size}{nearest}")
    for padding in PADDINGS:
        h, w = nearest * size[0] + sum(padding[2:]) - 2, nearest * size[1] + sum(padding[:2]) - 2
        if min(h, w) < 1:
            continue
        n, outputs, channels = pick.choice([1, 3]), pick.choice([1, 3, 8, 21]), pick.choice(CHANNELS)
        parts = [surrounded((n, c, *size), dtype, pick.choice(LAYOUTS)) for c in channels]
        weight = torch.randn(outputs, sum(channels), 3, 3, dtype=dtype) / (9 * sum(channels)) ** 0.5
        made = [torch.randn(s, dtype=dtype) for s in ((outputs,), (n, outputs), (n, 1, h, w), (n, outputs, h, w))]
        b, scale, noise, residual = (t if pick.random() < 0.5 else None for t in made)
        epilogue = Epilogue(b, scale, noise, *pick.choice([("linear", 0.0, 1.0, -1.0), ("lrelu", 0.2, 1.3, 8.0)]))
        found = namespace(backend).concat_conv2d(parts, weight, nearest, padding, residual, 0.7, *epilogue)
        expected = plain(parts, weight, epilogue, nearest, padding, residual, 0.7)
        assert relative_error(found, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("channels", [(512,), (100, 200, 300)], ids=str)
@pytest.mark.parametrize(("nearest", "error"), [(1, 1e-6), (2, 6e-7)])
def test_rounding_in_many_channels(channels, nearest, error, backend, device):
    """An up-sampled image is transformed by sums alone."""
    torch.manual_seed(0)
    parts = [torch.randn(1, c, 32, 32) for c in channels]
    weight = torch.randn(16, sum(channels), 3, 3)
    found = namespace(backend).concat_conv2d(parts, weight, nearest, (1, 1, 1, 1), None, 1.0, *Epilogue())
    expected = plain(parts, weight, Epilogue(), nearest, (1, 1, 1, 1))
    assert (found - expected).norm() < error * expected.norm()


def used(monkeypatch):
    """Collects the numbers of parts that the op is called with."""
    ops, calls = namespace("cpu"), []
    kernel = ops.concat_conv2d
    monkeypatch.setattr(ops, "concat_conv2d", lambda parts, *rest: calls.append(len(parts)) or kernel(parts, *rest))
    return calls


@pytest.mark.parametrize("nearest", [1, 2])
def test_reads_parts_in_place_where_that_is_the_kernel(nearest, backend, device, monkeypatch):
    calls = used(monkeypatch)
    parts, weight = [torch.randn(2, 5, 20, 22), torch.randn(2, 3, 20, 22)], torch.randn(4, 8, 3, 3)
    residual = torch.randn(2, 4, 20 * nearest, 22 * nearest)
    padding, epilogue = (1, 1, 1, 1), Epilogue(torch.randn(4), act="lrelu", alpha=0.1)

    def agrees(parts=parts, weight=weight, backend=backend, tolerance=TOLERANCE[torch.float32]):
        y = concat_conv2d(backend, parts, weight, epilogue, nearest, padding, residual, 0.5)
        assert relative_error(y, plain(parts, weight, epilogue, nearest, padding, residual, 0.5)) < tolerance
        return y

    agrees()
    agrees(weight=weight.double())
    agrees([torch.cat(parts, 1)])
    agrees([parts[0], parts[1].contiguous(memory_format=torch.channels_last)])
    with torch.no_grad():
        agrees(weight=weight.clone().requires_grad_())
    assert calls == [2, 2, 1, 2, 2]
    y = agrees(weight=weight.clone().requires_grad_())
    assert y.grad_fn is not None
    agrees([t.contiguous(memory_format=torch.channels_last) for t in parts])
    agrees([parts[0], parts[1].double()])
    agrees([t.half() for t in parts], tolerance=TOLERANCE[torch.float16])
    agrees(backend="reference")
    with torch.autocast("cpu", torch.bfloat16):
        assert concat_conv2d(backend, parts, weight, epilogue, nearest, padding).dtype == torch.bfloat16
    vmapped = torch.func.vmap(lambda t: concat_conv2d(backend, [t, parts[1]], weight, epilogue, nearest, padding))
    with torch.no_grad():
        y = vmapped(torch.stack([parts[0], 2 * parts[0]]))
    assert relative_error(y[0], plain(parts, weight, epilogue, nearest, padding)) < TOLERANCE[torch.float32]
    assert len(calls) == 5


@pytest.mark.parametrize("nearest", [1, 2])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_whole(nearest, dynamic, backend, device):
    weight, epilogue, padding = torch.randn(4, 8, 3, 3), Epilogue(torch.randn(4), act="relu"), (1, 1, 1, 1)
    torch.compiler.reset()

    @torch.compile(fullgraph=True, backend="aot_eager", dynamic=dynamic)
    def compiled(x, z):
        return concat_conv2d(backend, [x, z * 2], weight, epilogue, nearest, padding)

    for size in (20, 24):
        x, z = torch.randn(2, 5, size, size), torch.randn(2, 3, size, size)
        with torch.no_grad():
            found = compiled(x, z)
        assert relative_error(found, plain([x, z * 2], weight, epilogue, nearest, padding)) < TOLERANCE[torch.float32]


def test_empty_images(backend, device):
    """A batch of none is one of none, by the op and by the copy; without channels nothing is summed."""
    weight, op = torch.randn(4, 8, 3, 3), namespace(backend).concat_conv2d
    parts = [torch.randn(0, 5, 20, 20), torch.randn(0, 3, 20, 20)]
    assert op(parts, weight, 2, (1, 1, 1, 1), None, 1.0, *Epilogue()).shape == (0, 4, 40, 40)
    assert concat_conv2d(backend, parts, weight, Epilogue(), 2, (1, 1, 1, 1)).shape == (0, 4, 40, 40)
    nothing = torch.randn(2, 0, 9, 9)
    y = op([nothing, nothing], weight[:, :0], 2, (1, 1, 1, 1), None, 1.0, *Epilogue(torch.ones(4)))
    assert torch.equal(y, torch.ones(2, 4, 18, 18))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"parts": []}, "there must be a part"),
        ({"parts": [torch.ones(1, 8, 4)]}, r"parts must be \[N, C, H, W\]"),
        ({"parts": [torch.ones(1, 4, 4, 4), torch.ones(1, 4, 4, 5)]}, r"parts must be \[N, C, H, W\]"),
        ({"parts": [torch.ones(1, 7, 4, 4)]}, "weight must have the channels of all parts"),
        ({"parts": [torch.ones(1, 8, 4, 4, dtype=torch.float64)]}, "must have one dtype"),
        ({"weight": torch.ones(4, 8, 5, 5)}, "the weight must be 3 x 3"),
        ({"nearest": 3}, "nearest 1 or 2"),
        ({"padding": (-3, 0, 0, 0)}, "padding leaves no pixel"),
        ({"residual": torch.ones(1, 4, 3, 4)}, "residual must have the output's shape"),
    ],
)
def test_the_kernel_refuses_what_does_not_fit(given, message, backend, device):
    arguments = {
        "parts": [torch.ones(1, 8, 4, 4)], "weight": torch.ones(4, 8, 3, 3), "nearest": 1, "padding": (1, 1, 1, 1),
        "residual": None, **given,
    }  # fmt: skip
    with pytest.raises(RuntimeError, match=f"imgops::concat_conv2d: .*{message}"):
        namespace(backend).concat_conv2d(*arguments.values(), 1.0, *Epilogue())


def test_layers_are_checked_as_by_conv2d(backend, device):
    parts = [torch.ones(1, 8, 20, 20)]
    for weight, epilogue, residual, message in (
        (torch.ones(4, 7, 3, 3), Epilogue(), None, r"weight must have shape \[4, 8, 3, 3\]; got \[4, 7, 3, 3\]"),
        (torch.ones(4, 8, 3, 3), Epilogue(torch.ones(5)), None, r"bias must have shape \[4\]; got \[5\]"),
        (torch.ones(4, 8, 3, 3), Epilogue(), torch.ones(1, 4, 20, 20), r"residual must have shape \[1, 4, 40, 40\]"),
    ):
        with pytest.raises(ValueError, match=f"imgops.conv2d: {message}"):
            concat_conv2d(backend, parts, weight, epilogue, 2, (1, 1, 1, 1), residual)
