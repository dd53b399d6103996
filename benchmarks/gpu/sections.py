"""The sections of the GPU harness: build, ceilings, correctness, speed, end to end."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..record import ROOT, Record
from .workers import gpu_is_lost, one_line, spread


@dataclass
class Context:
    """What a section gets: where it runs, until when, and where its results go."""

    device: str
    dry: bool
    deadline: float
    record: Record
    #: the results of the other sections, by section and case
    others: dict[str, dict[str, Any]]
    #: callables to time beside the backends, by op and name
    against: dict[str, dict[str, Callable[..., Any]]]
    #: what the time did not suffice for
    left_out: list[str] = field(default_factory=list)

    def left(self) -> float:
        return self.deadline - time.monotonic()

    def failed(self, key: str, what: str) -> bool:
        """Whether a measurement was tried, and failed."""
        return "failed" in self.record.results.get(key, {}).get(what, {})

    def attempt(self, key: str, what: str, run: Callable[[], dict[str, Any]], least: float = 0.0, **about: Any) -> None:
        """Record a measurement as ``what`` of the case ``key``, unless it is there or fewer seconds than ``least`` are
        left. One that fails, or does not return, is on record as failed; the section ends if the GPU is lost."""
        if what in self.record.results.get(key, {}) and not self.failed(key, what):
            return
        if self.left() <= least:
            self.left_out.append(f"{key}/{what}")
            return
        self.record.add(key, **about, **{what: {"failed": "it did not end"}})
        try:
            result = run()
        except Exception as error:
            result = {"failed": one_line(error)}
        self.record.add(key, **{what: result})
        if "failed" in result and gpu_is_lost():
            raise RuntimeError(result["failed"])


def build(context: Context) -> None:
    """Build the extensions in place, for this card alone; record what was built, and why something was not."""
    import torch

    if not context.dry:
        environment = dict(os.environ)
        if torch.device(context.device).type == "cuda":
            environment["TORCH_CUDA_ARCH_LIST"] = "{}.{}".format(*torch.cuda.get_device_capability(context.device))
        start = time.monotonic()
        command = [sys.executable, "setup.py", "build_ext", "--inplace"]
        try:
            result = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=max(1.0, context.left())
            )
            code, output = result.returncode, result.stdout + result.stderr
        except subprocess.TimeoutExpired:
            code, output = -1, "the build ran out of time"
        context.record.add("build", seconds=time.monotonic() - start, code=code, tail=output[-2000:])
        if code != 0:
            context.record.add("build", error=f"setup.py ended with {code}")
    from imgops import _backend

    context.record.add("report", extensions=_backend.build_report())
    for (backend, device), status in _backend.load().items():
        context.record.add(f"{backend} on {device}", **status._asdict())


def ceilings(context: Context) -> None:
    """A large copy, and large matrix products on random data."""
    from . import timing

    clock = timing.Clock(context.device, context.dry)
    for name, measure in timing.CEILINGS.items():
        context.attempt("ceilings", name, partial(measure, clock))
        clock.free()


#: processes that share the GPU where most of the time goes into compiling Triton's kernels
PROCESSES = 8


def correctness(context: Context) -> None:
    """All checks of correctness."""
    from .correctness import arrange, checks, run_check

    wanted = [
        name for name in checks(context.device, context.dry) if "passed" not in context.record.results.get(name, {})
    ]
    run, processes = partial(run_check, context.device, context.dry), 1 if context.dry else PROCESSES
    done = set()
    for name, result in spread(run, wanted, processes, context.left(), arrange):
        context.record.add(name, **{"passed": False, **result})
        done.add(name)
    context.left_out += [name for name in wanted if name not in done]


def _forms(case: Any, context: Context) -> dict[str, Callable[..., Any]]:
    """What computes a case, by name: the backends that run here, the eager forms, and the callables to time beside."""
    import torch

    import imgops
    from imgops import _backend
    from tests.op_specs import SHEETS

    op = getattr(imgops, case.op)
    kind = torch.device(context.device).type
    forms: dict[str, Callable[..., Any]] = {}
    for backend in _backend.BACKENDS:
        if backend != "reference" and _backend.status_of(case.op, backend, kind, _backend.load()).available:
            forms[backend] = lambda backend=backend, **kwargs: op(**kwargs, impl=backend)
    return forms | SHEETS[case.op].forms | context.against.get(case.op, {})


def _time(
    context: Context, clock: Any, case: Any, form: Callable[..., Any], backward: bool, budget: float
) -> dict[str, Any]:
    import torch

    from tests.op_specs import as_tuple

    device = torch.device(context.device)
    made = [case.make(device) for _ in range(clock.rotation(case.bytes[0] // 2))]

    def call(kwargs: dict[str, Any]) -> Callable[[], Any]:
        for name in case.differentiable if backward else ():
            kwargs[name].requires_grad_()
        outputs = as_tuple(form(**kwargs))
        if not all(torch.isfinite(y).all() for y in outputs):
            raise ValueError("the result is not finite")
        if not backward:
            return lambda: form(**kwargs)
        inputs = [kwargs[name] for name in case.differentiable]
        gradients = [torch.randn_like(y) for y in outputs]
        # the convolution alone knows neither styles nor noise
        return lambda: torch.autograd.grad(as_tuple(form(**kwargs)), inputs, gradients, allow_unused=True)

    with torch.set_grad_enabled(backward):
        result = clock.measure([call(kwargs) for kwargs in made], budget, graph=case.graph)
    limits = context.others.get("ceilings", {}).get("ceilings", {})
    copy, product = (limits.get(name, {}).get("per_second") for name in ("copy", case.rate))
    if case.bytes[backward] and copy and product:
        floor = max(case.bytes[backward] / copy, case.flops[backward] / product)
        result |= {"floor_seconds": floor, "fraction_of_ceiling": floor / result["seconds"]}
    return result


def compile_case(device: str, dry: bool, number: int) -> dict[str, Any]:
    """Run Triton on a case once, forward and backward, which leaves its kernels in Triton's cache on disk."""
    import torch

    import imgops
    from tests.op_specs import as_tuple, cases

    case = cases(dry)[number]
    kwargs = case.make(torch.device(device))
    inputs = [kwargs[name].requires_grad_() for name in case.differentiable]
    outputs = as_tuple(getattr(imgops, case.op)(**kwargs, impl="triton"))
    torch.autograd.grad(outputs, inputs, [torch.randn_like(y) for y in outputs])
    torch.cuda.synchronize(device)
    return {}


