"""The sections of the GPU harness: build, ceilings, correctness, speed, end to end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

from .gpu_record import ROOT, Record


@dataclass
class Context:
    """What a section gets: where it runs, until when, and where its results go."""

    device: str
    dry: bool
    deadline: float
    record: Record
    #: the results of the other sections, by section and case
    others: dict[str, dict[str, Any]]
    #: callables to time beside the twins, by op and name
    against: dict[str, dict[str, Callable[..., Any]]]

    def left(self) -> float:
        return self.deadline - time.monotonic()


def build(context: Context) -> list[str]:
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
    for (twin, device), status in _backend.load().items():
        context.record.add(f"{twin} on {device}", **status._asdict())
    return []


def ceilings(context: Context) -> list[str]:
    """A large copy, and large matrix products on random data."""
    from . import gpu_timing

    context.record.add("ceilings", **gpu_timing.ceilings(gpu_timing.Clock(context.device, context.dry)))
    return []


def _pool(context: Context, arrange: Callable[[], None] | None = None) -> futures.ProcessPoolExecutor:
    """Processes that share the device: most of the time on a bare machine goes into compiling Triton's kernels."""
    workers = 1 if context.dry else min(8, os.cpu_count() or 1)
    return futures.ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=arrange)


def correctness(context: Context) -> list[str]:
    """All checks of gpu_correctness."""
    from .gpu_correctness import arrange, checks, run_check

    names = [name for name, _ in checks(context.device, context.dry)]
    with _pool(context, arrange) as pool:
        running = {
            pool.submit(run_check, context.device, context.dry, number): name
            for number, name in enumerate(names)
            if "passed" not in context.record.results.get(name, {})
        }
        left_out = set(running.values())
        try:
            for done in futures.as_completed(running, timeout=max(0.0, context.left())):
                result = done.result()
                context.record.add(running[done], **result)
                left_out.discard(running[done])
                if result.get("broken"):
                    raise RuntimeError(f"{running[done]}: {result['error']}")
        except futures.TimeoutError:
            pass
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return [name for name in names if name in left_out]


def _forms(case: Any, context: Context) -> dict[str, Callable[..., Any]]:
    """Everything that computes a case, by name; torch.compile's comes last, since compiling takes time."""
    import torch

    import imgops
    from imgops import _backend

    from .eager import FORMS

    op = getattr(imgops, case.op)
    kind = torch.device(context.device).type
    forms: dict[str, Callable[..., Any]] = {}
    for twin in _backend.TWINS:
        if twin != "reference" and _backend.load()[twin, kind].available:
            forms[twin] = lambda twin=twin, **kwargs: op(**kwargs, impl=twin)
    forms |= FORMS[case.op] | context.against.get(case.op, {})
    if not context.dry:
        forms["torch.compile"] = torch.compile(FORMS[case.op]["eager"], dynamic=False)
    return forms


