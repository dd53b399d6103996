"""Every twin against the float64 reference on the device: forward, every promised order of backward, recorded cases."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# the tests' shapes, tolerances and recorded cases are the harness's own
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from cases import MODULATED_CONV, RESAMPLE, ModulatedConv, resample_filter
from golden import cases as recorded_cases
from golden import relative_error

import imgops
from imgops import _backend
from imgops.ops.bias_act import activation_arguments, fused_bias_act
from imgops.reference.bias_act import ACTIVATIONS

#: largest error over largest magnitude, by op: one rounding at the end, or one at each pass of a convolution
TOLERANCE = {
    "bias_act": {torch.float64: 1e-12, torch.float32: 4e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2},
    "upfirdn2d": {torch.float64: 1e-12, torch.float32: 4e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2},
    "modulated_conv2d": {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 8e-2},
}
#: each order of gradient rounds once more
ORDER_FACTOR = 4.0
RECORDED_TOLERANCE = 1e-10

Function = Callable[..., Tensor]
Check = tuple[str, Callable[[], dict[str, Any]]]


def derivatives(
    function: Function, inputs: Sequence[Tensor], seeds: Sequence[Tensor], order: int
) -> list[list[Tensor]]:
    """Output, gradients, and gradients of <v, gradients>, up to ``order``; ``seeds`` are dy and one v an input."""
    inputs = [t.detach().requires_grad_() for t in inputs]
    y = function(*inputs)
    results = [[y]]
    dy = seeds[0].to(y.dtype).requires_grad_()
    if order >= 1:
        first = torch.autograd.grad(y, inputs, dy, create_graph=order >= 2)
        results.append(list(first))
    if order >= 2:
        total = sum((g * v.to(g.dtype)).sum() for g, v in zip(first, seeds[1:], strict=True))
        second = torch.autograd.grad(total, [dy, *inputs], allow_unused=True)
        results.append([torch.zeros_like(t) if g is None else g for g, t in zip(second, [dy, *inputs], strict=True)])
    return results


def _worst_error(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest error relative to its tensor; NaN where a value is NaN, which ``max`` would lose."""
    pairs = [(a.detach().double(), e.detach()) for a, e in zip(actual, expected, strict=True) if e.numel()]
    largest = max((float(e.abs().max()) for _, e in pairs), default=0.0)
    # what is zero but for rounding is held against the largest of its order
    errors = [float((a - e).abs().max()) / max(float(e.abs().max()), 1e-2 * largest, 1e-30) for a, e in pairs]
    return math.nan if any(map(math.isnan, errors)) else max(errors, default=0.0)


def compare(
    op: str, twin: str, make: Callable[[str], Function], inputs: Sequence[Tensor], dtype: torch.dtype
) -> dict[str, Any]:
    """Errors of a twin by order; ``make(twin)`` is the function of the inputs, the first of which is the image."""
    reference, fast = make("reference"), make(twin)
    wide = [t.double() for t in inputs]
    shape = reference(*wide).shape
    seeds = [torch.randn(shape, device=inputs[0].device).to(dtype), *(torch.randn_like(t) for t in inputs)]
    expected = derivatives(reference, wide, [s.double() for s in seeds], 2)
    actual = derivatives(fast, inputs, seeds, 2)
    errors, passed = {}, True
    for order, (a, e) in enumerate(zip(actual, expected, strict=True)):
        worst = _worst_error(a, e)
        errors[f"order{order}"] = worst
        passed &= worst <= TOLERANCE[op][dtype] * ORDER_FACTOR**order
    return {"errors": errors, "passed": passed}


