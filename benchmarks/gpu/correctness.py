"""Every backend against the float64 reference on the GPU: forward, every order of backward, recorded cases."""

from __future__ import annotations

import argparse
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from imgops import _backend
from tests.golden import cases as recorded_cases
from tests.golden import relative_error
from tests.op_specs import SHEETS, Problem

from .workers import one_line

#: the tolerance grows by the factor with each order of gradient, which rounds more, up to a share of the largest value
#: that no rounding explains
ORDER_FACTOR, MOST = 4.0, 0.3
RECORDED_TOLERANCE = 1e-10

Function = Callable[..., Tensor]
Check = tuple[str, Callable[[], dict[str, Any]]]


def arrange() -> None:
    """Poison outputs with NaN, and have no TF32, for the rest of the process; before anything runs on the GPU."""
    # read by cuBLAS when it starts: without it, deterministic mode refuses matrix products
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    # only with this does torch fill what empty() returns with NaN; what has no deterministic form may run all the same
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.manual_seed(0)


def derivatives(function: Function, inputs: Sequence[Tensor], seeds: Sequence[Tensor]) -> list[list[Tensor]]:
    """Output, gradients, and gradients of <v, gradients>; ``seeds`` are dy and one v per input."""
    inputs = [t.detach().requires_grad_() for t in inputs]
    y = function(*inputs)
    dy = seeds[0].to(y.dtype).requires_grad_()
    first = torch.autograd.grad(y, inputs, dy, create_graph=True)
    total = sum((g * v.to(g.dtype)).sum() for g, v in zip(first, seeds[1:], strict=True))
    second = torch.autograd.grad(total, [dy, *inputs], allow_unused=True)
    # what has no path to an input has no gradient for it
    gradients = (torch.zeros_like(t) if g is None else g for g, t in zip(second, [dy, *inputs], strict=True))
    return [[y], list(first), list(gradients)]