def _time(context: Context, clock: Any, case: Any, form: Callable[..., Any], backward: bool) -> dict[str, Any]:
    import torch

    device = torch.device(context.device)
    made = [case.make(device) for _ in range(clock.rotation(case.bytes[0] // 2))]

    def call(kwargs: dict[str, Any]) -> Callable[[], Any]:
        if not backward:
            return lambda: form(**kwargs)
        for name in case.differentiable:
            kwargs[name].requires_grad_()
        inputs = [kwargs[name] for name in case.differentiable]
        y = form(**kwargs)
        dy = torch.randn_like(y)
        # the convolution alone knows neither styles nor noise
        return lambda: torch.autograd.grad(form(**kwargs), inputs, dy, allow_unused=True)

    with torch.set_grad_enabled(backward):
        result = clock.measure([call(kwargs) for kwargs in made], min(0.2, max(0.05, context.left() / 100)))
    seconds = result["seconds"]
    result |= {"bytes_per_second": case.bytes[backward] / seconds, "flops_per_second": case.flops[backward] / seconds}
    limits = context.others.get("ceilings", {}).get("ceilings", {})
    rate = limits.get(f"matmul_{str(case.dtype).removeprefix('torch.')}_flops")
    if "copy_bytes" in limits and rate:
        floor = max(case.bytes[backward] / limits["copy_bytes"], case.flops[backward] / rate)
        result |= {"floor_seconds": floor, "fraction_of_ceiling": floor / seconds}
    return result


def compile_case(device: str, dry: bool, number: int) -> None:
    """Run Triton on a case once, forward and backward, which leaves its kernels in Triton's cache on disk."""
    import torch

    import imgops

    from .gpu_cases import cases

    case = cases(dry)[number]
    kwargs = case.make(torch.device(device))
    inputs = [kwargs[name].requires_grad_() for name in case.differentiable]
    y = getattr(imgops, case.op)(**kwargs, impl="triton")
    if inputs:
        torch.autograd.grad(y, inputs, torch.randn_like(y))
    torch.cuda.synchronize(device)


def speed(context: Context) -> list[str]:
    """Each case forward, and forward with backward: eager forms, torch.compile, each twin."""
    import torch

    from .gpu_cases import cases
    from .gpu_timing import Clock

    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    clock = Clock(context.device, context.dry)
    if clock.on_gpu:
        with _pool(context) as pool:
            compiled = [
                pool.submit(compile_case, context.device, context.dry, i) for i in range(len(cases(context.dry)))
            ]
            # what fails here fails again below, where it is recorded
            futures.wait(compiled, timeout=context.left() / 2)
            pool.shutdown(wait=False, cancel_futures=True)
    work = [
        (case, name, form, backward)
        for case in cases(context.dry)
        for name, form in _forms(case, context).items()
        for backward in ((False, True) if case.differentiable else (False,))
    ]
    # what compiles goes last, so that the time runs out on it and on nothing else
    work.sort(key=lambda item: item[1] == "torch.compile")
    left_out = []
    for case, name, form, backward in work:
        key = f"{case.id}/{'forward+backward' if backward else 'forward'}"
        if name in context.record.results.get(key, {}):
            continue
        if context.left() <= 0:
            left_out.append(f"{key}/{name}")
            continue
        try:
            result = _time(context, clock, case, form, backward)
        except Exception as error:
            result = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
            if "CUDA error" in str(error):
                raise
        context.record.add(key, bytes=case.bytes[backward], flops=case.flops[backward], **{name: result})
        clock.free()
    return left_out


def end_to_end(context: Context) -> list[str]:
    """StyleGAN2's generator and its training step at each resolution, with the fused ops and with the reference; then
    the steps of style transfer and of dreams."""
    from .gpu_end_to_end import configurations, generate, picture_steps, steps_of, train
    from .gpu_timing import Clock

    clock = Clock(context.device, context.dry)
    left_out = []

    def attempt(key: str, what: str, run: Callable[[], dict[str, Any]]) -> None:
        if what in context.record.results.get(key, {}):
            return
        if context.left() <= 0:
            left_out.append(f"{key}/{what}")
            return
        try:
            result = run()
        except Exception as error:
            result = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
            if "CUDA error" in str(error):
                raise
        context.record.add(key, **{what: result})
        clock.free()

    for configuration in configurations(context.dry):
        for impl in (None, "reference"):
            key = f"stylegan2 {configuration.resolution} px/{impl or 'fused'}"
            for what, run in (("generate", generate), ("train", train)):
                attempt(key, what, partial(run, clock, configuration, context.device, impl))
    for comparison in picture_steps(context.dry, context.device):
        attempt(comparison.id, "steps", partial(steps_of, clock, comparison))
    return left_out


def sanitizers(context: Context) -> list[str]:
    """The checks of the CUDA twin at small shapes under compute-sanitizer: accesses out of bounds, and races."""
    program = [sys.executable, "-m", "benchmarks.gpu_correctness", "--device", context.device]
    program += ["--twin", "cpu" if context.dry else "cuda"] + ["--dry"] * context.dry
    # each tensor an allocation of its own, so that an access beyond its end is seen
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    left_out = []
    for tool in ("memcheck", "racecheck"):
        if context.record.results.get(tool, {}).get("code") == 0:
            continue
        if context.left() <= 0:
            left_out.append(tool)
            continue
        prefix = [] if context.dry else ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", "--kernel-name"]
        # our kernels alone; PyTorch's would take most of the time
        prefix += [] if context.dry else ["kernel_substring=imgops"]
        try:
            result = subprocess.run(
                [*prefix, *program],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=max(1.0, context.left()),
            )
        except FileNotFoundError:
            context.record.add(tool, error="compute-sanitizer is not installed; it comes with the CUDA toolkit")
        except subprocess.TimeoutExpired:
            left_out.append(tool)
        else:
            lines = (result.stdout + result.stderr).splitlines()
            context.record.add(tool, code=result.returncode, summary=[line for line in lines if "===" in line][-20:])
            context.record.add(tool, checks=lines[-1] if result.returncode == 0 else lines[-5:])
    return left_out


#: each section with its limit in seconds, or None where it runs by its name alone; what one does not use, the next ones
#: may
SECTIONS: dict[str, tuple[Callable[[Context], list[str]], float | None]] = {
    "build": (build, 140),
    "ceilings": (ceilings, 20),
    "correctness": (correctness, 90),
    "speed": (speed, 120),
    "end_to_end": (end_to_end, 100),
    "sanitizers": (sanitizers, None),
}