def _layouts(x: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield "nchw", x
    yield "nhwc", x.contiguous(memory_format=torch.channels_last)


def _bias_act_checks(
    twin: str, device: str, dtypes: Sequence[torch.dtype], shapes: Sequence[tuple[int, ...]]
) -> Iterator[Check]:
    for shape, dtype, act in itertools.product(shapes, dtypes, ACTIVATIONS):
        for modulated in (False, True):
            arguments = activation_arguments("bias_act", act, None, 1.3, 0.8 if modulated else None)

            def run(
                shape: Any = shape,
                dtype: Any = dtype,
                act: str = act,
                modulated: bool = modulated,
                arguments: Any = arguments,
            ) -> dict[str, Any]:
                wide = torch.float64 if dtype == torch.float64 else torch.float32
                operands = [torch.randn(shape[1], device=device, dtype=wide)]
                if modulated:
                    operands += [torch.randn(shape[:2], device=device, dtype=wide)]
                    operands += [torch.randn(shape[0], 1, *shape[2:], device=device, dtype=wide)]

                def make(name: str) -> Function:
                    def function(
                        x: Tensor, b: Tensor, scale: Tensor | None = None, noise: Tensor | None = None
                    ) -> Tensor:
                        return fused_bias_act(name, x, b, scale, noise, 1, act, *arguments)

                    return function

                results = {}
                for layout, x in _layouts(torch.randn(shape, device=device).to(dtype)):
                    results[layout] = compare("bias_act", twin, make, [x, *operands], dtype)
                return _merged(results)

            yield f"bias_act/{twin}/{shape}/{_name(dtype)}/{act}{' modulated' if modulated else ''}", run


def _upfirdn2d_checks(
    twin: str, device: str, dtypes: Sequence[torch.dtype], problems: Sequence[Any]
) -> Iterator[Check]:
    for (i, case), dtype, rank_one in itertools.product(enumerate(problems), dtypes, (False, True)):
        if rank_one and (case.taps is None or len(case.taps) == 1):
            continue

        def run(case: Any = case, dtype: Any = dtype, rank_one: bool = rank_one) -> dict[str, Any]:
            f = resample_filter(case.taps, rank_one, device)

            def make(name: str) -> Function:
                def function(x: Tensor) -> Tensor:
                    return imgops.upfirdn2d(
                        x, f, case.up, case.down, case.padding, case.flip_filter, case.gain, impl=name
                    )

                return function

            results = {}
            for layout, x in _layouts(torch.randn(case.shape, device=device).to(dtype)):
                results[layout] = compare("upfirdn2d", twin, make, [x], dtype)
            return _merged(results)

        yield f"upfirdn2d/{twin}/{i} {case.shape}/{_name(dtype)}{'/rank one' if rank_one else ''}", run


def _modulated_checks(
    twin: str, device: str, dtypes: Sequence[torch.dtype], problems: Sequence[ModulatedConv]
) -> Iterator[Check]:
    for (i, case), dtype in itertools.product(enumerate(problems), dtypes):

        def run(case: ModulatedConv = case, dtype: Any = dtype) -> dict[str, Any]:
            wide = torch.float64 if dtype == torch.float64 else torch.float32
            f = resample_filter(case.filter_taps, True, device)
            x = torch.randn(case.n, case.in_channels, *case.size, device=device).to(dtype)
            weight = torch.randn(case.out_channels, case.in_channels, case.kernel, case.kernel, device=device).to(wide)
            operands = {"styles": torch.randn(case.n, case.in_channels, device=device).to(wide) + 1}
            if case.bias:
                operands["bias"] = torch.randn(case.out_channels, device=device).to(wide)

            def call(name: str, x: Tensor, weight: Tensor, noise: Tensor | None, tensors: dict[str, Tensor]) -> Tensor:
                return imgops.modulated_conv2d(
                    x,
                    weight,
                    **tensors,
                    noise=noise,
                    act=case.act,
                    clamp=case.clamp,
                    up=case.up,
                    down=case.down,
                    padding=case.padding,
                    resample_filter=f,
                    demodulate=case.demodulate,
                    flip_weight=case.flip_weight,
                    impl=name,
                )

            noise = None
            if case.noise:
                size = call(
                    "reference", x.double(), weight.double(), None, {k: t.double() for k, t in operands.items()}
                ).shape[2:]
                noise = torch.randn(case.n, 1, *size, device=device).to(wide)

            def make(name: str) -> Function:
                def function(x: Tensor, weight: Tensor, *tensors: Tensor) -> Tensor:
                    extra = noise is not None
                    named = dict(zip(operands, tensors[extra:], strict=True))
                    return call(name, x, weight, tensors[0] if extra else None, named)

                return function

            inputs = [weight, *([] if noise is None else [noise]), *operands.values()]
            results = {}
            for layout, image in _layouts(x):
                results[layout] = compare("modulated_conv2d", twin, make, [image, *inputs], dtype)
            return _merged(results)

        yield f"modulated_conv2d/{twin}/{i}/{_name(dtype)}", run


def _recorded_checks(twin: str, device: str, most: int | None) -> Iterator[Check]:
    """The cases of tests/data in float64: output, gradients, and where they were recorded, gradients of those."""
    for op in RECORDED:
        for case in itertools.islice(recorded_cases(op), most):

            def run(op: str = op, case: Any = case.values[0]) -> dict[str, Any]:
                a = {name: t.to(device) for name, t in case.arrays.items()}
                got = RECORDED[op](a, dict(case.params), twin)
                errors = {name: relative_error(value, a[name]) for name, value in got.items()}
                return {"errors": errors, "passed": all(e <= RECORDED_TOLERANCE for e in errors.values())}

            yield f"recorded/{twin}/{case.id}", run


def _recorded_upfirdn2d(a: dict[str, Tensor], params: dict[str, Any], twin: str) -> dict[str, Tensor]:
    del params["filter"]
    x = a["x"].requires_grad_()
    y = imgops.upfirdn2d(x, a.get("f"), **params, impl=twin)
    return {"y": y, "dx": torch.autograd.grad(y, x, a["dy"])[0]}


def _recorded_bias_act(a: dict[str, Tensor], params: dict[str, Any], twin: str) -> dict[str, Tensor]:
    x, dy = a["x"].requires_grad_(), a["dy"].requires_grad_()
    b = a["b"].requires_grad_() if "b" in a else None
    y = imgops.bias_act(x, b, **params, impl=twin)
    dx, *rest = torch.autograd.grad(y, [x] if b is None else [x, b], dy, create_graph=True)
    d2x, ddy = torch.autograd.grad((dx * a["v"]).sum(), [x, dy], allow_unused=True)
    got = {"y": y, "dx": dx, "ddy": ddy} | ({"db": rest[0]} if rest else {})
    return got | {"d2x": torch.zeros_like(x) if d2x is None else d2x}


def _recorded_modulated_conv2d(a: dict[str, Tensor], params: dict[str, Any], twin: str) -> dict[str, Tensor]:
    taps = torch.tensor(params.pop("resample_filter"), dtype=torch.float32)
    f = (taps.outer(taps) / taps.sum() ** 2).to(a["x"].device)
    inputs = [a[name].requires_grad_() for name in ("x", "w", "s")]
    y = imgops.modulated_conv2d(*inputs, noise=a.get("noise"), resample_filter=f, **params, impl=twin)
    first = torch.autograd.grad(y, inputs, a["dy"], create_graph=True)
    total = sum((g * a[name]).sum() for g, name in zip(first, ("vx", "vw", "vs"), strict=True))
    second = torch.autograd.grad(total, inputs)
    names = ("y", "dx", "dw", "ds", "hx", "hw", "hs")
    return dict(zip(names, [y, *first, *second], strict=True))


RECORDED = {
    "upfirdn2d": _recorded_upfirdn2d,
    "bias_act": _recorded_bias_act,
    "modulated_conv2d": _recorded_modulated_conv2d,
}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _merged(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    errors = {f"{layout} {k}": v for layout, r in results.items() for k, v in r["errors"].items()}
    return {"errors": errors, "passed": all(r["passed"] for r in results.values())}


def checks(device: str, dry: bool) -> list[Check]:
    """Every check as (name, what runs it), those of all twins and ops in turn, so that a cut-off leaves none out."""
    dtypes = (torch.float32,) if dry else (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    shapes = [(2, 3, 5, 7)] if dry else [(2, 3, 5, 7), (3, 16, 9, 9), (2, 40, 16, 16)]
    resample, modulated = (RESAMPLE[:1], MODULATED_CONV[:1]) if dry else ([*RESAMPLE, *LARGE], MODULATED_CONV)
    streams = []
    for twin in _backend.TWINS:
        if twin == "reference" or not _backend.load()[twin, torch.device(device).type].available:
            continue
        streams += [
            _recorded_checks(twin, device, 1 if dry else None),
            _upfirdn2d_checks(twin, device, dtypes, resample),
            _modulated_checks(twin, device, dtypes, modulated),
            _bias_act_checks(twin, device, dtypes, shapes),
        ]
    return [check for turn in itertools.zip_longest(*streams) for check in turn if check is not None]


#: more than a tile of the kernels, and planes enough for several in a block
LARGE = [
    RESAMPLE[0]._replace(shape=(2, 16, 70, 75), taps=(4, 4)),
    RESAMPLE[1]._replace(shape=(2, 16, 133, 70)),
    RESAMPLE[2]._replace(shape=(2, 16, 67, 129)),
    RESAMPLE[1]._replace(shape=(40, 3, 4, 4)),
]