def speed(context: Context) -> None:
    """Each case forward, and forward with backward: eager forms, each backend, and of each op once torch.compile."""
    import torch

    from tests.op_specs import FORWARD_ONLY, SHEETS, cases

    from .timing import Clock

    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    clock, problems = Clock(context.device, context.dry), cases(context.dry)
    directions = ("forward", "forward+backward")
    if clock.on_gpu:
        known = context.record.results
        missing = [i for i, case in enumerate(problems) if "triton" not in known.get(f"{case.id}/{directions[1]}", {})]
        # what fails here fails again below, where it is recorded
        for _ in spread(partial(compile_case, context.device, context.dry), missing, PROCESSES, context.left() / 3):
            pass
    # those of all ops in turn, so that a cut-off leaves none out
    by_op: dict[str, list[Any]] = {}
    for case in problems:
        by_op.setdefault(case.op, []).append(case)
    work = [
        (case, name, form, backward)
        for case in itertools.chain(*itertools.zip_longest(*by_op.values()))
        if case is not None
        for name, form in _forms(case, context).items()
        for backward in ((False,) if name in FORWARD_ONLY else (False, True))
    ]
    # what compiles goes last, so that the time runs out on it and on nothing else; before it what failed before
    work.sort(key=lambda item: context.failed(f"{item[0].id}/{directions[item[3]]}", item[1]))
    if not context.dry:
        first = {case.op: case for case in reversed(problems)}.values()
        work += [
            (case, "torch.compile", torch.compile(SHEETS[case.op].forms["eager"], dynamic=False), backward)
            for case in first
            for backward in (False, True)
        ]
    for i, (case, name, form, backward) in enumerate(work):
        compiling = name == "torch.compile"
        if compiling:
            # torch.compile leaves a function uncompiled once it has compiled it eight times
            torch.compiler.reset()
        context.attempt(
            f"{case.id}/{directions[backward]}",
            name,
            # a third of its share of the time; the rest goes into making inputs, warming up and capturing
            partial(
                _time, context, clock, case, form, backward, max(0.02, min(0.2, context.left() / (len(work) - i) / 3))
            ),
            least=30.0 if compiling else 0.0,
            bytes=case.bytes[backward],
            flops=case.flops[backward],
        )
        if context.left() > 0:
            clock.free()