def worst_error(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest error relative to its tensor's largest element; NaN where a value is NaN, which ``max`` would lose.

    A tensor that is zero up to the rounding of the float64 reference is compared with the largest of the tensors.

    Raises:
        ValueError: a shape is another.
    """
    expected = [e.detach() for e in expected]
    errors, largest = [], max((float(e.abs().max()) for e in expected if e.numel()), default=0.0)
    for a, e in zip(actual, expected, strict=True):
        if a.shape != e.shape:
            raise ValueError(f"the shape must be {tuple(e.shape)}; got {tuple(a.shape)}")
        if e.numel():
            own = float(e.abs().max())
            scale = own if own > 1e-9 * largest else largest
            errors.append(float((a.detach().double() - e).abs().max()) / max(scale, 1e-30))
    return math.nan if any(map(math.isnan, errors)) else max(errors, default=0.0)


def tolerances(op: str, dtype: torch.dtype) -> list[float]:
    """The tolerances of the output, its gradients, and their gradients."""
    return [min(SHEETS[op].tolerance[dtype] * ORDER_FACTOR**order, MOST) for order in range(3)]


def compare(
    function: Function, reference: Function, inputs: Sequence[Tensor], form: torch.memory_format, allowed: list[float]
) -> dict[str, Any]:
    """Errors of a function by order of gradient, against the same in float64; the first input is the image, and the
    output's gradient arrives in the image's memory format."""
    exact = [t.double() for t in inputs]
    shape = reference(*exact).shape
    # all positive: gradients that are sums over pixels would by chance cancel to less than their terms' rounding
    dy = 0.5 + torch.rand(shape, device=inputs[0].device).to(inputs[0].dtype)
    dy = dy.contiguous(memory_format=form) if dy.ndim == 4 else dy
    seeds = [dy, *(0.5 + torch.rand_like(t) for t in inputs)]
    expected = derivatives(reference, exact, [s.double() for s in seeds])
    actual = derivatives(function, inputs, seeds)
    errors = [worst_error(a, e) for a, e in zip(actual, expected, strict=True)]
    # written so that NaN fails
    passed = all(error <= most for error, most in zip(errors, allowed, strict=True))
    return {"errors": {f"order{i}": error for i, error in enumerate(errors)}, "passed": passed}


def check(op: str, problem: Problem, backend: str, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """A backend on a problem, the image in either layout; outputs are poisoned where PyTorch is deterministic."""
    inputs, call = problem.make(device, dtype, torch.float64 if dtype == torch.float64 else torch.float32)
    x, *others = inputs
    results = {}
    # what has no deterministic form may run all the same
    torch.use_deterministic_algorithms(problem.deterministic, warn_only=True)
    try:
        for layout, form in (("nchw", torch.contiguous_format), ("nhwc", torch.channels_last)):
            images = [x.contiguous(memory_format=form), *others]
            functions = partial(call, backend), partial(call, "reference")
            results[layout] = compare(*functions, images, form, tolerances(op, dtype))
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)
    errors = {f"{layout} {k}": v for layout, r in results.items() for k, v in r["errors"].items()}
    return {"errors": errors, "passed": all(r["passed"] for r in results.values())}


def _recorded_checks(backend: str, device: str, most: int | None) -> Iterator[Check]:
    """The cases of tests/data in float64: output, gradients, and where they were recorded, gradients of those."""
    for op, sheet in SHEETS.items():
        if sheet.recorded is None or not _runs(op, backend, device):
            continue
        for case in itertools.islice(recorded_cases(op), most):

            def run(recorded: Any = sheet.recorded, case: Any = case.values[0]) -> dict[str, Any]:
                a = {name: t.to(device) for name, t in case.arrays.items()}
                got = recorded(a, dict(case.params), backend)
                errors = {name: relative_error(value, a[name]) for name, value in got.items()}
                return {"errors": errors, "passed": all(e <= RECORDED_TOLERANCE for e in errors.values())}

            yield f"{op}/{backend}/recorded/{case.id}", run


def _runs(op: str, backend: str, device: str) -> bool:
    return _backend.status_of(op, backend, torch.device(device).type, _backend.load()).available


def checks(device: str, dry: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every check by its name, those of all backends and ops in turn, so that a cut-off leaves none out."""
    dtypes = (torch.float32,) if dry else (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    streams: dict[tuple[str, str], list[Check]] = {}
    for backend in _backend.BACKENDS:
        if backend == "reference":
            continue
        streams[backend, "recorded"] = list(_recorded_checks(backend, device, 1 if dry else None))
        for op, sheet in SHEETS.items():
            if _runs(op, backend, device):
                streams[backend, op] = [
                    (
                        f"{op}/{backend}/{problem.name}/{str(dtype).removeprefix('torch.')}",
                        partial(check, op, problem, backend, device, dtype),
                    )
                    for problem, dtype in itertools.product(sheet.problems(dry), dtypes)
                ]
    return dict(one for turn in itertools.zip_longest(*streams.values()) for one in turn if one is not None)


_checks = cache(checks)


def run_check(device: str, dry: bool, name: str) -> dict[str, Any]:
    """The result of a check by its name, the same whatever ran before; one that raises has not passed."""
    torch.manual_seed(0)
    try:
        return _checks(device, dry)[name]()
    except Exception as error:
        return {"passed": False, "error": one_line(error)}


def main() -> None:
    """Run the checks of one backend in float32 and float16; for a sanitizer, which watches them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.correctness", description=main.__doc__)
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--backend", default="cuda", choices=_backend.BACKENDS, help="default: cuda")
    parser.add_argument("--dry", action="store_true", help="one shape of each op")
    options = parser.parse_args()
    arrange()
    names = [
        name
        for name in _checks(options.device, options.dry)
        if name.split("/")[1] == options.backend and not name.endswith(("float64", "bfloat16"))
    ]
    if not names:
        parser.error(f"the {options.backend} backend does not run on {options.device}; see imgops info")
    results = {name: run_check(options.device, options.dry, name) for name in names}
    wrong = [f"{name}: {r.get('error', r.get('errors'))}" for name, r in results.items() if not r["passed"]]
    print("\n".join([*wrong, f"{len(names) - len(wrong)} of {len(names)} checks passed"]))
    sys.exit(len(wrong) > 0)


if __name__ == "__main__":
    main()
