"""What every op does alike, from its fact sheet: opcheck, compiling, exporting, empty tensors, strides, autocast."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from backends import backends
from golden import cases, relative_error
from torch import Tensor

from imgops import _backend
from imgops.ops._registration import WITHOUT_GRADIENT
from tests.op_specs import SCHEMAS, SHEETS, SIZED, as_tuple

SIZES = {"N": 2, "C": 3, "H": 6, "W": 5, "O": 4}
#: the output channels, the style's pixels or the places to sample may be none as well
EMPTY = [(name, empty) for name in SIZED for empty in ("N", "C", "H", "HW", "NC")]
EMPTY += [(name, "O") for name, call in SIZED.items() if any("O" in shape for shape in call.shapes.values())]


def op_of(name: str) -> str:
    """The op of a call that is named "op" or "op, variant"."""
    return name.partition(",")[0]


def on_backends(*names: str, cases: Sequence[tuple[str, ...]] | None = None, **options: Any) -> Any:
    """Parameters, the call's name first: cases, all calls if there are none, on each backend of their ops."""
    return pytest.mark.parametrize(
        (*names, "backend", "device"),
        [
            pytest.param(*case, *pair.values, id="-".join([*case, str(pair.id)]), marks=pair.marks)
            for case in cases or [(name,) for name in SIZED]
            for pair in backends(op_of(case[0]), **options)
        ],
    )


def results(run: Callable[..., Any], inputs: list[Tensor], seed: int = 0) -> list[Tensor]:
    """The outputs, and the gradients of a random sum of them."""
    y = as_tuple(run(*inputs))
    weights = torch.Generator().manual_seed(seed)
    dy = [torch.randn(t.shape, generator=weights).to(t) for t in y]
    return [*y, *torch.autograd.grad(y, inputs, dy)]


def test_the_sheets_name_the_backends_of_the_ops():
    assert {op for op, sheet in SHEETS.items() if not sheet.cuda} == set(_backend.WITHOUT_CUDA)


@pytest.mark.parametrize(
    ("case", "op", "backend", "device"),
    [
        pytest.param(*case.values, op, *pair.values, id=f"{case.id}-{pair.id}", marks=pair.marks)
        for op, sheet in SHEETS.items()
        if sheet.recorded is not None
        for case in cases(op)
        for pair in backends(op)
    ],
)
def test_recorded(case, op, backend, device):
    """What the published operators computed: outputs, gradients, and gradients of those."""
    arrays = {name: t.to(device) for name, t in case.arrays.items()}
    for name, value in SHEETS[op].recorded(dict(arrays), dict(case.params), backend).items():
        assert relative_error(value, arrays[name]) < 1e-10, name


@pytest.mark.parametrize(("backend", "device"), backends(fast_only=True))
@pytest.mark.parametrize("name", SCHEMAS)
def test_opcheck(name, backend, device):
    op = getattr(torch.ops.imgops_triton if backend == "triton" else torch.ops.imgops, name.partition(":")[0], None)
    if op is None or not torch._C._dispatch_has_kernel_for_dispatch_key(op.default.name(), device.upper()):
        pytest.skip(f"{name} has no kernel on this backend")
    # a variant is called as where no gradient is wanted
    differentiable = ":" not in name and name not in WITHOUT_GRADIENT
    arguments = [
        a.to(device).requires_grad_(differentiable and a.dtype == torch.float64) if isinstance(a, Tensor) else a
        for a in SCHEMAS[name]()
    ]
    torch.library.opcheck(op.default, arguments)