def end_to_end(context: Context) -> None:
    """StyleGAN2's generator and its training step at each resolution, and the steps of style transfer and of dreams,
    with the fused ops and without."""
    from .end_to_end import configurations, generate, picture_steps, steps_of, train
    from .timing import Clock

    clock = Clock(context.device, context.dry)
    named, others = configurations(context.dry)

    def networks(these: Sequence[Any]) -> list[tuple[str, str, Callable[[], dict[str, Any]]]]:
        return [
            (f"{configuration.name}/{impl or 'fused'}", what, partial(run, clock, configuration, impl))
            for configuration in these
            for impl in (None, "reference")
            for what, run in (("generate", generate), ("train", train))
        ]

    pictures = [
        (name, "steps", partial(steps_of, clock, make)) for name, make in picture_steps(context.dry, context.device)
    ]
    for key, what, run in [*networks(named), *pictures, *networks(others)]:
        context.attempt(key, what, run, least=0.0 if context.dry else 15.0)
        clock.free()


def sanitizers(context: Context) -> None:
    """The checks of the CUDA backend at small shapes under compute-sanitizer: accesses out of bounds, and races."""
    program = [sys.executable, "-m", "benchmarks.gpu.correctness", "--device", context.device]
    program += ["--backend", "cpu" if context.dry else "cuda"] + ["--dry"] * context.dry
    # each tensor an allocation of its own, so that an access beyond its end is seen
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    # our kernels alone, as PyTorch's would take most of the time; and no calls of the driver, which PyTorch probes
    watch = ["--error-exitcode", "9", "--report-api-errors", "no", "--kernel-name", "kernel_substring=imgops"]
    for tool in ("memcheck", "racecheck"):
        if context.record.results.get(tool, {}).get("code") == 0:
            continue
        if context.left() <= 0:
            context.left_out.append(tool)
            continue
        try:
            result = subprocess.run(
                [*([] if context.dry else ["compute-sanitizer", "--tool", tool, *watch]), *program],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=max(1.0, context.left()),
            )
        except FileNotFoundError:
            context.record.add(tool, error="compute-sanitizer is not installed; it comes with the CUDA toolkit")
        except subprocess.TimeoutExpired:
            context.left_out.append(tool)
        else:
            lines = [*result.stdout.splitlines(), *result.stderr.splitlines()]
            told = [line for line in lines if line.startswith("=====") or "checks passed" in line or "error:" in line]
            context.record.add(tool, code=result.returncode, told=told[-20:])


#: each section with its limit in seconds, or None where it runs by its name alone; what one does not use, the next ones
#: may
SECTIONS: dict[str, tuple[Callable[[Context], None], float | None]] = {
    "build": (build, 140),
    "ceilings": (ceilings, 30),
    "correctness": (correctness, 90),
    "speed": (speed, 110),
    "end_to_end": (end_to_end, 100),
    "sanitizers": (sanitizers, None),
}
