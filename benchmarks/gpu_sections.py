"""The sections of the GPU harness: build, ceilings, correctness, speed, end to end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
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


def correctness(context: Context) -> list[str]:
    """All checks of gpu_correctness, with outputs poisoned with NaN and without TF32."""
    # read by cuBLAS when it starts: without it, deterministic mode refuses matrix products
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    from .gpu_correctness import checks

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    # only with this does torch fill what empty() returns with NaN; what has no deterministic form may run all the same
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.manual_seed(0)
    left_out = []
    for name, run in checks(context.device, context.dry):
        if "passed" in context.record.results.get(name, {}):
            continue
        if context.left() <= 0:
            left_out.append(name)
            continue
        try:
            context.record.add(name, **run())
        except Exception as error:
            context.record.add(name, passed=False, error=f"{type(error).__name__}: {error}".splitlines()[0][:300])
            if "CUDA error" in str(error):
                raise
    return left_out


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
        result = clock.measure([call(kwargs) for kwargs in made], min(0.3, max(0.05, context.left() / 50)))
    seconds = result["seconds"]
    result |= {"bytes_per_second": case.bytes[backward] / seconds, "flops_per_second": case.flops[backward] / seconds}
    limits = context.others.get("ceilings", {}).get("ceilings", {})
    rate = limits.get(f"matmul_{str(case.dtype).removeprefix('torch.')}_flops")
    if "copy_bytes" in limits and rate:
        floor = max(case.bytes[backward] / limits["copy_bytes"], case.flops[backward] / rate)
        result |= {"floor_seconds": floor, "fraction_of_ceiling": floor / seconds}
    return result


def speed(context: Context) -> list[str]:
    """Each case forward, and forward with backward: eager forms, torch.compile, each twin."""
    import torch

    from .gpu_cases import cases
    from .gpu_timing import Clock

    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    clock = Clock(context.device, context.dry)
    work = [
        (case, name, form, backward)
        for case in cases(context.dry)
        for name, form in _forms(case, context).items()
        for backward in (False, True)
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
    """StyleGAN2's generator and its training step at each resolution, with the fused ops and with the reference."""
    from .gpu_end_to_end import configurations, generate, train
    from .gpu_timing import Clock

    clock = Clock(context.device, context.dry)
    left_out = []
    for configuration in configurations(context.dry):
        for impl in (None, "reference"):
            key = f"stylegan2 {configuration.resolution} px/{impl or 'fused'}"
            for what, run in (("generate", generate), ("train", train)):
                if what in context.record.results.get(key, {}):
                    continue
                if context.left() <= 0:
                    left_out.append(f"{key}/{what}")
                    continue
                try:
                    result = run(clock, configuration, context.device, impl)
                except Exception as error:
                    result = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
                    if "CUDA error" in str(error):
                        raise
                context.record.add(key, **{what: result})
                clock.free()
    return left_out


#: each section with its limit in seconds; what one does not use, the next ones may
SECTIONS: dict[str, tuple[Callable[[Context], list[str]], float]] = {
    "build": (build, 140),
    "ceilings": (ceilings, 20),
    "correctness": (correctness, 90),
    "speed": (speed, 120),
    "end_to_end": (end_to_end, 100),
}
