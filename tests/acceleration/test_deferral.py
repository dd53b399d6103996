"""Results of convolutions that wait for the functions that take them, and inputs that are not made."""

from __future__ import annotations

import copy
import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import imgops
from imgops.nn.joined import _Joined, call_deferred, defer

X = torch.randn(2, 6, 14, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Network(nn.Module):
    def __init__(self, compute, inputs=6):
        super().__init__()
        self.conv = nn.Conv2d(inputs, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.act = nn.ReLU()
        self.compute = compute
        self.flag = False

    def forward(self, x):
        return self.compute(self, x)


def network(compute, inputs=6):
    torch.manual_seed(0)
    made = Network(compute, inputs).double().eval()
    made.norm.running_mean.normal_()
    made.norm.running_var.uniform_(0.5, 2)
    return made


def accelerated_before_its_flag(m):
    """What a network gives with its flag, which is set only after it was traced and accelerated."""
    m.flag = True
    wanted = m(X)
    m.flag = False
    imgops.accelerate(m, verbose=False)
    m.flag = True
    return wanted


def added_in_place(m, x):
    y = m.conv(x)
    y += x
    return y


def sums_of_normalized(m, x):
    y = m.norm(m.conv(x))
    y = y + x
    return m.act(y)


COMBINED = {
    "sum": (lambda m, x: m.conv(x) + x, ["add"]),
    "sum the other way round": (lambda m, x: torch.add(x, m.conv(x)), ["add"]),
    "sum in place": (added_in_place, ["add"]),
    "scaled sum": (lambda m, x: m.conv(x) * 0.2 + x, ["add", "mul"]),
    "scaled down far": (lambda m, x: m.conv(x) * 1e-40 + x, ["mul"]),
    "scaled by 0": (lambda m, x: 0 * m.conv(x) + x, ["mul"]),
    "scaled afterwards": (lambda m, x: (x + m.conv(x)) / 3, ["add", "div"]),
    "two sums": (lambda m, x: m.conv(x) + x + 2 * x, ["add"]),
    "sum and activation": (lambda m, x: F.relu(m.conv(x) + x), ["add", "relu"]),
    "normalized": (sums_of_normalized, ["add", "relu"]),
    "activation": (lambda m, x: F.silu(m.conv(x)), ["silu"]),
    "activation of a normalized one": (lambda m, x: torch.sigmoid(m.norm(m.conv(x))), ["sigmoid"]),
    "activation in place": (lambda m, x: F.leaky_relu(m.conv(x), 0.3, inplace=True), ["leaky_relu"]),
    "method": (lambda m, x: m.conv(x).tanh(), ["tanh"]),
    "clamped": (lambda m, x: F.relu6(m.conv(x)), ["relu6"]),
    "scaled after the activation": (lambda m, x: F.elu(m.conv(x)) * 2, ["elu"]),
    "side by side": (lambda m, x: m.conv(torch.cat([x[:, :2], x[:, :4]], 1)), ["cat"]),
    "enlarged": (lambda m, x: m.conv(F.interpolate(x, scale_factor=2)), ["interpolate"]),
    "enlarged to a size": (lambda m, x: m.conv(F.interpolate(x, (28, 22), mode="nearest")), ["interpolate"]),
    "side by side and enlarged": (
        lambda m, x: m.conv(F.interpolate(torch.cat([x[:, :3], x[:, 3:]], -3), scale_factor=(2.0, 2.0))) * 2,
        ["interpolate", "mul"],
    ),
}


@pytest.mark.parametrize("name", COMBINED)
def test_functions_become_parts_of_a_convolution(name):
    compute, functions = COMBINED[name]
    m = network(compute)
    with torch.no_grad():
        before = m(X)
        imgops.accelerate(m, verbose=False)
        convs, m._deferred = m._deferred, None
        y, deferral = call_deferred(convs, lambda: m(X))
        m._deferred = convs
    torch.testing.assert_close(y, before, rtol=1e-10, atol=1e-10)
    assert sorted(deferral.parts) == functions
    assert not deferral.misused
    with torch.inference_mode():
        torch.testing.assert_close(m(X), before, rtol=1e-10, atol=1e-10)
    # with a gradient nothing waits
    x = X.clone().requires_grad_()
    y = m(x)
    torch.testing.assert_close(y, before, rtol=1e-10, atol=1e-10)
    (found,) = torch.autograd.grad(y.sum(), x)
    (wanted,) = torch.autograd.grad(imgops.restore(m)(x).sum(), x)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    assert "_deferred" not in vars(m)


FORMATS = {
    "sum": lambda m, x: m.conv(x) + x.mT.contiguous().mT,
    "sum the other way round": lambda m, x: x + m.conv(x),
    "sum with a planar image before": lambda m, x: x.contiguous() + m.conv(x),
    "sum with a channels-last image before": lambda m, x: x.contiguous(memory_format=torch.channels_last) + m.conv(x),
    "side by side": lambda m, x: m.conv(torch.cat([x[:, :3], x[:, 3:]], 1)),
    "planar ones beside": lambda m, x: m.conv(torch.cat([x[:, :3], x[:, 3:].contiguous()], 1)),
    "enlarged": lambda m, x: m.conv(F.interpolate(torch.cat([x, x], 1)[:, :6], scale_factor=2)),
}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_results_have_the_memory_format_of_before(name, memory_format):
    m, x = network(FORMATS[name]), X.contiguous(memory_format=memory_format)
    with torch.no_grad():
        before = m(x)
        y = imgops.accelerate(m, verbose=False)(x)
    torch.testing.assert_close(y, before, check_stride=True)


def written_between(m, x):
    x = x.clone()
    y = m.conv(x)
    x.mul_(2)
    return y + x


def residual_written_afterwards(m, x):
    r = x.clone()
    y = m.conv(x) + r
    r.zero_()
    return y


def part_written(m, x):
    a = x[:, :3].clone()
    y = torch.cat([a, x[:, 3:]], 1)
    a.zero_()
    return m.conv(y)


def kept_and_read(m, x):
    y = torch.cat([x[:, :3], x[:, 3:]], 1)
    return m.conv(y) + y


def by_number(m, x):
    m.read = []
    y = m.conv(x) + x
    m.read.append(y)
    return torch.from_numpy(y.numpy()) * 2 + len(y.tolist())


def through_data(m, x):
    y = m.conv(x) + x
    return y.data.detach().clone() + float(y[0, 0, 0, 0]) + y.data_ptr() * 0


def by_views(m, x):
    y = (m.conv(x) + x).contiguous().view(2, -1)
    y[:, :3] = 1
    return y


def with_an_op(m, x):
    return torch.ops.aten.neg(imgops.bias_act(m.conv(x) + x, act="relu"))


def of_another_shape(m, x):
    return m.conv(x) + x[:1] + m.conv.bias.view(-1, 1, 1) + 1


def of_another_dtype(m, x):
    return m.conv(x) + x.float()


def itself(m, x):
    y = m.conv(x) + x
    return y + y


def both(m, x):
    return m.act(m.conv(x) + x) + torch.cat([m.conv.weight.sum((2, 3)).sum(0).view(1, -1, 1, 1).expand_as(x)], 1)


def with_factors_of_no_numbers(m, x):
    return (m.conv(x) + x) * torch.tensor(2.0) / True


def divided(m, x):
    return 1 / (m.conv(x) + x)


def as_an_argument_by_name(m, x):
    return torch.add(input=m.conv(x) + x, other=x, alpha=2)


def read_by_two(m, x):
    y = m.conv(x) + x
    return F.relu(y) + y


def into_other_memory(m, x):
    kept = x.clone()
    torch.sigmoid(m.conv(x), out=kept)
    return torch.tanh(m.conv(x), out=kept)


def of_other_channels(m, x):
    try:
        y = m.conv(x[:, :3])
    except (RuntimeError, ValueError):
        y = m.conv(x)
    return y + x


def enlarged_to_a_square(m, x):
    return m.conv(F.interpolate(x, 28))


def copy_written(m, x):
    torch.cat([x], 1).zero_()
    return m.conv(torch.cat([x], 1))


def two_convolutions(m, x):
    return m.conv(x) + F.conv2d(x, m.conv.weight, padding=1)


def with_a_gradient_inside(m, x):
    y = m.conv(x) + x
    with torch.enable_grad():
        return (y + m.conv(x)).detach()


SEEN = [
    written_between, residual_written_afterwards, part_written, kept_and_read, by_number, through_data, by_views,
    with_an_op, of_another_shape, of_another_dtype, itself, both, with_factors_of_no_numbers, divided,
    as_an_argument_by_name, read_by_two, into_other_memory, of_other_channels, enlarged_to_a_square, copy_written,
    two_convolutions, with_a_gradient_inside,
]  # fmt: skip


@pytest.mark.parametrize("compute", SEEN, ids=lambda compute: compute.__name__)
def test_whoever_sees_a_waiting_result_sees_its_values(compute):
    m = network(compute)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        before = m(X)
        imgops.accelerate(m, verbose=False)
        torch.testing.assert_close(m(X), before, rtol=1e-9, atol=1e-9)
        # also what could not be traced
        defer(m, {m.conv: 1} if compute is not with_a_gradient_inside else {})
        torch.testing.assert_close(m(X), before, rtol=1e-9, atol=1e-9)
        if compute is by_number:
            assert m.read[0].isfinite().all()


def under_autocast(m, x):
    with torch.autocast("cpu", torch.bfloat16):
        return F.relu(m.conv(x))


def before_autocast(m, x):
    y = m.conv(x) + x
    with torch.autocast("cpu", torch.bfloat16):
        return y + y.mean()


def recorded(m, x):
    with torch.enable_grad():
        given = x.clone().requires_grad_()
        y = m.conv(torch.cat([given[:, :3], given[:, 3:]], 1)) * F.interpolate(given, scale_factor=2)[..., ::2, ::2]
        return torch.autograd.grad(y.sum(), given)[0]


def mapped(m, x):
    return torch.vmap(lambda x: F.relu(m.conv(torch.cat([x[None, :3], x[None, 3:]], 1)) + x))(x)


def with_tangents(m, x):
    with torch.autograd.forward_ad.dual_level():
        given = torch.autograd.forward_ad.make_dual(x, x + 1)
        return torch.autograd.forward_ad.unpack_dual(torch.cat([given[:, :3], given[:, 3:]], 1)).tangent


ASKED = [under_autocast, before_autocast, recorded, mapped, with_tangents]


@pytest.mark.parametrize("compute", ASKED, ids=lambda f: f.__name__)
def test_what_a_forward_asks_for_itself(compute):
    m, x = network(compute).float(), X.float()
    with torch.no_grad():
        before = m(x)
        imgops.accelerate(m, verbose=False)
        defer(m, {m.conv: 2})
        torch.testing.assert_close(m(x), before, rtol=1e-5, atol=1e-2 if compute is under_autocast else 1e-5)


def test_a_result_that_is_written_to_before_the_next_layer():
    def compute(m, x):
        y = m.conv(x)
        if m.flag:
            y += x
        return F.relu(m.norm(y))

    m = network(compute)
    with torch.no_grad():
        wanted = accelerated_before_its_flag(m)
        with pytest.warns(UserWarning, match="does not always call the same layers"):
            torch.testing.assert_close(m(X), wanted)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_forward_that_reads_more_than_when_it_was_traced(wrapped):
    def compute(m, x):
        y = m.conv(x)
        z = F.relu(y)
        try:
            return z + y if m.flag else z
        except Exception as error:
            if wrapped:
                raise RuntimeError("a sum") from error
            raise

    m = network(compute)
    with torch.no_grad():
        m.flag = True
        wanted = m(X)
        m.flag = False
        imgops.accelerate(m, verbose=False)
        plain = m(X)
        m.flag = True
        with pytest.warns(UserWarning, match="Network reads results that it did not read when it was traced"):
            torch.testing.assert_close(m(X), wanted)
        torch.testing.assert_close(m(X), wanted)
        m.flag = False
        torch.testing.assert_close(m(X), plain)


@torch.jit.script
def scripted(x):
    return x * torch.sigmoid(x)


class Scripted(nn.Module):
    def forward(self, x):
        return scripted(x)

    def __getstate__(self):
        return {**vars(self), "mark": None}


INSIDE = {
    "calls TorchScript": Scripted,
    "is TorchScript": lambda: torch.jit.trace(nn.ReLU(), X),
    "is compiled": lambda: torch.compile(nn.ReLU(), backend="eager"),
}


@pytest.mark.parametrize("examples", [None, X], ids=["alone", "timed"])
@pytest.mark.parametrize("inside", INSIDE)
def test_modules_inside_that_call_no_functions_of_pytorch(inside, examples):
    m = network(lambda m, x: m.conv(torch.cat([m.inner(torch.cat([x[:, :3], x[:, 3:]], 1))[:, 1:], x[:, :1]], 1)))
    m.inner = INSIDE[inside]()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        before = m(X)
        torch.testing.assert_close(imgops.accelerate(m, examples, verbose=False)(X), before)
        # what reads no values when it is timed, is not used
        m.compute = lambda m, x: scripted(torch.cat([x, x], 1)) + m.conv(torch.cat([x, x], 1)[:, :6]).repeat(1, 2, 1, 1)
        before = imgops.restore(m)(X)
        torch.testing.assert_close(imgops.accelerate(m, X, verbose=False)(X), before)
    assert not isinstance(imgops.restore(m).inner, _Joined)


def test_a_module_inside_is_copied_as_it_says():
    m = network(lambda m, x: m.inner(m.conv(x) + x))
    m.inner = Scripted()
    imgops.accelerate(m, verbose=False)
    assert isinstance(m.inner, _Joined)
    assert "mark" in vars(copy.deepcopy(m).inner)


@pytest.mark.parametrize("read", [lambda m, y, z: m.inner(y), lambda m, y, z: m.inner(z, y)])
def test_a_module_inside_that_reads_more_than_when_it_was_traced(read):
    def compute(m, x):
        y = m.conv(x)
        z = F.relu(y)
        return read(m, y, z) if m.flag else m.inner(z)

    class Inner(Network):
        def forward(self, x, other=None):
            return self.conv(x) + (x if other is None else other)

    m = network(compute)
    m.inner = Inner(None).double()
    with torch.no_grad():
        wanted = accelerated_before_its_flag(m)
        with pytest.warns(UserWarning, match="Network reads results"):
            torch.testing.assert_close(m(X), wanted)
        assert m._deferred is None
        assert m.inner._deferred is not None


@pytest.mark.parametrize("read", [lambda y: y, lambda y: y * 1])
def test_an_alias_that_no_function_made_is_found(read):
    m = network(lambda m, x: read(nn.Parameter(m.conv(x) + x, requires_grad=False)))
    with torch.no_grad():
        wanted = m(X)
        imgops.accelerate(m, verbose=False)
        defer(m, {m.conv: 1})
        with pytest.warns(UserWarning, match="reads results"):
            torch.testing.assert_close(m(X), wanted)


def test_a_result_that_is_kept_is_found():
    def compute(m, x):
        y = m.conv(x)
        if m.flag:
            m.kept = [y]
        return F.relu(y)

    m = network(compute)
    with torch.no_grad():
        imgops.accelerate(m, verbose=False)
        m(X)
        m.flag = True
        with pytest.warns(UserWarning, match="reads results"):
            y = m(X)
        torch.testing.assert_close(F.relu(m.kept[0]), y)


def test_blocks_within_blocks():
    inner = network(lambda m, x: F.relu(m.conv(x) + x))
    outer = network(lambda m, x: m.inner(m.conv(x) + x) * 2 + m.conv.bias.sum())
    outer.inner = inner
    with torch.no_grad():
        before = outer(X)
        imgops.accelerate(outer, verbose=False)
        assert inner._deferred == {inner.conv: 2}
        torch.testing.assert_close(outer(X), before)
        # a copy, and a copy's part, run by themselves
        torch.testing.assert_close(copy.deepcopy(outer)(X), before)
        torch.testing.assert_close(copy.deepcopy(outer).inner(X), inner(X))


def test_what_else_looks_at_a_forward_is_left_alone():
    m = network(lambda m, x: F.relu(m.conv(x) + x))
    with torch.no_grad():
        before = m(X)
        imgops.accelerate(m, verbose=False)
        seen = []
        handle = m.conv.register_forward_hook(lambda module, args, y: seen.append(y.clone()))
        torch.testing.assert_close(m(X), before)
        handle.remove()
        torch.testing.assert_close(F.relu(seen[0] + X), before)
        torch.testing.assert_close(torch.vmap(lambda x: m(x[None])[0])(X), before)
        torch.testing.assert_close(torch.jit.trace(m, X, check_trace=False)(X), before)
        torch.testing.assert_close(torch.export.export(m, (X,)).module()(X), before)
        torch.testing.assert_close(torch.compile(m, backend="eager", fullgraph=True)(X), before)
        with torch.autocast("cpu", torch.bfloat16):
            assert m.float()(X.float()).dtype == imgops.restore(m)(X.float()).dtype


def test_threads_wait_for_themselves():
    m = network(lambda m, x: F.relu(m.conv(x) * 0.5 + x))
    pictures = [torch.randn(1, 6, 8, 8, dtype=torch.float64) for _ in range(4)]
    with torch.no_grad():
        before = [m(x) for x in pictures]
        imgops.accelerate(m, verbose=False)
    found = [[] for _ in pictures]

    def run(i):
        with torch.no_grad():
            found[i].extend(m(pictures[i]) for _ in range(10))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    for wanted, results in zip(before, found, strict=True):
        assert all(torch.allclose(y, wanted) for y in results)