@on_backends("name")
def test_compile(name, backend, device):
    call = SIZED[name]
    inputs = [t.float().requires_grad_() for t in call.tensors(device, **SIZES).values()]
    # each case is a program of its own, not a recompilation of the one before
    torch.compiler.reset()
    run = partial(call.run, backend)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for actual, expected in zip(results(compiled, inputs), results(run, inputs), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@on_backends("name", exclude=("triton",), fast_only=True)
def test_export_and_a_copy_of_the_program(name, backend, device):
    class Module(torch.nn.Module):
        def forward(self, *inputs):
            return SIZED[name].run(backend, *inputs)

    inputs = [t.float() for t in SIZED[name].tensors(device, **SIZES).values()]
    program = torch.export.export(Module(), tuple(inputs)).module()
    for graph in (program, copy.deepcopy(program)):
        for actual, expected in zip(as_tuple(graph(*inputs)), as_tuple(Module()(*inputs)), strict=True):
            torch.testing.assert_close(actual, expected)


def outcome(call: Callable[..., Any], inputs: list[Tensor]) -> list[Tensor] | str:
    """Result, gradients, and gradients of their squares; or what the call says of its arguments."""
    try:
        y = as_tuple(call(*inputs))
    except ValueError as error:
        return str(error)
    loss = sum(t.square().sum() for t in y)
    first = torch.autograd.grad(loss, inputs, create_graph=True, materialize_grads=True)
    total = sum(g.square().sum() for g in first)
    if not total.requires_grad:
        return [*y, *first, *(torch.zeros_like(t) for t in inputs)]
    return [*y, *first, *torch.autograd.grad(total, inputs, materialize_grads=True)]


@on_backends("name", "empty", cases=EMPTY, fast_only=True)
def test_empty_dimensions(name, empty, backend, device):
    """Along each dimension in turn: every backend does what the reference does, and nothing comes of no samples."""
    sizes = {letter: 0 if letter in empty else size for letter, size in SIZES.items()}
    inputs = [t.requires_grad_() for t in SIZED[name].tensors(device, **sizes).values()]
    expected, actual = (outcome(partial(SIZED[name].run, impl), inputs) for impl in ("reference", backend))
    if isinstance(expected, str) or isinstance(actual, str):
        assert actual == expected
        assert expected.startswith(f"imgops.{op_of(name)}: ")
        return
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e)
        assert "N" not in empty or not a.any()


def layouts(t: Tensor) -> dict[str, Tensor]:
    """A tensor [N, C, H, W], laid out in memory as users' are."""
    return {
        "expanded": t[:, :1].expand(t.shape),
        "offset": torch.cat([t[:, :1], t], 1)[:, 1:],
        "transposed": t.mT.contiguous().mT,
        "every other": torch.stack([t, t], 4).flatten(3)[..., ::2],
        "channels-last": t.contiguous(memory_format=torch.channels_last),
    }


@pytest.mark.parametrize("layout", ["expanded", "offset", "transposed", "every other", "channels-last"])
@on_backends("name")
def test_any_strides(name, layout, backend, device):
    """Of every input, and of a gradient whose strides no op chose."""
    tensors = SIZED[name].tensors(device, **SIZES).values()
    inputs = [layouts(t.float())[layout] if t.ndim == 4 else t.float() for t in tensors]
    dy: list[Tensor] = []
    orders = []
    for impl, given in ((backend, inputs), ("reference", [t.double() for t in inputs])):
        leaves = [t.detach().requires_grad_() for t in given]
        y = as_tuple(SIZED[name].run(impl, *leaves))
        dy = dy or [torch.randn_like(t if t.ndim == 0 else t[..., :1]).expand(t.shape) for t in y]
        orders.append([*y, *torch.autograd.grad(y, leaves, [d.to(t) for d, t in zip(dy, y, strict=True)])])
    for actual, expected in zip(*orders, strict=True):
        assert relative_error(actual, expected) < SHEETS[op_of(name)].tolerance[torch.float32]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@on_backends("name")
def test_autocast(name, dtype, backend, device):
    """Convolutions are lowered, and rounded; of all other ops it changes nothing."""
    inputs = [t.float().requires_grad_() for t in SIZED[name].tensors(device, **SIZES).values()]
    expected = as_tuple(SIZED[name].run(backend, *inputs))
    with torch.autocast(device, dtype=dtype):
        y = as_tuple(SIZED[name].run(backend, *inputs))
    gradients = torch.autograd.grad([t.float().sum() for t in y], inputs)
    assert all(g.dtype == t.dtype for g, t in zip(gradients, inputs, strict=True))
    sheet = SHEETS[op_of(name)]
    for actual, wanted in zip(y, expected, strict=True):
        if sheet.lowered:
            assert actual.dtype == dtype
            assert relative_error(actual, wanted) < sheet.tolerance[dtype]
        else:
            assert torch.equal(actual, wanted)
            assert actual.dtype == torch.float32
